package direct

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math/bits"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// errForeignObject: under the key of a segment of ours is something else. The
// batches go into another segment at their next Append.
var errForeignObject = errors.New("the object under the segment's key is not the segment")

// run brings one segment into the store, and then commits what is ready if
// nobody does.
func (w *Writer) run(s *draft) {
	err := w.upload(s)
	var out outbox
	w.mu.Lock()
	w.uploading--
	s.uploaded = true
	if err != nil {
		w.refuseDraft(s, notStored(err), &out)
	}
	w.checkClear(s)
	w.seal()
	lead := w.takeLead()
	w.mu.Unlock()
	out.deliver()
	if err != nil && ports.KindOf(err) == ports.Fatal {
		w.fail(err)
	}
	if lead {
		w.commitReady()
	}
}

// upload names, builds and puts the segment. It gives up when no batch of the
// segment is open any more.
func (w *Writer) upload(s *draft) error {
	err := w.retry(s, func() (err error) {
		s.ref, err = w.takeRef(s.ctx)
		return err
	})
	if err != nil {
		return err
	}
	items, buf := w.beginBuild(s)
	if len(items) == 0 {
		return context.Cause(s.ctx)
	}
	object, err := w.build(s, items, buf)
	if err != nil {
		return err
	}
	start, span := time.Now(), w.span(ports.PutSpan, s.traces)
	err = w.retry(s, func() error { return w.put(s, object) })
	w.tel.Record(ports.Event{
		Kind: ports.SegmentPut, Duration: time.Since(start), Bytes: s.size, Count: len(items), Err: err,
	})
	if span != nil {
		span.End(ports.SpanEnd{Segment: s.ref.ID, Bytes: s.size, Count: len(items), Err: err})
	}
	w.recycle(object)
	return err
}

// beginBuild marks the segment as being built, so that no batch in it is given
// back, and returns the batches that are open.
func (w *Writer) beginBuild(s *draft) (items []*item, buf []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var size int64
	for _, it := range s.items {
		if it.state == sealed {
			items = append(items, it)
			size += int64(len(it.bytes))
			if it.call.trace.Sampled() {
				s.traces = ports.AddTrace(s.traces, it.call.trace)
			}
		}
	}
	if len(items) == 0 {
		return nil, nil
	}
	s.building = true
	return items, w.buffer(int(segment.Size(size, len(items))))
}

// build copies the items' batches into one object. Afterwards it settles those
// that were refused in the meantime.
func (w *Writer) build(s *draft, items []*item, buf []byte) ([]byte, error) {
	slices.SortStableFunc(items, byPartition)
	sw := segment.NewWriter(buf, w.cluster, s.ref.ID)
	for _, it := range items {
		position, err := sw.Add(it.commit.Topic, it.commit.Partition, it.bytes)
		it.commit.Position = position
		if err != nil {
			it.corrupt = err
		}
	}
	object, crc, err := sw.Close()
	s.size, s.crc = int64(len(object)), crc
	w.decide(func(out *outbox) { w.endBuild(s, items, out) })
	return object, err
}

func (w *Writer) endBuild(s *draft, items []*item, out *outbox) {
	s.building = false
	s.items = items
	for _, it := range items {
		if err := cmp.Or(it.corrupt, it.refused); err != nil {
			w.refuse(it, err, out)
		}
	}
	w.seal()
}

func byPartition(a, b *item) int {
	if c := bytes.Compare(a.commit.Topic[:], b.commit.Topic[:]); c != 0 {
		return c
	}
	return cmp.Compare(a.commit.Partition, b.commit.Partition)
}

// put makes one attempt to put the object. An earlier attempt of ours that
// counted as failed may have put it.
func (w *Writer) put(s *draft, object []byte) error {
	if mutant.On(mutantAckBeforePut) {
		return nil
	}
	err := w.store.Put(s.ctx, s.ref.Key, object)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ports.ErrObjectExists) && !mutant.On(mutantExistsIsFailure):
		return w.compare(s)
	case ports.KindOf(err) == ports.Transient && mutant.On(mutantTransientPutIsDone):
		return nil
	}
	return err
}

