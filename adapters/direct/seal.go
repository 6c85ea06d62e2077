package direct

import (
	"context"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// draft is a segment that is not committed yet.
type draft struct {
	number uint64 // in the order of sealing
	ref    ports.SegmentRef
	size   int64 // of the object, once it is built
	crc    uint32
	items  []*item // from the build on in the order of their positions
	live   int     // items not settled

	traces  []ports.TraceContext // of the sampled Appends in it, the first ones
	streams []*stream            // of its items, each once
	// blockers counts, per stream, the segments before this one that were not
	// clear when it was sealed and are not now; dependants are the reverse.
	blockers   int
	dependants []*draft

	sealedAt time.Time
	failures int  // attempts of the upload that failed
	building bool // its items' bytes are being copied
	uploaded bool // or its upload failed and nothing in it is open
	clear    bool
	// request is what the metadata store is asked, and submitted the item of
	// each of its batches.
	request   commit.Segment
	submitted []*item

	// ctx ends when the upload is of no use any more.
	ctx    context.Context
	cancel context.CancelFunc
}

// seal starts uploads while there are slots and batches that may go. The caller
// holds w.mu.
func (w *Writer) seal() {
	for w.uploading < w.cfg.MaxUploads && w.queue.head != nil {
		s := w.pick()
		if s == nil {
			return
		}
		w.uploading++
		w.start(func() { w.run(s) })
	}
}

// due reports whether the oldest batch that may go has waited long enough for
// company, and sees to it that it is looked at again if not.
func (w *Writer) due(it *item) bool {
	if w.cfg.FlushInterval == 0 || w.closed || w.queue.bytes >= w.cfg.FlushBytes {
		return true
	}
	at := it.call.enqueuedAt.Add(w.cfg.FlushInterval)
	wait := time.Until(at)
	if wait <= 0 {
		return true
	}
	if w.timer == nil || at.Before(w.timerAt) {
		w.stopTimer()
		w.timer, w.timerAt = time.AfterFunc(wait, w.flush), at
	}
	return false
}

// flush is called by the timer.
func (w *Writer) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = nil
	w.seal()
}

func (w *Writer) stopTimer() {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// pick takes a segment's worth of batches out of the queue: those that wait for
// no upload if there are any, else those that follow an upload that is not stalled. It
// returns nil if the others must stay.
func (w *Writer) pick() *draft {
	s := &draft{number: w.sequence + 1, sealedAt: time.Now()}
	if len(w.ready) < readyLimit {
		w.take(s, func(st *stream) bool { return st.tail == nil || st.tail == s || st.tail.clear })
	}
	if len(s.items) == 0 && w.dependants < 2*w.cfg.MaxUploads {
		w.take(s, func(st *stream) bool { return st.tail != nil && !st.tail.clear && !w.stalled(st.tail, s) })
	}
	if len(s.items) == 0 {
		return nil
	}
	w.sequence++
	w.segments[s.number] = s
	s.live = len(s.items)
	s.ctx, s.cancel = context.WithCancel(w.ctx)
	if s.blockers > 0 {
		w.dependants++
	}
	return s
}

func (w *Writer) stalled(s, asker *draft) bool {
	return s != asker && (s.failures > 0 || asker.sealedAt.Sub(s.sealedAt) >= w.cfg.StallAfter)
}

// take moves the batches of the streams that may go from the queue into s, in
// order, until it is full. It moves none if the first is not due.
func (w *Writer) take(s *draft, may func(*stream) bool) {
	bytes := 0
	for it := w.queue.head; it != nil; {
		next := it.next
		if may(it.stream) {
			if len(s.items) == 0 && !w.due(it) {
				return
			}
			if bytes += len(it.bytes); bytes > w.cfg.FlushBytes && len(s.items) > 0 {
				return
			}
			w.queue.remove(it)
			w.join(s, it)
		}
		it = next
	}
}

// join makes it a part of s, behind the segment that holds its predecessor.
func (w *Writer) join(s *draft, it *item) {
	it.state, it.draft = sealed, s
	s.items = append(s.items, it)
	st := it.stream
	st.queued--
	before := st.tail
	if before == s {
		return
	}
	st.tail = s
	s.streams = append(s.streams, st)
	if before != nil && !before.clear && !mutant.On(mutantDependantsUnordered) {
		before.dependants = append(before.dependants, s)
		s.blockers++
	}
}

// checkClear makes s ready for the commit once its upload has ended and all
// before it are clear, and then those that waited for it.
func (w *Writer) checkClear(s *draft) {
	if s.clear || !s.uploaded || s.blockers > 0 {
		return
	}
	s.clear = true
	w.ready = append(w.ready, s)
	for _, d := range s.dependants {
		if d.blockers--; d.blockers == 0 {
			w.dependants--
			w.checkClear(d)
		}
	}
	s.dependants = nil
}

// leave takes s, committed or failed, out of the writer.
func (w *Writer) leave(s *draft) {
	s.cancel()
	delete(w.segments, s.number)
	for _, st := range s.streams {
		if st.tail == s {
			st.tail = nil
			w.forget(st)
		}
	}
	s.streams = nil
}

// inOrder returns the segments that have not left, oldest first.
func (w *Writer) inOrder() []*draft {
	all := make([]*draft, 0, len(w.segments))
	for _, s := range w.segments {
		all = append(all, s)
	}
	slices.SortFunc(all, byNumber)
	return all
}
