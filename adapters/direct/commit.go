package direct

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// takeLead makes the caller the one that commits, if nobody is and there is
// something to commit. The caller holds w.mu and calls commitReady next.
func (w *Writer) takeLead() bool {
	if w.committing || len(w.ready) == 0 {
		return false
	}
	w.committing = true
	return true
}

// commitReady commits all segments that are ready, and those that become so
// meanwhile, until none is left.
func (w *Writer) commitReady() {
	for attempt := 0; ; attempt++ {
		group := w.gather()
		if len(group) == 0 {
			return
		}
		if w.commit(group) {
			attempt = -1
			continue
		}
		w.pause(w.ctx, attempt)
	}
}

// gather takes all ready segments, in order. With none it gives up the lead.
// Batches that were settled before their commit are left out for good.
func (w *Writer) gather() []*draft {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.ready, byNumber)
	var group []*draft
	for _, s := range w.ready {
		if s.submit(); len(s.submitted) == 0 {
			w.leave(s)
			continue
		}
		group = append(group, s)
	}
	w.ready = nil
	if len(group) == 0 {
		w.committing = false
	}
	w.seal()
	return group
}

// submit makes the request of what is open in s.
func (s *draft) submit() {
	s.submitted = s.submitted[:0]
	s.request = commit.Segment{ID: s.ref.ID, Size: s.size, CRC32C: s.crc}
	for _, it := range s.items {
		if it.state != sealed && !mutant.On(mutantExpiredCommitted) {
			continue
		}
		if it.state == sealed {
			it.state = committing
		}
		s.submitted = append(s.submitted, it)
		s.request.Batches = append(s.request.Batches, it.commit)
	}
}

// commit commits the group and settles its batches. It returns false if the
// store could not do it now and did nothing: then the group is ready again.
func (w *Writer) commit(group []*draft) bool {
	requests := make([]commit.Segment, len(group))
	for i, s := range group {
		requests[i] = s.request
	}
	w.acknowledgeEarly(group)
	deadline := time.Now().Add(w.cfg.CommitBudget)
	for attempt, inDoubt := 0, false; ; attempt++ {
		results, err := w.attempt(group, requests)
		if err == nil {
			w.resolve(group, results)
			return true
		}
		switch kind := ports.KindOf(err); {
		case kind == ports.Fatal:
			w.fail(err)
			w.giveUp(group, err)
			return true
		case kind == ports.Transient && !inDoubt:
			w.putBack(group)
			return false
		case kind == ports.Definite && !inDoubt:
			return w.commitEach(group, err)
		}
		inDoubt = true
		w.renew(requests)
		if !time.Now().Before(deadline) || !w.anyOpen(group) || !w.pause(w.ctx, attempt) {
			w.giveUp(group, unknown(err))
			return true
		}
	}
}

// attempt calls the metadata store once.
func (w *Writer) attempt(group []*draft, requests []commit.Segment) ([]ports.CommitResult, error) {
	ctx, cancel := context.WithTimeout(context.Background(), w.cfg.CommitTimeout)
	defer cancel()
	start, span := time.Now(), w.commitSpan(group)
	results, err := w.log.Commit(ctx, requests)
	w.tel.Record(ports.Event{Kind: ports.MetadataCommit, Duration: time.Since(start), Count: len(requests), Err: err})
	if span != nil {
		span.End(commitEnd(group, err))
	}
	w.mu.Lock()
	w.trouble = err
	w.mu.Unlock()
	return results, err
}

// commitEach commits the segments of a refused group one by one, so that only
// those fail that are to blame.
func (w *Writer) commitEach(group []*draft, err error) bool {
	if len(group) == 1 {
		w.giveUp(group, err)
		return true
	}
	for i := range group {
		if !w.anyOpen(group[i : i+1]) {
			w.giveUp(group[i:i+1], err)
		} else if !w.commit(group[i : i+1]) {
			w.putBack(group[i+1:])
			return false
		}
	}
	return true
}

// resolve settles the batches of a group that was committed.
func (w *Writer) resolve(group []*draft, results []ports.CommitResult) {
	if err := check(group, results); err != nil {
		w.fail(err)
		w.giveUp(group, err)
		return
	}
	var out outbox
	w.mu.Lock()
	for i, s := range group {
		if err := results[i].Err; err != nil {
			w.ids.refs = nil // they may be as old as this one
			w.refuseDraft(s, ports.MetadataError("commit segment "+s.ref.ID.String(), ports.Transient, err), &out)
		}
		for j, o := range results[i].Outcomes {
			it := s.submitted[j]
			w.settle(it, result(it.commit, o), &out)
		}
		w.leave(s)
	}
	w.seal()
	w.mu.Unlock()
	out.deliver()
}

// check holds the store to its contract: an answer for each batch.
func check(group []*draft, results []ports.CommitResult) error {
	if len(results) != len(group) {
		return fmt.Errorf("commit of %d segments answered for %d: %w", len(group), len(results), domain.ErrInternal)
	}
	for i, r := range results {
		want := len(group[i].submitted)
		if r.Err != nil {
			want = 0
		}
		if len(r.Outcomes) != want {
			return fmt.Errorf("commit of %d batches answered for %d, beside the error %q: %w", len(group[i].submitted), len(r.Outcomes), fmt.Sprint(r.Err), domain.ErrInternal)
		}
	}
	return nil
}

// giveUp settles what is open of the group with err.
func (w *Writer) giveUp(group []*draft, err error) {
	var out outbox
	w.mu.Lock()
	for _, s := range group {
		w.refuseDraft(s, err, &out)
		w.leave(s)
	}
	w.seal()
	w.mu.Unlock()
	out.deliver()
}

// putBack makes the segments ready again after a commit that did nothing.
func (w *Writer) putBack(group []*draft) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range group {
		for _, it := range s.submitted {
			if it.state == committing {
				it.state = sealed
			}
		}
	}
	w.ready = append(w.ready, group...)
}

func (w *Writer) anyOpen(group []*draft) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range group {
		if s.live > 0 {
			return true
		}
	}
	return false
}

// unknown is the error of batches that may have been committed.
func unknown(err error) error {
	if mutant.On(mutantAmbiguousIsDefinite) {
		return ports.MetadataError("commit", ports.Transient, err)
	}
	return ports.MetadataError("commit", ports.Ambiguous, err)
}

// acknowledgeEarly is a planted bug.
func (w *Writer) acknowledgeEarly(group []*draft) {
	if !mutant.On(mutantAckBeforeCommit) {
		return
	}
	w.decide(func(out *outbox) {
		for _, s := range group {
			for _, it := range s.submitted {
				w.settle(it, ports.AppendResult{}, out)
			}
		}
	})
}

// renew is a planted bug.
func (w *Writer) renew(requests []commit.Segment) {
	if !mutant.On(mutantCommitNewSegment) {
		return
	}
	for i := range requests {
		if ref, err := w.takeRef(w.ctx); err == nil {
			requests[i].ID = ref.ID
		}
	}
}

func byNumber(a, b *draft) int { return int(a.number) - int(b.number) }
