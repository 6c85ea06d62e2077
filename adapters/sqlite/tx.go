package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"
)

var (
	beginWrite = query{"BEGIN IMMEDIATE"}
	beginRead  = query{"BEGIN"}
	sendCommit = query{"COMMIT"}
	rollBack   = query{"ROLLBACK"}
)

// write runs fn in a transaction that excludes all other writers, and commits it.
// If fn fails nothing is written and its error is returned. Only the COMMIT
// outlives ctx: then the answer is Ambiguous, and the COMMIT goes on.
func (s *Store) write(ctx context.Context, op string, fn func(*conn) error) error {
	forgetful := func(c *conn) error {
		c.dropMemo()
		return fn(c)
	}
	return s.writeThen(ctx, op, forgetful, func() {})
}

// writeThen is write that calls then once the COMMIT took effect, even if ctx
// has ended by then. It is for what leaves a true memo behind.
func (s *Store) writeThen(ctx context.Context, op string, fn func(*conn) error, then func()) error {
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	c, err := s.take(ctx, s.writer, s.openWriter)
	if err != nil {
		s.calls.Done()
		return s.fail(op, atStatement, err)
	}
	if err := s.begin(ctx, c); err != nil {
		s.release(s.writer, c, err)
		return s.fail(op, atStatement, err)
	}
	if err := fn(c); err != nil {
		failed := s.fail(op, atStatement, err)
		s.release(s.writer, c, s.undo(c, err))
		return failed
	}
	return s.commit(ctx, op, c, then)
}

// begin waits until no other writer, of any process, is at work.
func (s *Store) begin(ctx context.Context, c *conn) error {
	if err := s.unmoved(); err != nil {
		return err
	}
	for wait := newBackoff(); ; {
		err := c.exec(&beginWrite)
		if !busy(err) {
			return err
		}
		if err := wait.sleep(ctx); err != nil {
			return err
		}
	}
}

// unmoved checks that path still leads to the open file.
func (s *Store) unmoved() error {
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, s.file) {
		return errReplaced
	}
	return err
}

// commit sends COMMIT and waits for its answer as long as ctx allows. The
// connection is free again when the answer is there.
func (s *Store) commit(ctx context.Context, op string, c *conn, then func()) error {
	if ctx.Done() == nil {
		return s.finish(op, c, then)
	}
	done := make(chan error, 1)
	go func() { done <- s.finish(op, c, then) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return s.fail(op, atCommit, ctx.Err())
	}
}

func (s *Store) finish(op string, c *conn, then func()) error {
	err := c.exec(&sendCommit)
	if err == nil {
		then()
		s.release(s.writer, c, nil)
		return nil
	}
	failed := s.fail(op, atCommit, err)
	s.release(s.writer, c, s.undo(c, err))
	return failed
}

// undo rolls back after err, and returns what is to be thought of the
// connection: it can be used again only if err was our own and the rollback went well.
func (s *Store) undo(c *conn, err error) error {
	if rolled := c.exec(&rollBack); rolled != nil {
		return rolled
	}
	if fromDriver(err) {
		return err
	}
	return nil
}

// read runs fn in one snapshot. It may run fn again if a lock was in the way, so
// fn starts its answer afresh.
func (s *Store) read(ctx context.Context, op string, fn func(*conn) error) error {
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	c, err := s.take(ctx, s.idle, s.openReader)
	if err != nil {
		s.calls.Done()
		return s.fail(op, atStatement, err)
	}
	for wait := newBackoff(); ; {
		if err = snapshot(c, fn); !busy(err) {
			break
		}
		if ended := wait.sleep(ctx); ended != nil {
			err = ended
			break
		}
	}
	if err == nil || !fromDriver(err) {
		s.release(s.idle, c, nil)
	} else {
		s.release(s.idle, c, err)
	}
	if err != nil {
		return s.fail(op, atStatement, err)
	}
	return nil
}

func snapshot(c *conn, fn func(*conn) error) error {
	if err := c.exec(&beginRead); err != nil {
		return err
	}
	err := fn(c)
	if ended := c.exec(&rollBack); err == nil {
		err = ended
	}
	return err
}

// take waits for a connection of the pool, and opens it if need be.
func (s *Store) take(ctx context.Context, pool chan *conn, open func(context.Context) (*conn, error)) (*conn, error) {
	var c *conn
	select {
	case c = <-pool:
	default:
		select {
		case c = <-pool:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if c != nil {
		return c, nil
	}
	c, err := open(ctx)
	if err != nil {
		pool <- nil
	}
	return c, err
}

// release ends a call: the connection goes back to its pool, or is closed if err
// casts doubt on it.
func (s *Store) release(pool chan *conn, c *conn, err error) {
	if err != nil && !busy(err) {
		// What closing a doubted connection says changes nothing.
		_ = c.close()
		c = nil
	}
	pool <- c
	s.calls.Done()
}

// backoff paces attempts at a lock that others hold: an eighth of a millisecond
// at first, up to two, with jitter so that waiting processes spread.
type backoff struct{ bound time.Duration }

func newBackoff() *backoff { return &backoff{bound: 250 * time.Microsecond} }

func (b *backoff) sleep(ctx context.Context) error {
	t := time.NewTimer(b.bound/2 + rand.N(b.bound/2))
	defer t.Stop()
	b.bound = min(2*b.bound, 2*time.Millisecond)
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
