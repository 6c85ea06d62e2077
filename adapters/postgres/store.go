package postgres

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/wake"
)

// Store is a metadata store in one schema of a PostgreSQL database.
//
// Goroutines: one for each change that is being made durable, which ends with it; the notifier, while
// there is something to tell; the listener, while there are subscriptions; and those of the
// connection pool. Close waits for all.
type Store struct {
	name    string // host:port/database
	schema  string
	options Options
	cluster domain.ClusterID
	pool    *pgxpool.Pool
	dialing *dialing

	stopped atomic.Pointer[error] // why every call fails, nil while none must

	mu     sync.Mutex // guards closed, and calls against a late Add
	closed bool
	calls  sync.WaitGroup

	closing sync.Once

	wakes  wake.List
	notify *notifier
}

var _ ports.MetadataStore = (*Store)(nil)

// ClusterID implements ports.MetadataStore.
func (s *Store) ClusterID() domain.ClusterID { return s.cluster }

// Subscribe implements ports.Log.
func (s *Store) Subscribe(wake func()) (cancel func()) { return s.wakes.Add(wake) }

// Close implements ports.MetadataStore. A commit whose caller has left is
// finished first.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.closing.Do(func() {
		s.calls.Wait()
		s.notify.close()
		s.wakes.Close()
		s.pool.Close()
	})
	return nil
}

// enter begins a call. If it returns nil, s.calls.Done ends it.
func (s *Store) enter(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return ports.MetadataError(op, ports.Transient, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ports.MetadataError(op, ports.Definite, domain.ErrClosed)
	}
	if cause := s.stopped.Load(); cause != nil {
		return ports.MetadataError(op, ports.Fatal, fmt.Errorf("the store has stopped: %w", *cause))
	}
	s.calls.Add(1)
	return nil
}

// at names the database in an error.
func (s *Store) at(err error) error { return fmt.Errorf("postgres %s: %w", s.name, err) }

func quoted(identifier string) string { return pgx.Identifier{identifier}.Sanitize() }
