package direct

import (
	"context"
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// outbox gathers what was decided while the mutex was held. It is delivered
// after the mutex was released, by the goroutine that gathered it.
type outbox struct {
	settlements []settlement
	done        []func() bool
}

type settlement struct {
	item   *item
	result ports.AppendResult
}

// deliver calls settle for everything in the outbox, in order, and empties it.
func (o *outbox) deliver() {
	for _, s := range o.settlements {
		s.item.call.settle(s.item.index, s.result)
		if mutant.On(mutantSettledTwice) {
			s.item.call.settle(s.item.index, s.result)
		}
	}
	for _, stop := range o.done {
		stop()
	}
	*o = outbox{}
}

// settle decides an item's fate, unless it is decided already. The caller holds
// w.mu.
func (w *Writer) settle(it *item, r ports.AppendResult, out *outbox) {
	if it.state == settled {
		return
	}
	if it.state == waiting {
		w.queue.remove(it)
		w.leaveQueue(it.stream)
	}
	it.state = settled
	if s := it.draft; s != nil {
		s.live--
		if s.live == 0 && !s.uploaded {
			s.cancel()
		}
	}
	out.settlements = append(out.settlements, settlement{it, r})
	c := it.call
	if c.open--; c.open == 0 && c.stop != nil {
		out.done = append(out.done, c.stop)
	}
	w.release(int64(len(it.bytes)))
	it.bytes = nil
}

// refuse settles an item with an error: at once, or as soon as its bytes are not
// being copied any more. The caller holds w.mu.
func (w *Writer) refuse(it *item, err error, out *outbox) {
	if s := it.draft; s != nil && s.building {
		if it.refused == nil {
			it.refused = err
		}
		return
	}
	w.settle(it, ports.AppendResult{Base: -1, Err: err}, out)
}

// expire settles what is open of a call whose context has ended.
func (w *Writer) expire(c *call) {
	cause := context.Cause(c.ctx)
	w.decide(func(out *outbox) { w.expireItems(c, cause, out) })
}

// decide runs f with the mutex held and then delivers what f decided. Close
// waits for it.
func (w *Writer) decide(f func(*outbox)) {
	var out outbox
	w.mu.Lock()
	w.running++
	f(&out)
	w.mu.Unlock()
	out.deliver()
	w.mu.Lock()
	w.running--
	w.checkDone()
	w.mu.Unlock()
}

func (w *Writer) expireItems(c *call, cause error, out *outbox) {
	for i := range c.items {
		it := &c.items[i]
		if it.state == committing {
			w.refuse(it, expired(cause, w.trouble, ports.Ambiguous), out)
		} else {
			w.refuse(it, expired(cause, w.trouble, ports.Transient), out)
		}
	}
	w.seal()
}

// expired is the error of a batch whose context ended. Transient: the batch is
// not in the log, and no commit will bring it there. The trouble that the stores had,
// if any, is told in words: it explains the end, and does not classify it.
func expired(cause, trouble error, kind ports.Kind) error {
	if mutant.On(mutantAmbiguousIsDefinite) {
		kind = ports.Transient
	}
	class := domain.ErrStorage
	if kind == ports.Ambiguous {
		class = domain.ErrMetadata
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		class = domain.ErrTimeout
	}
	if trouble != nil {
		cause = fmt.Errorf("%w, after %s", cause, trouble.Error())
	}
	return &ports.Error{Class: class, Op: "append", Kind: kind, Err: cause}
}

// result turns a commit's answer for one batch into the transport's.
func result(b commit.Batch, o commit.Outcome) ports.AppendResult {
	refused := func(err error) ports.AppendResult { return ports.AppendResult{Base: -1, Err: err} }
	switch o.Status {
	case commit.Accepted, commit.Duplicate:
		return ports.AppendResult{Base: o.Base}
	case commit.DuplicateForgotten:
		if mutant.On(mutantForgottenIsZero) {
			return ports.AppendResult{}
		}
		return refused(domain.ErrOffsetUnknown)
	case commit.OutOfOrder:
		return refused(domain.ErrOutOfOrder)
	case commit.Fenced:
		return refused(domain.ErrFenced)
	case commit.UnknownProducer:
		return refused(domain.ErrSessionExpired)
	case commit.NoPartition:
		return refused(fmt.Errorf("topic %s partition %d: %w", b.Topic, b.Partition, domain.ErrTopicNotFound))
	default:
		return refused(fmt.Errorf("commit answered status %d: %w", o.Status, domain.ErrInternal))
	}
}