// compare reports whether the object that is there is the segment.
func (w *Writer) compare(s *draft) error {
	if mutant.On(mutantExistsUnchecked) {
		return nil
	}
	info, err := w.store.Stat(s.ctx, s.ref.Key)
	switch {
	case errors.Is(err, ports.ErrObjectNotFound):
		return ports.StorageError("put object "+s.ref.Key, ports.Transient, err)
	case err != nil:
		return err
	case info.Size != s.size || info.CRC32C != s.crc:
		w.tel.Record(ports.Event{Kind: ports.CorruptionFound, Bytes: info.Size, Err: errForeignObject})
		return ports.StorageError("put object "+s.ref.Key, ports.Transient, errForeignObject)
	}
	return nil
}

// retry calls f until it succeeds, fails for good, or the segment is of no use
// any more.
func (w *Writer) retry(s *draft, f func() error) error {
	for attempt := 0; ; attempt++ {
		err := f()
		if err == nil || errors.Is(err, errForeignObject) {
			return err
		}
		if kind := ports.KindOf(err); kind == ports.Definite || kind == ports.Fatal {
			return err
		}
		w.mu.Lock()
		s.failures++
		w.trouble = err
		w.mu.Unlock()
		if !w.pause(s.ctx, attempt) {
			return err
		}
	}
}

// pause waits before the next attempt, and reports false if ctx ended.
func (w *Writer) pause(ctx context.Context, attempt int) bool {
	d := w.cfg.MaxRetryBackoff
	if attempt < 30 {
		d = min(d, w.cfg.RetryBackoff<<attempt)
	}
	w.mu.Lock()
	d -= time.Duration(w.jitter.Int64N(int64(d)/2 + 1))
	w.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// refuseDraft settles what is open of a segment that will never be committed, or
// whose commit has no known end. The batches without a producer that follow them are
// refused too, since nothing else keeps their order; those with one are judged by the
// metadata store.
//
// A segment whose upload failed keeps its place before its dependants until those
// before it are clear; the commit then finds nothing open in it.
func (w *Writer) refuseDraft(s *draft, err error, out *outbox) {
	var broken []*stream
	for _, it := range s.items {
		if it.state == settled {
			continue
		}
		if st := it.stream; it.commit.Producer == commit.NoProducer && !st.broken {
			st.broken = true
			broken = append(broken, st)
		}
		w.refuse(it, err, out)
	}
	if broken != nil {
		w.refuseFollowers(s, out)
	}
	for _, st := range broken {
		st.broken = false
	}
}

// refuseFollowers refuses the batches of broken streams that come after s.
func (w *Writer) refuseFollowers(s *draft, out *outbox) {
	for _, later := range w.inOrder() {
		if later.number > s.number {
			w.refuseBroken(later.items, out)
		}
	}
	w.refuseBroken(w.queue.items(), out)
}

func (w *Writer) refuseBroken(items []*item, out *outbox) {
	for _, it := range items {
		if it.stream.broken && it.state != committing {
			w.refuse(it, domain.ErrOutOfOrder, out)
		}
	}
}

// notStored is err as the error of batches of which nothing reached the log.
func notStored(err error) error {
	if ports.KindOf(err) != ports.Ambiguous {
		return err
	}
	return ports.StorageError("append", ports.Transient, err)
}

// buffer returns an empty buffer of at least n bytes.
func (w *Writer) buffer(n int) []byte {
	best := -1
	for i, b := range w.buffers {
		if cap(b) >= n && (best < 0 || cap(b) < cap(w.buffers[best])) {
			best = i
		}
	}
	if best < 0 {
		if len(w.buffers) > 0 {
			w.buffers = w.buffers[:len(w.buffers)-1]
		}
		return make([]byte, 0, w.bufferSize(n))
	}
	b := w.buffers[best]
	w.buffers = slices.Delete(w.buffers, best, best+1)
	return b
}

// bufferSize rounds n up so that few sizes are in use: to a power of two, and
// what takes most of a full segment to that of a full one.
func (w *Writer) bufferSize(n int) int {
	if full := w.cfg.FlushBytes + 64<<10; n > full/2 {
		return max(n, full)
	}
	return 1 << bits.Len(uint(n))
}

// recycle keeps the buffer of an object that is not needed any more, unless it
// is oversized.
func (w *Writer) recycle(object []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buffers) < w.cfg.MaxUploads && cap(object) <= 2*w.cfg.FlushBytes+1<<16 {
		w.buffers = append(w.buffers, object[:0])
	}
}
