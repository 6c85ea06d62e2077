package grpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// Transport fills ports.Transport through an agent. Make it with
// Client.Transport.
type Transport struct {
	c    *Client
	cfg  *ClientConfig
	life context.Context // ends with the transport; streams end with it
	end  context.CancelFunc
	work sync.WaitGroup
	wake chan struct{} // holds a token when the sender has something to look at

	mu      sync.Mutex // guards all below, and the fields of appends, entries and lanes
	closed  bool
	room    int64 // bytes taken over and not settled
	open    int   // batches taken over and not settled
	waiters []*appending
	queue   []*entry // taken over, not sent, in order; settled ones are passed over
	lane    *lane    // where new batches go; nil until there is something to send
	lanes   []*lane  // all of which answers may come, lane among them
	telling int      // goroutines that tell fates
	idle    chan struct{}

	failures int       // lanes in a row that ended before any answer
	resume   time.Time // when another one may be opened
}

var _ ports.Transport = (*Transport)(nil)

// appending is one Append.
type appending struct {
	ctx     context.Context // the Append's own; its end settles what is open
	settle  func(i int, r ports.AppendResult)
	entries []entry
	trace   ports.TraceContext // of the span that the Append is part of
	corrupt []settlement
	bytes   int64
	open    int
	stop    func() bool   // ends the watch on ctx
	granted chan struct{} // closed when there is room; nil for one that did not wait
}

// state is how far a batch has come.
type state uint8

const (
	queued  state = iota
	sending       // its bytes are being copied into a message
	sent          // an agent may have it
	settled
)

// entry is one batch on its way.
type entry struct {
	call   *appending
	index  int
	batch  ports.Batch
	stream commit.StreamKey
	state  state
	// lanes is on how many lanes an answer is due; best is the one to go by if
	// no better one comes.
	lanes int
	best  *ports.AppendResult
	// refused is how to settle the entry once its bytes are copied.
	refused *ports.AppendResult
}

// settlement is a fate that is decided and not told yet.
type settlement struct {
	entry  *entry
	result ports.AppendResult
}

// outbox gathers what is decided while mu is held, to be told after it is
// released.
type outbox struct {
	settlements []settlement
	done        []func() bool
}

func (o *outbox) deliver() {
	for _, s := range o.settlements {
		s.entry.call.settle(s.entry.index, s.result)
	}
	for _, stop := range o.done {
		stop()
	}
}

// Transport makes a transport that sends through the agent in use. The caller
// closes it before the client.
func (c *Client) Transport() *Transport {
	t := &Transport{c: c, cfg: &c.cfg, wake: make(chan struct{}, 1), idle: make(chan struct{})}
	t.life, t.end = context.WithCancel(c.life)
	t.work.Go(t.run)
	return t
}

// NewTransport is Transport as ports.Agents has it.
func (c *Client) NewTransport() ports.Transport { return c.Transport() }

// Append implements ports.Transport. A batch that is corrupt in its header is
// settled with a *domain.CorruptError; the others are not affected.
func (t *Transport) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	if ctx.Err() != nil {
		return expired(context.Cause(ctx), ports.Transient)
	}
	t.c.touch()
	call := newAppending(ctx, batches, settle)
	granted, err := t.admit(call)
	if err != nil || granted == nil {
		return err
	}
	select {
	case <-granted:
	case <-ctx.Done():
	}
	return t.admitted(call)
}

func newAppending(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) *appending {
	call := &appending{ctx: ctx, settle: settle, entries: make([]entry, 0, len(batches)), trace: ports.TraceOf(ctx)}
	for i, b := range batches {
		h, err := batch.ParseHeader(b.Bytes)
		if err == nil && h.Length != len(b.Bytes) {
			err = &domain.CorruptError{What: fmt.Sprintf("record batch: %d bytes follow the batch of %d", len(b.Bytes)-h.Length, h.Length)}
		}
		e := entry{call: call, index: i, batch: b, stream: commit.StreamKey{Producer: h.Producer.ID, PartitionKey: b.PartitionKey}}
		if err != nil {
			call.corrupt = append(call.corrupt, settlement{&e, ports.AppendResult{Base: -1, Err: err}})
			continue
		}
		call.entries = append(call.entries, e)
		call.bytes += int64(len(b.Bytes))
	}
	call.open = len(call.entries)
	return call
}

// admit queues the call if there is room, else it has it wait its turn: then it
// returns the channel that is closed when it is queued.
func (t *Transport) admit(call *appending) (granted chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over() {
		return nil, domain.ErrClosed
	}
	if len(t.waiters) > 0 || !t.hasRoom(call) {
		call.granted = make(chan struct{})
		t.waiters = append(t.waiters, call)
		return call.granted, nil
	}
	t.enqueue(call)
	return nil, nil
}

// admitted tells, after the wait for room, how it ended.
func (t *Transport) admitted(call *appending) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, w := range t.waiters {
		if w == call {
			t.waiters = append(t.waiters[:i:i], t.waiters[i+1:]...)
			t.grant()
			return expired(context.Cause(call.ctx), ports.Transient)
		}
	}
	if call.granted == nil {
		return nil
	}
	return domain.ErrClosed
}

func (t *Transport) over() bool { return t.closed || t.life.Err() != nil }

