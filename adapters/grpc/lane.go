package grpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

const (
	// leastWindow is how far NoRoom narrows a lane's window, in bytes.
	leastWindow = 256 << 10
	// leaveWait is how long new batches wait for the answers of an agent that is
	// left, before those are asked of the next one.
	leaveWait = 2 * time.Second
)

// lane is one Produce stream to one agent. Its fields are guarded by
// Transport.mu but for those that never change.
type lane struct {
	t       *Transport
	agent   *remote
	stream  grpcgo.ClientStream
	cancel  context.CancelCauseFunc
	welcome *agentv1.Welcome

	lastID   uint64
	requests map[uint64]*request
	bytes    int64 // of batches that are not answered
	window   int64 // the most of them
	cancels  []uint64
	pause    time.Time // until when nothing is sent
	heard    time.Time // when the agent was last heard, or had nothing to say
	leaving  time.Time // since when nothing new is sent; zero while in use
	hedgeAt  time.Time // before when what it holds is not sent to another agent
	hedged   bool      // that was done
	ended    bool      // nothing can be sent any more
	dead     bool
	answers  bool // there was one
}

// request is one message with batches of one Append.
type request struct {
	id      uint64
	call    *appending
	entries []*entry
	sizes   []int64
	open    int // not answered
	sentAt  time.Time
}

var produceStream = grpcgo.StreamDesc{StreamName: "Produce", ServerStreams: true, ClientStreams: true}

// openLane opens a stream to the agent and waits for its welcome.
func (t *Transport) openLane(ctx context.Context, r *remote) (*lane, error) {
	op := "open a stream to agent " + r.address
	life, cancel := context.WithCancelCause(t.c.outgoing(t.life))
	l := &lane{t: t, agent: r, cancel: cancel, requests: make(map[uint64]*request)}
	ctx, stop := context.WithTimeout(ctx, t.cfg.ConnectTimeout)
	defer stop()
	unwatch := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	var err error
	if l.stream, err = r.conn.NewStream(life, &produceStream, agentv1.LogService_Produce_FullMethodName); err != nil {
		cancel(nil)
		return nil, callError(ctx, op, ports.Transient, err)
	}
	var first produceResponse
	if err := l.stream.RecvMsg(&first); err != nil {
		cancel(nil)
		return nil, callError(ctx, op, ports.Transient, err)
	}
	if !unwatch() {
		cancel(nil)
		return nil, connectionError(op, ports.Transient, context.Cause(life))
	}
	w := first.welcome
	if w == nil || w.GetWindowBytes() == 0 || w.GetMaxBatches() == 0 || first.draining {
		cancel(nil)
		return nil, agentError(op, ports.Transient, ErrNotReady)
	}
	l.welcome, l.window, l.heard = w, int64(min(w.GetWindowBytes(), 1<<40)), time.Now()
	t.c.pool.hold(r)
	return l, nil
}

// next takes the next request from the queue, nil if nothing can be sent now.
func (l *lane) next(now time.Time) *request {
	t := l.t
	if l.dead || !l.leaving.IsZero() || now.Before(l.pause) {
		return nil
	}
	var r *request
	var size int64
	taken := 0
	for _, e := range t.queue {
		if e.state == settled {
			taken++
			continue
		}
		n := int64(len(e.batch.Bytes))
		switch {
		case r != nil && (e.call != r.call || size+n > l.requestBytes() || len(r.entries) >= int(l.welcome.GetMaxBatches())):
		case l.bytes+size > 0 && l.bytes+size+n > l.window:
		default:
			if r == nil {
				r = &request{call: e.call}
			}
			e.state = sending
			r.entries = append(r.entries, e)
			size += n
			taken++
			continue
		}
		break
	}
	if clear(t.queue[:taken]); taken == len(t.queue) {
		t.queue = t.queue[:0]
	} else {
		t.queue = t.queue[taken:]
	}
	if r != nil {
		l.book(r, now)
	}
	return r
}

func (l *lane) requestBytes() int64 {
	return int64(min(l.welcome.GetMaxRequestBytes(), requestBytes))
}

