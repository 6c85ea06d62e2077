package grpc

import (
	"errors"
	"io"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// run sends what is queued, one message at a time, until the transport ends. It
// looks after the lanes: it opens, leaves and hedges them.
func (t *Transport) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for t.life.Err() == nil {
		wait, did := t.step()
		if did {
			continue
		}
		if wait <= 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		select {
		case <-t.wake:
		case <-timer.C:
		case <-t.life.Done():
		}
	}
	t.mu.Lock()
	lanes := append([]*lane(nil), t.lanes...)
	t.mu.Unlock()
	for _, l := range lanes {
		l.cancel(domain.ErrClosed)
	}
}

// step does one thing, and reports that it did; else it says when there may be
// something to do though nobody wakes it, 0 for never.
func (t *Transport) step() (wait time.Duration, did bool) {
	now := time.Now()
	t.mu.Lock()
	l := t.lane
	if l == nil {
		something, early := t.waiting(), t.resume.Sub(now)
		t.mu.Unlock()
		if something && early <= 0 {
			t.connect(nil)
			return 0, true
		}
		return early, false
	}
	if stalled := t.stalled(now); stalled != nil {
		t.mu.Unlock()
		stalled.cancel(errors.New("no answer came in time"))
		stalled.fail(connectionError("append", ports.Ambiguous, errStalled))
		return 0, true
	}
	for _, other := range t.lanes {
		if len(other.cancels) > 0 && !other.dead && !other.ended {
			ids := other.cancels
			other.cancels = nil
			t.mu.Unlock()
			t.send(other, newFrame(&produceRequest{cancels: ids}))
			return 0, true
		}
	}
	if r := l.next(now); r != nil {
		t.mu.Unlock()
		f := l.encode(r, now)
		t.copied(l, r)
		t.send(l, f)
		return 0, true
	}
	if t.left(l, now) {
		t.mu.Unlock()
		_ = l.stream.CloseSend() // its receiver ends it, however it ends
		return 0, true
	}
	if t.mustHedge(l, now) {
		t.mu.Unlock()
		t.connect(l)
		return 0, true
	}
	wait = t.nextLook(l, now)
	t.mu.Unlock()
	return wait, false
}

var errStalled = errors.New("no answer came in time")

// waiting reports whether something is to be sent.
func (t *Transport) waiting() bool {
	for _, e := range t.queue {
		if e.state == queued {
			return true
		}
	}
	t.queue = t.queue[:0]
	return false
}

// send gives one message to the lane. If that fails, or takes as long as if the
// agent did not read, its receiver is told as well.
func (t *Transport) send(l *lane, f *frame) {
	watch := time.AfterFunc(t.cfg.StallAfter, func() { l.cancel(errStalled) })
	defer watch.Stop()
	if err := l.stream.SendMsg(f); err != nil && !errors.Is(err, io.EOF) { // which says that RecvMsg knows why
		l.cancel(err)
	}
}

// stalled returns a lane whose agent owes answers and has been silent for too
// long.
func (t *Transport) stalled(now time.Time) *lane {
	for _, l := range t.lanes {
		if len(l.requests) > 0 && now.Sub(l.heard) >= t.cfg.StallAfter {
			return l
		}
	}
	return nil
}

// left takes out a lane that is left and has answered everything, so that the
// next one can be opened: the caller ends it. It also leaves the lane if the client uses another agent by now.
func (t *Transport) left(l *lane, now time.Time) bool {
	if current := t.c.pool.inUse(); l.leaving.IsZero() && current != nil && current != l.agent && t.waiting() {
		l.leave(now)
	}
	if l.leaving.IsZero() || len(l.requests) > 0 {
		return false
	}
	t.lane, l.ended = nil, true
	return true
}

// mustHedge reports whether what is unanswered on l is to be sent to another
// agent as well: because it is late, or because it holds up what waits for the end of an
// agent that is left. Batches without a producer are never sent twice.
func (t *Transport) mustHedge(l *lane, now time.Time) bool {
	late := t.cfg.HedgeAfter > 0 && len(l.requests) > 0 && now.Sub(l.oldest()) >= t.cfg.HedgeAfter
	holdsUp := !l.leaving.IsZero() && now.Sub(l.leaving) >= leaveWait && t.waiting()
	if l.hedged || now.Before(l.hedgeAt) || !late && !holdsUp {
		return false
	}
	for _, r := range l.requests {
		for _, e := range r.unsettled() {
			if e.stream.Producer == commit.NoProducer && !mutant.On(mutantHedgesUnnumbered) {
				return false
			}
		}
	}
	return true
}

