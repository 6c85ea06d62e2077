package janitor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// Planted bugs, see package mutant.
const (
	mutantCopyUnverified mutant.ID = "janitor-compacts-corrupt-batches"
	mutantSwapBeforePut  mutant.ID = "janitor-swaps-before-the-object-is-there"
)

// readGap is up to how many bytes between two extents are read with them, where
// a second request would cost more.
const readGap = 64 << 10

// source is a run of one partition's extents that goes into the new segment,
// and the keys of the objects that hold them now.
type source struct {
	of   []commit.Extent
	keys []string

	bytes [][]byte // of each extent
}

// build makes one segment out of copies and swaps it in: read and verify, reserve,
// put, read again and compare, replace. A crash before the end leaves garbage that is
// collected; the old segments stay until the swap, and what readers see does not change by it.
type build struct {
	j      *Janitor
	copies []source
	report *CompactionReport
	moved  int64 // bytes read and written
}

func (b *build) do(ctx context.Context) error {
	slices.SortFunc(b.copies, func(x, y source) int {
		e, f := x.of[0], y.of[0]
		return cmp.Or(bytes.Compare(e.Topic[:], f.Topic[:]), cmp.Compare(e.Partition, f.Partition), cmp.Compare(e.Base, f.Base))
	})
	if err := b.read(ctx); err != nil {
		return err
	}
	refs, err := b.j.metadata.Reserve(ctx, 1)
	if err != nil {
		return err
	}
	object, compaction, err := b.write(refs[0].ID)
	if err != nil {
		return err
	}
	if err := b.put(ctx, refs[0], object); err != nil {
		return err
	}
	return b.replace(ctx, compaction)
}

// span is what one ranged read fetches: extents beside each other in one object.
type span struct {
	key              string
	position, length int64
	parts            []part
}

type part struct {
	extent commit.Extent
	into   *[]byte
}

// spans groups the extents of all copies by what can be read at once.
func (b *build) spans() []*span {
	var parts []struct {
		key string
		part
	}
	for i := range b.copies {
		c := &b.copies[i]
		c.bytes = make([][]byte, len(c.of))
		for k, e := range c.of {
			parts = append(parts, struct {
				key string
				part
			}{c.keys[k], part{e, &c.bytes[k]}})
		}
	}
	slices.SortFunc(parts, func(x, y struct {
		key string
		part
	}) int {
		return cmp.Or(cmp.Compare(x.key, y.key), cmp.Compare(x.extent.Position, y.extent.Position))
	})
	var spans []*span
	for _, p := range parts {
		e := p.extent
		if n := len(spans); n > 0 && spans[n-1].key == p.key {
			s := spans[n-1]
			end := s.position + s.length
			longer := e.Position + e.Length - s.position
			if e.Position >= end && e.Position-end <= readGap && longer <= b.j.cfg.CompactSegmentBytes {
				s.length = longer
				s.parts = append(s.parts, p.part)
				continue
			}
		}
		spans = append(spans, &span{key: p.key, position: e.Position, length: e.Length, parts: []part{p.part}})
	}
	return spans
}

// read reads and verifies the batches of all copies. Copies whose bytes cannot be
// had or are not what was committed are left out, and their failure is returned if
// nothing else is left.
func (b *build) read(ctx context.Context) error {
	spans := b.spans()
	errs := make([]error, len(spans))
	var wg sync.WaitGroup
	work := make(chan int)
	for range min(b.j.cfg.Deletes, len(spans)) {
		wg.Go(func() {
			for i := range work {
				errs[i] = b.readSpan(ctx, spans[i])
			}
		})
	}
	for i := range spans {
		work <- i
	}
	close(work)
	wg.Wait()
	for _, s := range spans {
		b.moved += s.length
	}
	b.report.Reads += len(spans)
	b.copies = slices.DeleteFunc(b.copies, func(c source) bool {
		return slices.ContainsFunc(c.bytes, func(p []byte) bool { return p == nil })
	})
	if err := errors.Join(errs...); err != nil && (len(b.copies) == 0 || ctx.Err() != nil) {
		return err
	}
	return nil
}

