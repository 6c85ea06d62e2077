package postgres

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// lookEvery is how often the listener wakes everybody for no reason, in case
	// a process crashed between its commit and its notification. It is also how a connection is found
	// that leads nowhere.
	lookEvery = 2 * time.Minute
	// lookPatience bounds such a look.
	lookPatience = 5 * time.Second

	// Without a connection to listen on, or if the server does not let us listen,
	// the listener polls: pollBusy after it found something new, and up to pollIdle if not.
	pollBusy = 20 * time.Millisecond
	pollIdle = time.Second
	// Listening is tried again after relistenFirst, and up to relistenLast.
	relistenFirst = 50 * time.Millisecond
	relistenLast  = 10 * time.Second
)

// listen wakes the subscriptions after commits of other processes, until done is
// closed. It has a connection of its own.
func (s *Store) listen(done <-chan struct{}, config *pgx.ConnConfig) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with done, or with ctx when listen returns
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	config = config.Copy()
	config.Tracer = nil // the pool's pace is not ours
	again := relistenFirst
	for ctx.Err() == nil {
		began := time.Now()
		// Whatever ended it is met again, and told, by the calls on the store.
		_ = s.listenOnce(ctx, config)
		if time.Since(began) > relistenLast {
			again = relistenFirst
		}
		s.poll(ctx, time.Now().Add(again/2+rand.N(again)))
		again = min(2*again, relistenLast)
	}
}

// listenOnce listens until its connection or ctx ends.
func (s *Store) listenOnce(ctx context.Context, config *pgx.ConnConfig) error {
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer closeConn(c)
	if err := s.greet(ctx, c); err != nil {
		return err
	}
	if _, err := c.Exec(ctx, "LISTEN "+quoted(s.channel())); err != nil {
		return err
	}
	for {
		// At first, and after each look: what was committed before may not have
		// been told.
		s.wakes.All()
		if err := s.hear(ctx, c); err != nil {
			return err
		}
		look, cancel := context.WithTimeout(ctx, lookPatience)
		err := c.Ping(look)
		cancel()
		if err != nil {
			return err
		}
	}
}

// hear wakes everybody at each notification, for lookEvery.
func (s *Store) hear(ctx context.Context, c *pgx.Conn) error {
	until, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	for {
		if _, err := c.WaitForNotification(until); err != nil {
			if until.Err() != nil && ctx.Err() == nil && !c.IsClosed() {
				return nil
			}
			return err
		}
		s.wakes.All()
	}
}

// snapshotNow changes with every commit in the server.
const snapshotNow = "SELECT pg_current_snapshot()::text"

// poll looks for commits in the server until the given time, or until ctx ends.
func (s *Store) poll(ctx context.Context, until time.Time) {
	seen, wait := "", pollBusy
	for {
		snapshot := ""
		look, cancel := context.WithTimeout(ctx, lookPatience)
		err := s.pool.QueryRow(look, snapshotNow).Scan(&snapshot)
		cancel()
		wait = min(wait*3/2, pollIdle)
		if err == nil && snapshot != seen {
			seen, wait = snapshot, pollBusy
			s.wakes.All()
		}
		left := time.Until(until)
		t := time.NewTimer(min(wait, max(left, 0)))
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil || left <= wait {
			return
		}
	}
}