// oldest is when the request was sent that has waited longest for its answers.
func (l *lane) oldest() time.Time {
	var at time.Time
	for _, r := range l.requests {
		if at.IsZero() || r.sentAt.Before(at) {
			at = r.sentAt
		}
	}
	return at
}

// nextLook says when the lanes need care though nothing happens.
func (t *Transport) nextLook(l *lane, now time.Time) time.Duration {
	var next time.Time
	by := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for _, other := range t.lanes {
		if len(other.requests) > 0 {
			by(other.heard.Add(t.cfg.StallAfter))
		}
	}
	if len(l.requests) > 0 && t.cfg.HedgeAfter > 0 && !l.hedged {
		by(later(l.oldest().Add(t.cfg.HedgeAfter), l.hedgeAt))
	}
	if now.Before(l.pause) && len(t.queue) > 0 {
		by(l.pause)
	}
	if !l.leaving.IsZero() && !l.hedged && len(t.queue) > 0 {
		by(later(l.leaving.Add(leaveWait), l.hedgeAt))
	}
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(now), time.Millisecond)
}

// connect opens a lane for what is queued; if beside is not nil, to another agent than
// its, and with what is unanswered on it. If no agent can be reached, what is queued is given
// back.
func (t *Transport) connect(beside *lane) {
	tried := make(map[*remote]bool)
	if beside != nil {
		tried[beside.agent] = true
	}
	var last error
	for {
		r, err := t.c.pick(t.life, "append", tried)
		if err != nil {
			t.noAgent(beside, last, err)
			return
		}
		l, err := t.openLane(t.life, r)
		if err == nil {
			t.adopt(l, beside)
			return
		}
		if ports.KindOf(err) == ports.Definite { // another agent says the same
			t.noAgent(beside, nil, err)
			return
		}
		if t.life.Err() == nil {
			t.c.pool.failed(r)
		}
		last = err
	}
}

// adopt makes l the lane for new batches, behind copies of what is unanswered on
// the lane beside it.
func (t *Transport) adopt(l, beside *lane) {
	t.mu.Lock()
	var copies []*frame
	if beside != nil {
		beside.hedged, beside.ended = true, true
		beside.leave(time.Now())
		copies = l.copyOf(beside)
	}
	t.lane = l
	t.lanes = append(t.lanes, l)
	t.mu.Unlock()
	t.work.Go(l.receive)
	for _, f := range copies {
		t.send(l, f)
	}
	if beside != nil {
		t.c.pool.failed(beside.agent)
		t.c.pool.use(l.agent)
		_ = beside.stream.CloseSend() // its receiver ends it, however it ends
	}
}

// copyOf books on l what is unanswered on other, and encodes it. The caller
// holds mu: nothing is settled meanwhile, so the bytes are still there.
func (l *lane) copyOf(other *lane) []*frame {
	now := time.Now()
	var all []*frame
	requests := other.inOrder()
	if mutant.On(mutantCopiesReversed) {
		slices.Reverse(requests)
	}
	for _, r := range requests {
		if entries := r.unsettled(); len(entries) > 0 {
			copied := &request{call: r.call, entries: entries}
			l.book(copied, now)
			all = append(all, l.encode(copied, now))
		}
	}
	return all
}

// noAgent gives back what is queued. A lane that was to be relieved stays.
func (t *Transport) noAgent(beside *lane, last, err error) {
	if t.life.Err() != nil {
		return
	}
	if beside != nil {
		t.mu.Lock()
		beside.hedgeAt = time.Now().Add(time.Second)
		t.mu.Unlock()
		return
	}
	if last != nil && errors.Is(err, domain.ErrNoAgentsAvailable) {
		err = t.c.pool.none("append", last)
	}
	t.decide(func(out *outbox) {
		for _, e := range t.queue {
			t.settle(e, ports.AppendResult{Base: -1, Err: err}, out)
		}
	})
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