func (b *build) readSpan(ctx context.Context, s *span) error {
	body, err := b.j.store.ReadRange(ctx, s.key, s.position, s.length)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range s.parts {
		at := p.extent.Position - s.position
		part := body[at : at+p.extent.Length : at+p.extent.Length]
		if err := verify(p.extent, part); err != nil {
			b.j.tel.Record(ports.Event{Kind: ports.CorruptionFound, Bytes: p.extent.Length, Err: err})
			errs = append(errs, err)
			continue
		}
		*p.into = part
	}
	return errors.Join(errs...)
}

// verify demands that b is exactly the batches that were committed as e.
func verify(e commit.Extent, b []byte) error {
	if mutant.On(mutantCopyUnverified) {
		return nil
	}
	var records, batches int64
	for len(b) > 0 {
		h, err := batch.ParseHeader(b)
		if err == nil {
			_, err = batch.Verify(b[:h.Length])
		}
		if err == nil {
			err = batch.VerifyStored(b[:h.Length])
		}
		if err != nil {
			return &domain.CorruptError{Segment: e.Segment, What: fmt.Sprintf("batch %d of the extent at %d: %v", batches, e.Position, err)}
		}
		records, batches, b = records+int64(h.Records), batches+1, b[h.Length:]
	}
	if records != int64(e.Last-e.Base)+1 || batches != int64(e.Batches) {
		return &domain.CorruptError{Segment: e.Segment, What: fmt.Sprintf(
			"%d batches with %d records at %d, committed were %d with %d", batches, records, e.Position, e.Batches, e.Last-e.Base+1)}
	}
	return nil
}

// write builds the object of segment id, and what is to be asked of the
// metadata store once it is durable.
func (b *build) write(id domain.SegmentID) ([]byte, commit.Compaction, error) {
	var sum int64
	for _, c := range b.copies {
		sum += bytesOf(c.of)
	}
	w := segment.NewWriter(make([]byte, 0, segment.Size(sum, len(b.copies))), b.j.metadata.ClusterID(), id)
	compaction := commit.Compaction{ID: id}
	for _, c := range b.copies {
		cp := commit.Copy{Position: w.Len(), Of: c.of}
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
// what the store gives back is compared, not what it was given. An unclear outcome is settled
// by that too: only what is there can be read.
func (b *build) put(ctx context.Context, ref ports.SegmentRef, object []byte) error {
	if mutant.On(mutantSwapBeforePut) {
		return nil
	}
	err := b.j.store.Put(ctx, ref.Key, object)
	b.moved += int64(len(object))
	if err != nil && ports.KindOf(err) != ports.Ambiguous {
		return err
	}
	back, readErr := b.j.store.ReadRange(ctx, ref.Key, 0, int64(len(object)))
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	b.moved += int64(len(back))
	if !bytes.Equal(back, object) {
		return &domain.CorruptError{Segment: ref.ID, What: "the object is read back other than it was written"}
	}
	return nil
}

// replaceAttempts is how often a swap of unclear outcome is asked for again. The
// same call answers with what the first one did.
const replaceAttempts = 3

func (b *build) replace(ctx context.Context, c commit.Compaction) error {
	var held int
	var err error
	for range replaceAttempts {
		held, err = b.j.metadata.Replace(ctx, c)
		if err == nil || ports.KindOf(err) != ports.Ambiguous || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return err
	}
	b.report.Segments++
	b.report.Copies += held
	b.report.Lost += len(c.Copies) - held
	b.report.Bytes += c.Size
	if held == len(c.Copies) {
		for _, cp := range c.Copies {
			b.report.Replaced += len(cp.Of)
		}
	}
	return nil
}
