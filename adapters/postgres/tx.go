package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// commitPatience is how long a change that was sent is waited for, whatever
	// its caller's context says: pgx answers the end of a context by closing the connection, and a
	// commit that is cancelled may be seen by readers and yet not be on the standby.
	commitPatience = 30 * time.Second
	// attempts bounds how often a transaction is begun that others are in the way of.
	attempts = 6
)

// failed is an error and how far its call had come.
type failed struct {
	phase phase
	err   error
}

// write runs fn in a transaction and commits it. If fn fails nothing is written,
// and its error is returned. What others were in the way of is begun again, so fn starts its
// answer afresh. Only the COMMIT outlives ctx: then the answer is Ambiguous, and the COMMIT goes on.
func (s *Store) write(ctx context.Context, op string, fn func(context.Context, pgx.Tx) error) error {
	return s.change(ctx, op, func(c *pgxpool.Conn) *failed {
		tx, err := c.Begin(ctx)
		if err != nil {
			return &failed{undone, err}
		}
		if err := fn(ctx, tx); err != nil {
			rollBack(tx)
			return &failed{undone, err}
		}
		return s.last(ctx, c, func(ctx context.Context) *failed {
			if err := tx.Commit(ctx); err != nil {
				return &failed{completed, err}
			}
			return nil
		})
	})
}

// rollBack takes a moment of its own: if it does not succeed the connection is
// closed, which comes to the same.
func rollBack(tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = tx.Rollback(ctx)
}

// once sends a statement that is a transaction of its own, in one round trip once
// it is prepared, and calls scan with its rows, and then when it has taken effect. If the error is
// Ambiguous both may run after once has returned.
func (s *Store) once(ctx context.Context, op, statement string, args []any, scan func(pgx.Rows) error, then func()) error {
	return s.change(ctx, op, func(c *pgxpool.Conn) *failed {
		// Preparing, if it has to be, has no effect, so it is not part of what is sent.
		if _, err := c.Conn().Prepare(ctx, statement, statement); err != nil {
			return &failed{undone, err}
		}
		return s.last(ctx, c, func(ctx context.Context) *failed {
			rows, err := c.Query(ctx, statement, args...)
			if err != nil {
				return &failed{completed, err}
			}
			defer rows.Close()
			for rows.Next() && err == nil {
				err = scan(rows)
			}
			rows.Close()
			switch complete := rows.CommandTag().String() != ""; {
			case rows.Err() != nil && (complete || c.Conn().IsClosed()):
				return &failed{completed, rows.Err()}
			case rows.Err() != nil:
				return &failed{sent, rows.Err()}
			case err != nil:
				return &failed{completed, err}
			}
			then()
			return nil
		})
	})
}

// change gives attempt a connection, and again while others are in the way.
// Attempt ends by last, or without having made anything last.
func (s *Store) change(ctx context.Context, op string, attempt func(*pgxpool.Conn) *failed) error {
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	defer s.calls.Done()
	for n := 1; ; n++ {
		c, err := s.pool.Acquire(ctx)
		if err != nil {
			return s.fail(op, undone, s.at(err))
		}
		f := attempt(c)
		if f == nil {
			c.Release()
			return nil
		}
		if !errors.Is(f.err, errLeft) { // else the goroutine that goes on releases c
			s.release(c, f.err)
		}
		if f.phase == completed || n == attempts || !again(f.err) || !pause(ctx, n) {
			return s.fail(op, f.phase, f.err)
		}
	}
}

// release gives a connection back, or closes it if err says that it leads to the
// wrong server or remembers what is no longer so.
func (s *Store) release(c *pgxpool.Conn, err error) {
	var e *pgconn.PgError
	if errors.As(err, &e) && (e.Code == "25006" || e.Code == "0A000" || e.Code == "26000") {
		closeConn(c.Conn())
	}
	c.Release()
}

// pause waits a random time that grows with n, or reports false when ctx ends.
func pause(ctx context.Context, n int) bool {
	t := time.NewTimer(time.Duration(1+rand.IntN(1<<n)) * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errLeft: the caller's context ended while its change was on the way.
var errLeft = errors.New("the call was given up while the change was on its way")

// last sends what makes a change last, with a deadline of its own. If ctx ends
// first, it returns, and a goroutine sees the change to its end and gives back c.
func (s *Store) last(ctx context.Context, c *pgxpool.Conn, send func(context.Context) *failed) *failed {
	if err := ctx.Err(); err != nil {
		return &failed{undone, err}
	}
	patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitPatience)
	watched := func() *failed {
		defer cancel()
		w := warningsOf(c.Conn())
		w.reset()
		f := send(patient)
		if f == nil && w.seen() {
			return &failed{completed, errNotReplicated}
		}
		return f
	}
	if ctx.Done() == nil {
		return watched()
	}
	done := make(chan *failed) // not buffered: either side knows whether the other has taken it
	left := make(chan struct{})
	s.calls.Add(1) // the caller's own is still counted, so this is not late
	go func() {
		defer s.calls.Done()
		f := watched()
		select {
		case done <- f:
		case <-left:
			if f != nil {
				s.release(c, f.err)
				_ = s.fail("finish a change", f.phase, f.err) // stops the store if it must
				return
			}
			c.Release()
		}
	}()
	select {
	case f := <-done:
		return f
	case <-ctx.Done():
		close(left)
		return &failed{completed, errors.Join(errLeft, ctx.Err())}
	}
}

// read runs fn, which has no effect, on a connection. It may run fn again if the
// connection was lost, so fn starts its answer afresh.
func (s *Store) read(ctx context.Context, op string, fn func(*pgxpool.Conn) error) error {
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	defer s.calls.Done()
	for n := 1; ; n++ {
		c, err := s.pool.Acquire(ctx)
		if err != nil {
			return s.fail(op, reading, s.at(err))
		}
		err = fn(c)
		lost := c.Conn().IsClosed() && ctx.Err() == nil
		s.release(c, err)
		if err == nil {
			return nil
		}
		if n == attempts || !lost && !again(err) || !pause(ctx, n) {
			return s.fail(op, reading, err)
		}
	}
}

// query runs one statement and scans its rows.
func query(ctx context.Context, q queryer, statement string, scan func(pgx.Rows) error, args ...any) error {
	rows, err := q.Query(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// queryer is a connection or a transaction.
type queryer interface {
	Query(ctx context.Context, statement string, args ...any) (pgx.Rows, error)
}

// exec runs one statement without rows.
func exec(ctx context.Context, tx pgx.Tx, statement string, args ...any) error {
	_, err := tx.Exec(ctx, statement, args...)
	return err
}

// given returns what v points to, or nothing with an error: after one that is
// Ambiguous it may still be written to.
func given[T any](v *T, err error) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return *v, nil
}

func ignored(pgx.Rows) error { return nil }

func nothing() {}