// book gives r its number and waits for its answers from now on.
func (l *lane) book(r *request, now time.Time) {
	if len(l.requests) == 0 {
		l.heard = now
	}
	l.lastID++
	r.id, r.open, r.sentAt = l.lastID, len(r.entries), now
	r.sizes = make([]int64, len(r.entries))
	for i, e := range r.entries {
		e.lanes++
		r.sizes[i] = int64(len(e.batch.Bytes))
		l.bytes += r.sizes[i]
	}
	l.requests[r.id] = r
}

// encode makes the message of r. The bytes of its batches are not used after it.
func (l *lane) encode(r *request, now time.Time) *frame {
	m := produceRequest{id: r.id, timeoutMS: r.call.timeout(now), trace: r.call.trace, batches: make([]ports.Batch, len(r.entries))}
	for i, e := range r.entries {
		m.batches[i] = e.batch
	}
	return newFrame(&m)
}

// copied ends the copying of r's batches: what was decided about them meanwhile
// is settled.
func (t *Transport) copied(l *lane, r *request) {
	t.decide(func(out *outbox) {
		for _, e := range r.entries {
			if e.state != sending {
				continue
			}
			e.state = sent
			if l.dead {
				e.state = queued // it was never sent
			}
			if refused := e.refused; refused != nil {
				e.refused = nil
				t.settle(e, *refused, out)
			}
		}
	})
}

// receive takes answers until the stream ends.
func (l *lane) receive() {
	for {
		var m produceResponse
		if err := l.stream.RecvMsg(&m); err != nil {
			l.fail(err)
			return
		}
		if err := l.answer(&m); err != nil {
			l.fail(err)
			return
		}
	}
}

// answer takes one message of the agent.
func (l *lane) answer(m *produceResponse) (err error) {
	l.t.decide(func(out *outbox) {
		now := time.Now()
		l.heard = now
		for i := range m.outcomes {
			if err = l.outcome(&m.outcomes[i], now, out); err != nil {
				return
			}
		}
		if m.draining {
			l.t.c.pool.leaving(l.agent)
			l.leave(now)
		}
	})
	return err
}

// outcome takes the answer for one batch.
func (l *lane) outcome(o *outcome, now time.Time, out *outbox) error {
	r := l.requests[o.request]
	if r == nil || int(o.index) >= len(r.entries) || r.entries[o.index] == nil {
		return fmt.Errorf("an answer to batch %d of request %d, which is not due", o.index, o.request)
	}
	l.answers = true
	e, n := r.entries[o.index], r.sizes[o.index]
	r.entries[o.index] = nil
	l.bytes -= n
	if r.open--; r.open == 0 {
		delete(l.requests, o.request)
	}
	result := ports.AppendResult{Base: domain.Offset(o.base)}
	switch {
	case o.err != nil && mutant.On(mutantRefusalIsSuccess):
	case o.err != nil:
		raw := decodeError(o.err)
		result = ports.AppendResult{Base: -1, Err: ours("append", raw)}
		l.judge(raw, time.Duration(o.err.GetRetryAfterMs())*time.Millisecond, now)
	case o.base < 0:
		result = ports.AppendResult{Base: -1, Err: nonsense("append", fmt.Errorf("stored at offset %d", o.base))}
	default:
		l.window = min(l.window+n/4, int64(min(l.welcome.GetWindowBytes(), 1<<40)))
	}
	e.lanes--
	l.t.answered(e, result, out)
	return nil
}

// judge draws what follows from an error for the batches to come.
func (l *lane) judge(err error, retryAfter time.Duration, now time.Time) {
	switch {
	case errors.Is(err, ErrNoRoom):
		l.window = max(l.window/2, leastWindow)
		l.pause = now.Add(min(max(retryAfter, time.Millisecond), 5*time.Second))
	case agentIsToBlame(err):
		l.t.c.pool.failed(l.agent)
		l.leave(now)
	}
}

