package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"testing"

	lib "modernc.org/sqlite/lib"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// injected is an error as SQLite would give it.
type injected int

func (e injected) Code() int     { return int(e) }
func (e injected) Error() string { return fmt.Sprintf("injected %d", int(e)) }

// faulty fails statements that begin with a text, before or after they were
// executed.
type faulty struct {
	driver.Conn
	text  string
	after bool
	err   error
}

type faultyStmt struct {
	driver.Stmt
	conn *faulty
	text string
}

func (f *faulty) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	s, err := f.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, text)
	return &faultyStmt{s, f, text}, err
}

func (f *faulty) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	return f.Conn.(driver.ExecerContext).ExecContext(ctx, text, args)
}

func (s *faultyStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	hit := strings.HasPrefix(s.text, s.conn.text)
	if hit && !s.conn.after {
		return nil, s.conn.err
	}
	r, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	if hit && err == nil {
		err = s.conn.err
	}
	return r, err
}

func (s *faultyStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
}

// breakWriter makes the present writing connection of s faulty.
func breakWriter(t *testing.T, s *Store, f faulty) {
	t.Helper()
	c := <-s.writer
	var err error
	if c == nil {
		c, err = s.dialWriter()
	}
	if err != nil {
		t.Fatal(err)
	}
	for q, stmt := range c.stmts {
		if err := stmt.Close(); err != nil {
			t.Error(err)
		}
		delete(c.stmts, q)
	}
	f.Conn = c.dc
	c.dc = &f
	s.writer <- c
}

func TestCommit_WhoseAnswerIsLostIsSettledByTheSameCallAgain(t *testing.T) {
	for _, f := range []faulty{
		{text: "COMMIT", err: injected(lib.SQLITE_IOERR_WRITE)},
		{text: "COMMIT", err: injected(lib.SQLITE_IOERR_WRITE), after: true},
		{text: "COMMIT", err: injected(lib.SQLITE_BUSY), after: true},
		{text: "COMMIT", err: injected(lib.SQLITE_READONLY)},
	} {
		s := newTest(t)
		topic := createTopic(t, s, "orders", 2)
		seg := segmentOf(t, s, topic, ports.ProducerSession{ID: commit.NoProducer}, 0, 2)
		breakWriter(t, s, f)
		if _, err := s.Commit(t.Context(), []commit.Segment{seg}); ports.KindOf(err) != ports.Ambiguous {
			t.Fatalf("%+v: %v is %v", f, err, ports.KindOf(err))
		}
		results := must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{seg}))
		if o := results[0].Outcomes[0]; o != (commit.Outcome{Status: commit.Accepted}) {
			t.Errorf("%+v: the same call again answered %v", f, o)
		}
		if high := s.highWatermark(t); high != 10 {
			t.Errorf("%+v: high watermark %d", f, high)
		}
		checkInvariants(t, s.path)
	}
}

func TestCommit_ThatFailsBeforeItsCommitStoresNothing(t *testing.T) {
	for _, f := range []faulty{
		{text: "INSERT OR FAIL INTO extents", err: injected(lib.SQLITE_IOERR_WRITE), after: true},
		{text: "INSERT OR FAIL INTO extents", err: injected(lib.SQLITE_NOMEM)},
		{text: "REPLACE INTO partitions", err: injected(lib.SQLITE_FULL), after: true},
		{text: "COMMIT", err: injected(lib.SQLITE_FULL)},
		{text: "BEGIN", err: injected(lib.SQLITE_IOERR_SHMSIZE)},
	} {
		s := newTest(t)
		topic := createTopic(t, s, "orders", 2)
		seg := segmentOf(t, s, topic, ports.ProducerSession{ID: commit.NoProducer}, 0, 2)
		breakWriter(t, s, f)
		if _, err := s.Commit(t.Context(), []commit.Segment{seg}); ports.KindOf(err) != ports.Transient {
			t.Fatalf("%+v: %v is %v", f, err, ports.KindOf(err))
		}
		if high := s.highWatermark(t); high != 0 {
			t.Errorf("%+v: high watermark %d", f, high)
		}
		must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{seg}))
		if high := s.highWatermark(t); high != 10 {
			t.Errorf("%+v: high watermark %d after the same call again", f, high)
		}
	}
}

func TestStore_RefusesEverythingAfterASyncThatFailed(t *testing.T) {
	for _, code := range []int{lib.SQLITE_IOERR_FSYNC, lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB} {
		s := newTest(t)
		topic := createTopic(t, s, "orders", 1)
		seg := segmentOf(t, s, topic, ports.ProducerSession{ID: commit.NoProducer}, 0, 1)
		breakWriter(t, s, faulty{text: "COMMIT", err: injected(code)})
		ctx := t.Context()
		_, first := s.Commit(ctx, []commit.Segment{seg})
		_, second := s.Commit(ctx, []commit.Segment{seg})
		_, third := s.Topic(ctx, "orders")
		_, fourth := s.RegisterProducer(ctx, "")
		for i, err := range []error{first, second, third, fourth} {
			if ports.KindOf(err) != ports.Fatal || !errors.Is(err, domain.ErrMetadata) {
				t.Errorf("call %d after code %d: %v is %v", i, code, err, ports.KindOf(err))
			}
		}
	}
}

func TestCommit_WaitsForAnotherConnectionsLock(t *testing.T) {
	s := newTest(t)
	topic := createTopic(t, s, "orders", 1)
	seg := segmentOf(t, s, topic, ports.ProducerSession{ID: commit.NoProducer}, 0, 1)
	other := openTest(t, s.path)
	committed := make(chan error, 1)
	err := other.write(t.Context(), "hold", func(*conn) error {
		go func() {
			_, err := s.Commit(t.Context(), []commit.Segment{seg})
			committed <- err
		}()
		return nil
	})
	if err := errors.Join(err, <-committed); err != nil {
		t.Fatal(err)
	}
}