func (t *Transport) hasRoom(call *appending) bool {
	return t.room == 0 || t.room+call.bytes <= t.cfg.InFlightBytes
}

// grant queues the calls that wait for room and have it now.
func (t *Transport) grant() {
	for len(t.waiters) > 0 && t.hasRoom(t.waiters[0]) {
		call := t.waiters[0]
		t.waiters = t.waiters[1:]
		close(call.granted)
		call.granted = nil
		t.enqueue(call)
	}
}

func (t *Transport) enqueue(call *appending) {
	t.room += call.bytes
	t.open += call.open
	for i := range call.entries {
		t.queue = append(t.queue, &call.entries[i])
	}
	if call.open > 0 && call.ctx.Done() != nil {
		call.stop = context.AfterFunc(call.ctx, func() { t.expire(call) })
	}
	if call.corrupt != nil { // not inside the Append they belong to
		corrupt := outbox{settlements: call.corrupt}
		t.work.Go(corrupt.deliver)
	}
	t.signal()
}

func (t *Transport) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// decide runs f with mu held and then tells what f decided.
func (t *Transport) decide(f func(out *outbox)) {
	var out outbox
	t.mu.Lock()
	f(&out)
	t.telling++
	t.mu.Unlock()
	out.deliver()
	t.mu.Lock()
	t.telling--
	if t.closed && t.open == 0 && t.telling == 0 {
		t.becomeIdle()
	}
	t.mu.Unlock()
	t.signal()
}

func (t *Transport) isIdle() bool {
	select {
	case <-t.idle:
		return true
	default:
		return false
	}
}

func (t *Transport) becomeIdle() {
	if !t.isIdle() {
		close(t.idle)
	}
}

// settle decides the fate of e, unless it is decided.
func (t *Transport) settle(e *entry, r ports.AppendResult, out *outbox) {
	switch e.state {
	case settled:
		if mutant.On(mutantSettledTwice) {
			out.settlements = append(out.settlements, settlement{e, r})
		}
		return
	case sending: // its bytes are in use
		if e.refused == nil {
			e.refused = &r
		}
		return
	}
	e.state = settled
	t.open--
	t.room -= int64(len(e.batch.Bytes))
	e.batch.Bytes = nil
	out.settlements = append(out.settlements, settlement{e, r})
	if e.call.open--; e.call.open == 0 && e.call.stop != nil {
		out.done = append(out.done, e.call.stop)
	}
	t.grant()
}

// refuse settles e as not stored by this Append, or as in doubt if an agent may
// have it.
func (t *Transport) refuse(e *entry, why func(ports.Kind) error, out *outbox) {
	kind := ports.Transient
	if e.state == sent && !mutant.On(mutantCancelIsDefinite) {
		kind = ports.Ambiguous
	}
	t.settle(e, ports.AppendResult{Base: -1, Err: why(kind)}, out)
}

// expire settles what is open of a call whose context has ended, and tells the
// agents.
func (t *Transport) expire(call *appending) {
	cause := context.Cause(call.ctx)
	t.decide(func(out *outbox) {
		for i := range call.entries {
			t.refuse(&call.entries[i], func(k ports.Kind) error { return expired(cause, k) }, out)
		}
		for _, l := range t.lanes {
			l.cancelCall(call)
		}
	})
}

// expired is the error of a batch whose context has ended.
func expired(cause error, kind ports.Kind) error {
	class := domain.ErrAgent
	if errors.Is(cause, context.DeadlineExceeded) {
		class = domain.ErrTimeout
	}
	return &ports.Error{Class: class, Op: "append", Kind: kind, Err: cause}
}

// Close implements ports.Transport: it waits until everything is settled. If ctx
// ends first, what is open is settled as not sent or as Ambiguous, and Close returns the
// context's error.
func (t *Transport) Close(ctx context.Context) error {
	t.decide(func(*outbox) {
		t.closed = true
		for _, call := range t.waiters {
			close(call.granted)
		}
		t.waiters = nil
	})
	var err error
	select {
	case <-t.idle:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-t.life.Done(): // the client was closed before, or this transport
		if !t.isIdle() {
			err = domain.ErrClosed
		}
	}
	t.end()
	t.work.Wait()
	t.decide(func(out *outbox) {
		why := func(k ports.Kind) error { return agentError("append: closing", k, domain.ErrClosed) }
		if err != nil {
			why = func(k ports.Kind) error { return agentError("append: closing", k, err) }
		}
		t.refuseAll(why, out)
	})
	return err
}

// refuseAll settles everything that is open.
func (t *Transport) refuseAll(why func(ports.Kind) error, out *outbox) {
	for _, e := range t.queue {
		t.refuse(e, why, out)
	}
	t.queue = nil
	for _, l := range t.lanes {
		for _, r := range l.inOrder() {
			for _, e := range r.entries {
				t.refuse(e, why, out)
			}
		}
	}
}

// timeout is how long the agent has for a request of call, in milliseconds: a
// little less than the call, so that its answer comes in time.
func (call *appending) timeout(now time.Time) uint32 {
	deadline, ok := call.ctx.Deadline()
	if !ok {
		return 0
	}
	left := deadline.Sub(now)
	left -= min(left/10, 100*time.Millisecond)
	return uint32(min(max(left.Milliseconds(), 1), 1<<31))
}
