package cache

import (
	"bytes"
	"context"
	"time"

	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// block names a block: the n-th of an object.
type block struct {
	key string
	n   int64
}

// flight is a read of blocks side by side. Store.flights has it under each of
// them until it has ended or is grounded.
type flight struct {
	key          string
	first, count int64
	cancel       context.CancelFunc

	waiters  int  // readers; guarded by Store.mu
	grounded bool // what it brings is not kept; guarded by Store.mu

	done   chan struct{} // closed when what follows is there
	blocks [][]byte      // those that the object has
	err    error
}

// takeOff starts a flight for count blocks from first on. The caller holds s.mu
// and counts itself among the waiters before it lets go.
func (s *Store) takeOff(caller context.Context, key string, first, count int64) *flight {
	if !mutant.On(mutantFlightOfCaller) {
		caller = s.life
	}
	ctx, cancel := context.WithCancel(caller)
	f := &flight{key: key, first: first, count: count, cancel: cancel, done: make(chan struct{})}
	for n := range count {
		s.flights[block{key, first + n}] = f
	}
	s.running.Go(func() {
		defer cancel()
		s.fly(ctx, f)
	})
	return f
}

func (s *Store) fly(ctx context.Context, f *flight) {
	defer close(f.done)
	b, err := s.ask(ctx, f)
	if s.life.Err() != nil && err != nil {
		err = closedError(f.key)
	}
	f.err = err
	f.cut(b, s.cfg.BlockSize)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || f.grounded {
		return
	}
	for i, b := range f.blocks {
		s.blocks.put(f.key, f.first+int64(i), b)
	}
	s.ground(f)
}

// ask reads from the store below when it is f's turn.
func (s *Store) ask(ctx context.Context, f *flight) (b []byte, err error) {
	start, l := time.Now(), s.laneOf(f.key)
	if err := l.enter(ctx); err != nil {
		return nil, ports.StorageError(reading(f.key), ports.Transient, err)
	}
	defer l.leave()
	b, err = s.store.ReadUpTo(ctx, f.key, f.first*s.cfg.BlockSize, f.count*s.cfg.BlockSize)
	n := int64(len(b))
	s.tel.Record(ports.Event{
		Kind: ports.CacheRead, Duration: time.Since(start), Bytes: n, Count: int((n + s.cfg.BlockSize - 1) / s.cfg.BlockSize), Err: err,
	})
	return b, err
}

// cut makes b blocks, each in memory of its own: one that is kept must not keep
// the memory of those that went.
func (f *flight) cut(b []byte, size int64) {
	if f.count == 1 && len(b) > 0 {
		f.blocks = [][]byte{b}
		return
	}
	for len(b) > 0 {
		n := min(size, int64(len(b)))
		f.blocks = append(f.blocks, bytes.Clone(b[:n]))
		b = b[n:]
	}
}

// block returns block n of the object, nil if the object ends before. It may be
// called once f is done.
func (f *flight) block(n int64) []byte {
	if i := n - f.first; i < int64(len(f.blocks)) {
		return f.blocks[i]
	}
	return nil
}

// ground lets nobody join f any more, and nothing of what it brings be kept. The
// caller holds s.mu.
func (s *Store) ground(f *flight) {
	f.grounded = true
	for n := range f.count {
		if b := (block{f.key, f.first + n}); s.flights[b] == f {
			delete(s.flights, b)
		}
	}
}

// leave takes a reader off flights. One that nobody waits for any more ends.
func (s *Store) leave(joined []*flight) {
	if len(joined) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range joined {
		if f.waiters--; f.waiters == 0 {
			s.ground(f)
			f.cancel()
		}
	}
}
