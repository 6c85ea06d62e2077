package producer

import (
	"context"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// closeGrace is how long Close waits, after its context ended, for batches in
// flight to come back, so that their fate can still be told.
const closeGrace = time.Second / 2

// Flush returns nil once every record accepted before the call is durable or
// has failed, and its callback has run. Failures are told to the records, not here. If
// ctx ends first it returns the context's error; the records stay on their way.
func (p *Producer) Flush(ctx context.Context) error {
	over := p.generations.flush()
	if over == nil {
		return nil
	}
	defer p.dispatcher.flush()()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush: %w", context.Cause(ctx))
	}
}

// Close refuses new records, flushes, and ends the producer and its transport.
// If ctx ends first, what is not durable by then fails: with ErrOutcomeUnknown if it was
// sent, else as not stored. Calling it again waits for the first call and returns the same.
// It must not be called from a callback.
func (p *Producer) Close(ctx context.Context) error {
	if !p.beginClose() {
		select {
		case <-p.over:
			return p.overErr
		case <-ctx.Done():
			return fmt.Errorf("close producer: %w", context.Cause(ctx))
		}
	}
	p.generations.close()
	p.budget.close()
	err := p.Flush(ctx)
	if err != nil {
		err = fmt.Errorf("close producer: not all records are durable: %w", context.Cause(ctx))
		p.abort()
	}
	if closeErr := p.transport.Close(ctx); err == nil && closeErr != nil {
		err = fmt.Errorf("close producer: %w", closeErr)
	}
	p.end()
	p.reaper.stop()
	p.finishClose(err)
	return err
}

func (p *Producer) beginClose() bool {
	p.closing.Lock()
	defer p.closing.Unlock()
	first := !p.closed
	p.closed = true
	if first {
		closed := domain.ErrClosed
		p.failure.CompareAndSwap(nil, &closed)
	}
	return first
}

// finishClose waits for the goroutines, unless a callback that never returns
// could hold them.
func (p *Producer) finishClose(err error) {
	p.closing.Lock()
	p.stopped = true
	p.closing.Unlock()
	if err == nil {
		p.work.Wait()
	}
	p.overErr = err
	close(p.over)
}

// abort gives up every record that is not durable.
func (p *Producer) abort() {
	p.end()
	p.failPartitions()
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	if over := p.generations.flush(); over != nil {
		select {
		case <-over:
		case <-grace.C:
		}
	}
}

// ended returns why nothing is sent any more, or nil.
func (p *Producer) ended() error {
	if p.life.Err() != nil {
		return domain.ErrClosed
	}
	if f := p.failure.Load(); f != nil && *f != domain.ErrClosed { //nolint:errorlint // this very value
		return *f
	}
	return nil
}

// fail ends the producer for cause: all that waits fails with it, and so does
// every later call. What is in flight is told its own fate.
func (p *Producer) fail(cause error) {
	if closed := p.failure.Load(); closed != nil && *closed != domain.ErrClosed { //nolint:errorlint // this very value
		return
	}
	cause = &endedError{cause}
	p.failure.Store(&cause)
	p.generations.close()
	p.spawn(p.failPartitions)
}

// failPartitions makes every partition see that the producer has ended.
func (p *Producer) failPartitions() {
	p.topics.eachPartition(func(part *partition) {
		part.mu.Lock()
		defer part.mu.Unlock()
		if part.hold == free {
			part.hold = draining
		}
		if cause := p.ended(); cause != nil && len(part.inflight) == 0 && len(part.unspent) == 0 {
			part.failAll(cause)
		}
	})
}

// register opens a new session and makes it the current one.
func (p *Producer) register(ctx context.Context) (*session, error) {
	opened, err := p.producers.RegisterProducer(ctx, p.cfg.Name)
	if err != nil {
		return nil, err
	}
	next := &session{opened}
	p.session.Store(next)
	return next, nil
}

// renewSession replaces the session old, once for all partitions that ask.
func (p *Producer) renewSession(old *session) (*session, error) {
	select {
	case <-p.renewing:
	case <-p.life.Done():
		return nil, domain.ErrClosed
	}
	defer func() { p.renewing <- struct{}{} }()
	if current := p.session.Load(); current != old {
		return current, nil
	}
	ctx, cancel := context.WithTimeout(p.life, p.cfg.RequestTimeout)
	defer cancel()
	before := p.superseded.Swap(old)
	next, err := p.register(ctx)
	if err != nil {
		switch ports.KindOf(err) {
		case ports.Transient, ports.Definite:
			p.superseded.Store(before) // it had no effect
		}
	}
	return next, err
}

// fencedByOther reports whether it takes another producer to fence s: it is the
// current session, and no registration of ours has perhaps opened the next one.
func (p *Producer) fencedByOther(s *session) bool {
	return s != nil && s == p.session.Load() && s != p.superseded.Load()
}
