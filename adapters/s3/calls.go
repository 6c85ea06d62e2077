package s3

import (
	"context"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

// closeWait is how long Close waits for calls in progress before it ends them.
const closeWait = 10 * time.Second

// calls counts the calls in progress.
type calls struct {
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// begin counts a call until its end, unless the store is closed.
func (c *calls) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.running.Add(1)
	return true
}

func (c *calls) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// begin refuses a call that should not begin. Else the caller calls end, and works
// under the context returned, which ends with ctx or the store.
func (s *Store) begin(ctx context.Context, c call) (inner context.Context, end func(), err error) {
	if !s.calls.begin() {
		return nil, nil, closedError(c.op)
	}
	if ctx.Err() != nil {
		s.calls.running.Done()
		return nil, nil, ports.StorageError(c.op, ports.Transient, ctx.Err())
	}
	inner, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	return inner, func() {
		stop()
		cancel()
		s.calls.running.Done()
	}, nil
}

// beginOn is begin for a call on one object.
func (s *Store) beginOn(ctx context.Context, c call, key string) (inner context.Context, end func(), err error) {
	if err := ports.CheckObjectKey(key); err != nil {
		return nil, nil, ports.StorageError(c.op, ports.Definite, err)
	}
	return s.begin(ctx, c)
}

// Close waits up to closeWait for calls in progress, ends those that are left, and
// closes the connections. Calls after it return domain.ErrClosed. It may be called twice.
func (s *Store) Close() error {
	s.calls.close()
	patience := time.AfterFunc(s.patience, s.end)
	defer patience.Stop()
	s.calls.running.Wait()
	s.end()
	s.wire.transport.CloseIdleConnections()
	return nil
}

// readAttempts is how often a call without an effect is tried, retryPause the
// pause before the second attempt; each further one is four times as long.
const (
	readAttempts = 3
	retryPause   = 50 * time.Millisecond
)

// read makes a call without an effect, again while its failure is Transient.
func read[T any](ctx context.Context, s *Store, c call, attempt func(context.Context) (T, error)) (T, error) {
	var none T
	for n := 1; ; n++ {
		got, err := attempt(ctx)
		if err == nil {
			return got, nil
		}
		if ctx.Err() != nil {
			return none, s.endedError(ctx, c, false)
		}
		if ports.KindOf(err) != ports.Transient || n == readAttempts {
			return none, err
		}
		pause(ctx, n)
	}
}

// pause waits before attempt n+1, or until ctx ends.
func pause(ctx context.Context, n int) {
	timer := time.NewTimer(jittered(retryPause << (2 * (n - 1))))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
