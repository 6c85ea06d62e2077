package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// ReadRange implements ports.SegmentStore.
func (s *Store) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	body, ok, err := s.begin(ctx, key)
	switch {
	case err != nil:
		return nil, err
	case ok:
		if err := ports.CheckRange(position, length, int64(len(body))); err != nil {
			return nil, ports.StorageError(reading(key), ports.Definite, err)
		}
		return s.recentHit(body[position : position+length]), nil
	case length < 1 || length > s.cfg.BlockBytes/4 || position < 0 || position > math.MaxInt64-length:
		return s.through(ctx, key, position, length, s.store.ReadRange)
	}
	return s.readBlocks(ctx, key, position, length)
}

// ReadUpTo implements ports.SegmentStore. It keeps nothing: whoever reads records
// knows how long they are.
func (s *Store) ReadUpTo(ctx context.Context, key string, position, length int64) ([]byte, error) {
	body, ok, err := s.begin(ctx, key)
	switch {
	case err != nil:
		return nil, err
	case ok:
		n, err := ports.ClipRange(position, length, int64(len(body)))
		if err != nil {
			return nil, ports.StorageError(reading(key), ports.Definite, err)
		}
		return s.recentHit(body[position : position+n]), nil
	}
	return s.through(ctx, key, position, length, s.store.ReadUpTo)
}

// begin returns the whole object if it is kept.
func (s *Store) begin(ctx context.Context, key string) (body []byte, ok bool, err error) {
	if ctx.Err() != nil {
		return nil, false, ports.StorageError(reading(key), ports.Transient, ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, closedError(key)
	}
	body, ok = s.recent.get(key, 0)
	return body, ok, nil
}

func (s *Store) recentHit(b []byte) []byte {
	s.tel.Record(ports.Event{Kind: ports.RecentHit, Bytes: int64(len(b))})
	return bytes.Clone(b)
}

// through reads from the store below, in the turn of the object's age.
func (s *Store) through(
	ctx context.Context, key string, position, length int64, read func(context.Context, string, int64, int64) ([]byte, error),
) (b []byte, err error) {
	s.tel.Record(ports.Event{Kind: ports.CacheMiss, Bytes: max(length, 0)})
	start := time.Now()
	l := s.laneOf(key)
	if err := l.enter(ctx); err != nil {
		return nil, ports.StorageError(reading(key), ports.Transient, err)
	}
	defer l.leave()
	b, err = read(ctx, key, position, length)
	s.tel.Record(ports.Event{Kind: ports.CacheRead, Duration: time.Since(start), Bytes: int64(len(b)), Err: err})
	return b, err
}

// piece is one block of a read: held, or on a flight.
type piece struct {
	bytes  []byte
	flight *flight
}

// readBlocks puts the range together from blocks. An end of the object before the
// range's end is never told from memory: the store below is asked what it says.
func (s *Store) readBlocks(ctx context.Context, key string, position, length int64) ([]byte, error) {
	first := position / s.cfg.BlockSize
	pieces, joined, err := s.gather(ctx, key, first, (position+length-1)/s.cfg.BlockSize)
	if err != nil {
		return nil, err
	}
	defer s.leave(joined)
	kind := ports.CacheHit
	if len(joined) > 0 {
		kind = ports.CacheMiss
	}
	s.tel.Record(ports.Event{Kind: kind, Bytes: length})
	left := length + position%s.cfg.BlockSize // from the first block's start on
	for i := range pieces {
		p := &pieces[i]
		if err := p.await(ctx, first+int64(i)); err != nil && !errors.Is(err, domain.ErrCorrupt) {
			return nil, err
		}
		if int64(len(p.bytes)) < min(left, s.cfg.BlockSize) && !mutant.On(mutantShortIsEnd) {
			s.Forget(key)
			return s.through(ctx, key, position, length, s.store.ReadRange)
		}
		left -= s.cfg.BlockSize
	}
	return join(pieces, position%s.cfg.BlockSize, length), nil
}

// join returns length bytes of the pieces, in memory that is the caller's.
func join(pieces []piece, from, length int64) []byte {
	if len(pieces) == 1 && mutant.On(mutantBlocksLent) {
		return pieces[0].bytes[from : from+length]
	}
	out := make([]byte, 0, length)
	for _, p := range pieces {
		b := p.bytes[min(from, int64(len(p.bytes))):]
		out = append(out, b[:min(int64(len(b)), length-int64(len(out)))]...)
		from = 0
	}
	return out
}

// gather finds the blocks from first to last: held, on flights that it joins, or
// missing, for which flights start, those side by side on one.
func (s *Store) gather(ctx context.Context, key string, first, last int64) (pieces []piece, joined []*flight, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, closedError(key)
	}
	pieces = make([]piece, last-first+1)
	for i := range pieces {
		p, n := &pieces[i], first+int64(i)
		if b, ok := s.blocks.get(key, n); ok {
			s.blocks.use(key, n)
			p.bytes = b
			continue
		}
		if p.flight = s.flights[block{key, n}]; p.flight == nil {
			p.flight = s.takeOff(ctx, key, n, s.missing(key, n, last))
		}
		if !slices.Contains(joined, p.flight) {
			p.flight.waiters++
			joined = append(joined, p.flight)
		}
	}
	return pieces, joined, nil
}

// missing counts the blocks from n on, up to last, that are neither held nor on a
// flight, as many as are read at once.
func (s *Store) missing(key string, n, last int64) int64 {
	most := min(last-n+1, s.cfg.ReadBytes/s.cfg.BlockSize)
	for i := range most {
		_, held := s.blocks.get(key, n+i)
		if held || s.flights[block{key, n + i}] != nil {
			return i
		}
	}
	return most
}

// await waits for block n if it is on a flight.
func (p *piece) await(ctx context.Context, n int64) error {
	f := p.flight
	if f == nil {
		return nil
	}
	select {
	case <-f.done:
		p.bytes = f.block(n)
		return f.err
	case <-ctx.Done():
		return ports.StorageError(reading(f.key), ports.Transient, ctx.Err())
	}
}

func reading(key string) string { return fmt.Sprintf("read object %.260s", key) }

func closedError(key string) error {
	return ports.StorageError(reading(key), ports.Definite, errClosed)
}
