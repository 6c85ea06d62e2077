package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/wake"
)

// readers is how many reads may run at the same time. They are short, and more
// of them than cores gain nothing.
const readers = 4

// Options are the choices there are. The zero value is the safe one.
type Options struct {
	// UnsafeSynchronous weakens the sync of each commit: "NORMAL" may lose
	// acknowledged records when the power fails, "OFF" may destroy the file as well. Empty,
	// the default, syncs fully. For measurements and tests.
	UnsafeSynchronous string
}

// Store is a metadata store in one SQLite file.
//
// Goroutines: one per commit of a call that has a deadline, which ends with that commit; and
// the watcher, while there are subscriptions. Close waits for all.
type Store struct {
	path    string
	file    fs.FileInfo // what path led to when it was opened
	options Options
	cluster domain.ClusterID
	now     func() time.Time

	// writer and idle hand a connection from one user to the next; nil stands
	// for one that is yet to be opened.
	writer chan *conn
	idle   chan *conn

	stopped atomic.Pointer[error] // why every call fails, nil while none must

	mu     sync.Mutex // guards closed, and calls against a late Add
	closed bool
	calls  sync.WaitGroup

	closing sync.Once
	ended   error // what closing gave, set by closing

	wakes wake.List
}

var _ ports.MetadataStore = (*Store)(nil)

// ClusterID implements ports.MetadataStore.
func (s *Store) ClusterID() domain.ClusterID { return s.cluster }

// Subscribe implements ports.Log.
func (s *Store) Subscribe(wake func()) (cancel func()) { return s.wakes.Add(wake) }

// Close implements ports.MetadataStore. The last connection to the file, of any
// process, moves the write-ahead log into the database file.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.closing.Do(func() {
		s.calls.Wait()
		s.wakes.Close()
		s.ended = s.closeConns()
	})
	return s.ended
}

func (s *Store) closeConns() error {
	var errs []error
	for range cap(s.writer) {
		if c := <-s.writer; c != nil {
			errs = append(errs, c.close())
		}
	}
	for range cap(s.idle) {
		if c := <-s.idle; c != nil {
			errs = append(errs, c.close())
		}
	}
	return errors.Join(errs...)
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
