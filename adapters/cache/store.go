package cache

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// errClosed: Close was called before.
var errClosed = errors.New("the cache is closed")

// Store is a segment store with a memory. Close it; that does not close the
// store below.
type Store struct {
	store ports.SegmentStore
	tel   ports.Telemetry
	cfg   Config

	fresh, cold lane

	life    context.Context //nolint:containedctx // that of the flights, which end with the Store
	end     context.CancelFunc
	running sync.WaitGroup // flights

	mu      sync.Mutex // guards what follows
	closed  bool
	recent  *pool // the oldest first
	blocks  *pool // the least recently used first
	flights map[block]*flight
}

var (
	_ ports.SegmentStore = (*Store)(nil)
	_ ports.Forgetter    = (*Store)(nil)
)

// New puts a memory in front of store. It takes a cfg that passes Validate.
func New(store ports.SegmentStore, tel ports.Telemetry, cfg Config) *Store {
	s := &Store{
		store: store, tel: tel, cfg: cfg,
		fresh: make(lane, cfg.FreshReads), cold: make(lane, cfg.ColdReads),
		recent: newPool(cfg.RecentBytes), blocks: newPool(cfg.BlockBytes), flights: make(map[block]*flight),
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Close ends the flights, waits for them, and gives up all that is kept. Reads
// fail from then on.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.recent, s.blocks = newPool(0), newPool(0)
	s.mu.Unlock()
	s.end()
	s.running.Wait()
}

// Put implements ports.SegmentStore. What it keeps is a copy of body.
func (s *Store) Put(ctx context.Context, key string, body []byte) error {
	if err := s.store.Put(ctx, key, body); err != nil && !mutant.On(mutantFailedPutKept) {
		return err
	}
	if int64(len(body)) <= s.cfg.RecentBytes/4 {
		kept := bytes.Clone(body)
		if mutant.On(mutantBodyNotCopied) {
			kept = body
		}
		s.mu.Lock()
		s.recent.put(key, 0, kept)
		s.mu.Unlock()
	}
	return nil
}

// Stat implements ports.SegmentStore: it asks the store below.
func (s *Store) Stat(ctx context.Context, key string) (ports.ObjectInfo, error) {
	return s.store.Stat(ctx, key)
}

// List implements ports.SegmentStore: it asks the store below.
func (s *Store) List(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error) {
	return s.store.List(ctx, after, limit)
}

// Delete implements ports.SegmentStore. What is kept of the object goes too,
// whatever became of it.
func (s *Store) Delete(ctx context.Context, key string) error {
	defer s.Forget(key)
	return s.store.Delete(ctx, key)
}

// Forget implements ports.Forgetter. Nothing that is being read of the object is
// kept either, and a read that begins afterwards waits for none of it.
func (s *Store) Forget(key string) {
	if mutant.On(mutantNothingForgotten) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent.forget(key)
	s.blocks.forget(key)
	for b, f := range s.flights {
		if b.key == key {
			s.ground(f)
		}
	}
}