// leave sends nothing more to the agent, but waits for its answers.
func (l *lane) leave(now time.Time) {
	if l.leaving.IsZero() {
		l.leaving = now
	}
}

// answered takes one of the answers about e: the first that says that it is
// stored counts, else the most doubtful of all.
func (t *Transport) answered(e *entry, r ports.AppendResult, out *outbox) {
	if e.best == nil || weight(r) > weight(*e.best) {
		e.best = &r
	}
	if weight(*e.best) == stored || e.lanes == 0 {
		t.settle(e, *e.best, out)
	}
}

const stored = 2

// weight orders the answers of several agents about one batch.
func weight(r ports.AppendResult) int {
	switch domain.FateOf(r.Err).Stored {
	case domain.StoredYes:
		return stored
	case domain.StoredUnknown:
		return 1
	default:
		return 0
	}
}

// cancelCall tells the agent that nobody waits for the answers of call.
func (l *lane) cancelCall(call *appending) {
	for id, r := range l.requests {
		if r.call == call {
			l.cancels = append(l.cancels, id)
		}
	}
}

// inOrder returns the requests that are not answered, in the order of sending.
func (l *lane) inOrder() []*request {
	all := make([]*request, 0, len(l.requests))
	for _, r := range l.requests {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *request) int { return int(int64(a.id) - int64(b.id)) })
	return all
}

// unsettled returns the entries of r that are neither answered on this lane nor
// settled.
func (r *request) unsettled() []*entry {
	return slices.DeleteFunc(slices.Clone(r.entries), func(e *entry) bool { return e == nil || e.state == settled })
}

// fail ends the lane. What was sent on it is in doubt, unless another lane
// answers; what follows that in the queue is given back too, to keep the order. All else
// goes on to the next agent.
func (l *lane) fail(err error) {
	t := l.t
	left := errors.Is(err, io.EOF) // the agent has answered everything
	first := false
	t.decide(func(out *outbox) {
		if first = !l.dead; !first {
			return
		}
		l.dead = true
		t.lanes = slices.DeleteFunc(t.lanes, func(o *lane) bool { return o == l })
		if t.lane == l {
			t.lane = nil
		}
		if !left || len(l.requests) > 0 {
			t.c.pool.failed(l.agent)
		}
		t.pause(l)
		broken := make(map[commit.StreamKey]bool)
		for _, r := range l.inOrder() {
			for _, e := range r.unsettled() {
				if mutant.On(mutantDroppedAtBreak) {
					continue
				}
				e.lanes--
				kind := ports.Ambiguous
				if e.state == sending || mutant.On(mutantLostIsDefinite) {
					kind = ports.Transient
				}
				broken[e.stream] = broken[e.stream] || e.lanes == 0
				t.answered(e, ports.AppendResult{Base: -1, Err: l.lost(kind, err)}, out)
			}
		}
		for _, e := range t.queue {
			if broken[e.stream] && !mutant.On(mutantQueueOvertakes) {
				t.settle(e, ports.AppendResult{Base: -1, Err: l.lost(ports.Transient, err)}, out)
			}
		}
		l.requests = nil
	})
	l.cancel(nil)
	if first {
		t.c.pool.release(l.agent)
		t.c.spawn(func() { t.c.refresh(t.c.life) })
	}
}

// pause lets some time pass before the next lane is opened, if this one and those
// before it were of no use.
func (t *Transport) pause(l *lane) {
	if l.answers {
		t.failures = 0
		return
	}
	if t.failures++; t.failures > 1 {
		t.resume = time.Now().Add(min(20*time.Millisecond<<min(t.failures, 8), 2*time.Second))
	}
}

// lost is the error of a batch that was under way on the lane when it ended.
func (l *lane) lost(kind ports.Kind, err error) error {
	op := "append through agent " + l.agent.address
	if s, ok := status.FromError(err); ok {
		if detail := detailOf(s); detail != nil {
			return agentError(op, kind, errors.New(decodeError(detail).Error()))
		}
		return connectionError(op, kind, errors.New(s.Code().String()+": "+s.Message()))
	}
	return connectionError(op, kind, err)
}
