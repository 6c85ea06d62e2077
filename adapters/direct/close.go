package direct

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// Close implements ports.Transport: it writes what was taken over, waits until
// everything is settled and no goroutine is left, and returns nil.
//
// If ctx ends first, uploads end, what is open is settled (as not stored, or Ambiguous if its
// commit has begun) and Close returns the context's error. A commit that runs at
// that moment is not cut off; it ends within Config.CommitTimeout.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	w.turnAway()
	w.seal()
	w.checkDone()
	w.mu.Unlock()
	select {
	case <-w.done:
		w.cancel()
		return nil
	case <-ctx.Done():
	}
	w.abort(context.Cause(ctx))
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	select {
	case <-w.done:
	case <-grace.C:
	}
	return context.Cause(ctx)
}

// turnAway ends the wait of the calls that have no room yet.
func (w *Writer) turnAway() {
	for _, c := range w.waiters {
		close(c.granted)
	}
	w.waiters = nil
}

// abort settles everything and ends everything but a running commit.
func (w *Writer) abort(cause error) {
	why := func(k ports.Kind) error {
		return &ports.Error{Class: domain.ErrStorage, Op: "append: closing", Kind: k, Err: cause}
	}
	w.decide(func(out *outbox) { w.refuseAll(why, out) })
	w.cancel()
}

// fail makes the writer refuse everything from now on, because of a store that
// does.
func (w *Writer) fail(err error) {
	w.decide(func(out *outbox) {
		if w.fatal == nil {
			w.fatal = err
		}
		w.turnAway()
		w.refuseAll(func(ports.Kind) error { return err }, out)
	})
}

// refuseAll settles every open batch with the error for its kind: Transient if
// its commit has not begun. The caller holds w.mu and has turned the waiters away.
func (w *Writer) refuseAll(why func(ports.Kind) error, out *outbox) {
	for w.queue.head != nil {
		w.refuse(w.queue.head, why(ports.Transient), out)
	}
	for _, s := range w.inOrder() {
		for _, it := range s.items {
			kind := ports.Transient
			if it.state == committing {
				kind = ports.Ambiguous
			}
			w.refuse(it, why(kind), out)
		}
	}
}

// checkDone closes done at the end of the last goroutine. The caller holds w.mu.
func (w *Writer) checkDone() {
	if !w.closed || w.running > 0 || w.queue.head != nil {
		return
	}
	w.stopTimer()
	select {
	case <-w.done:
	default:
		close(w.done)
	}
}
