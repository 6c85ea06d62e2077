package producer

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/streamhouse/streamhouse/domain"
)

// budget bounds the bytes that a producer holds. Room is given in the order of
// asking: a large record is not overtaken for ever by small ones.
type budget struct {
	limit   int64
	used    atomic.Int64
	waiting atomic.Int32 // len(queue), for the fast paths
	onWait  func()       // told, unless nil, that somebody waits

	mu     sync.Mutex
	queue  []*waiter
	closed bool
}

type waiter struct {
	n     int64
	ready chan struct{} // closed when granted or refused
	err   error
}

// try takes n bytes if they are free and nobody waits for room.
func (b *budget) try(n int64) bool {
	if b.waiting.Load() != 0 {
		return false
	}
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.release(n)
	return false
}

// acquire takes n bytes, at most limit, and waits for them if it must.
func (b *budget) acquire(ctx context.Context, n int64) error {
	if b.try(n) {
		return nil
	}
	w, err := b.enqueue(n)
	if err != nil {
		return err
	}
	if b.onWait != nil {
		b.onWait()
	}
	select {
	case <-w.ready:
		return w.err
	case <-ctx.Done():
		return b.withdraw(w, context.Cause(ctx))
	}
}

func (b *budget) enqueue(n int64) (*waiter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, domain.ErrClosed
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	b.queue = append(b.queue, w)
	b.waiting.Store(int32(len(b.queue)))
	b.grant()
	return w, nil
}

// withdraw ends a wait with cause, unless the room was given at that moment.
func (b *budget) withdraw(w *waiter, cause error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.queue, w)
	if i < 0 {
		return w.err
	}
	b.queue = slices.Delete(b.queue, i, i+1)
	b.waiting.Store(int32(len(b.queue)))
	b.grant()
	return cause
}

// release gives n bytes back.
func (b *budget) release(n int64) {
	b.used.Add(-n)
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	b.grant()
	b.mu.Unlock()
}

// grant serves the head of the queue while there is room. The caller holds mu.
func (b *budget) grant() {
	for len(b.queue) > 0 {
		w := b.queue[0]
		if b.used.Load()+w.n > b.limit {
			return
		}
		b.used.Add(w.n)
		b.queue = b.queue[1:]
		b.waiting.Store(int32(len(b.queue)))
		close(w.ready)
	}
}

// close refuses everybody who waits, now and later.
func (b *budget) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, w := range b.queue {
		w.err = domain.ErrClosed
		close(w.ready)
	}
	b.queue = nil
	b.waiting.Store(0)
}
