package janitor

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// source is a run of one partition's extents that goes into the new segment,
// and where they are now.
type source struct {
	of   []commit.Extent
	refs []ports.ExtentRef

	bytes [][]byte // of each extent, nil if it could not be read
}

// build makes one segment out of copies and swaps it in: read and verify, reserve,
// put, read again and compare, replace. A crash before the end leaves garbage that is
// collected; the old segments stay until the swap, and what readers see does not change by it.
type build struct {
	pass   *compacting
	copies []source
	moved  int64 // bytes read and written
}

// do returns how many copies came too late. Nothing is done, without an error,
// if there is nothing that can be read.
func (b *build) do(ctx context.Context) (lost int, err error) {
	slices.SortFunc(b.copies, func(x, y source) int {
		e, f := x.of[0], y.of[0]
		return cmp.Or(bytes.Compare(e.Topic[:], f.Topic[:]), cmp.Compare(e.Partition, f.Partition), cmp.Compare(e.Base, f.Base))
	})
	if err := b.read(ctx); err != nil || len(b.copies) == 0 {
		return 0, err
	}
	refs, err := b.pass.j.metadata.Reserve(ctx, 1)
	if err != nil {
		return 0, err
	}
	object, compaction, err := b.write(refs[0].ID)
	if err != nil {
		return 0, err
	}
	b.copies = nil // their bytes are in the object
	if err := b.put(ctx, refs[0], object); err != nil {
		return 0, err
	}
	return b.replace(ctx, compaction)
}

// write builds the object of segment id, and what is to be asked of the
// metadata store once it is durable.
func (b *build) write(id domain.SegmentID) ([]byte, commit.Compaction, error) {
	var sum int64
	for _, c := range b.copies {
		sum += bytesOf(c.of)
	}
	w := segment.NewWriter(make([]byte, 0, segment.Size(sum, len(b.copies))), b.pass.j.metadata.ClusterID(), id)
	compaction := commit.Compaction{ID: id}
	for _, c := range b.copies {
		cp := commit.Copy{Position: w.Len(), Of: c.of}
		if mutant.On(mutantCopiesMixed) {
			slices.Reverse(c.bytes)
		}
		for _, extent := range c.bytes {
			if err := addBatches(w, c.of[0], extent); err != nil {
				return nil, compaction, err
			}
		}
		compaction.Copies = append(compaction.Copies, cp)
	}
	object, crc, err := w.Close()
	compaction.Size, compaction.CRC32C = int64(len(object)), crc
	return object, compaction, err
}

func addBatches(w *segment.Writer, e commit.Extent, b []byte) error {
	for len(b) > 0 {
		h, err := batch.ParseHeader(b)
		if err != nil {
			return err
		}
		if _, err := w.Add(e.Topic, e.Partition, b[:h.Length]); err != nil {
			return err
		}
		b = b[h.Length:]
	}
	return nil
}

// put makes the object durable and reads it again: the originals will go, so
// what the store gives back is compared, not what it was given. A put of unclear outcome
// counts as failed, though the object may be there: it may not be durable.
func (b *build) put(ctx context.Context, ref ports.SegmentRef, object []byte) error {
	if mutant.On(mutantSwapBeforePut) {
		return nil
	}
	store := b.pass.j.store
	err := store.Put(ctx, ref.Key, object)
	b.moved += int64(len(object))
	if err != nil {
		if mutant.On(mutantSwapUnclearPut) && ports.KindOf(err) == ports.Ambiguous {
			return nil
		}
		return err
	}
	back, err := store.ReadRange(ctx, ref.Key, 0, int64(len(object)))
	if err != nil {
		return err
	}
	b.moved += int64(len(back))
	if !bytes.Equal(back, object) {
		err := &domain.CorruptError{Segment: ref.ID, What: "the object is read back other than it was written"}
		b.pass.j.tel.Record(ports.Event{Kind: ports.CorruptionFound, Bytes: int64(len(object)), Err: err})
		return err
	}
	return nil
}

// replaceAttempts is how often a swap of unclear outcome is asked for again. The
// same call answers with what the first one did.
const replaceAttempts = 3

func (b *build) replace(ctx context.Context, c commit.Compaction) (lost int, err error) {
	var held int
	for range replaceAttempts {
		held, err = b.pass.j.metadata.Replace(ctx, c)
		if err == nil || ports.KindOf(err) != ports.Ambiguous || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return 0, err
	}
	lost = len(c.Copies) - held
	r := b.pass.report
	r.Segments++
	r.Copies += held
	r.Lost += lost
	r.Bytes += c.Size
	if lost == 0 {
		for _, cp := range c.Copies {
			r.Replaced += len(cp.Of)
		}
	}
	return lost, nil
}
