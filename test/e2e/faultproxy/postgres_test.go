package faultproxy_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

// bank is a database with a table of numbers and a function that adds one,
// reached directly and through a proxy.
type bank struct {
	*testing.T
	*faultproxy.Postgres
	direct *pgx.Conn
	server *servers.PostgresServer
	name   string
}

func newBank(t *testing.T) *bank {
	server := servers.SharedPostgres(t)
	b := &bank{T: t, server: server, name: server.Database(t), Postgres: faultproxy.NewPostgres(t, server.Addr())}
	b.direct = b.connect(server.Addr())
	_, err := b.direct.Exec(t.Context(), `create table n (n int);
		create function add(i int) returns int language sql as $$ insert into n values (i) returning n $$`)
	must(t, err)
	return b
}

func (b *bank) connect(addr string) *pgx.Conn {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), servers.URLVia(addr, "postgres", "", b.name))
	must(b.T, err)
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

func (b *bank) has(n int) bool {
	b.Helper()
	var has bool
	must(b.T, b.direct.QueryRow(b.Context(), "select exists (select from n where n = $1)", n).Scan(&has))
	return has
}

// ways are how a client can run SQL that writes a number.
var ways = []struct {
	name, next string
	add        func(ctx context.Context, conn *pgx.Conn, n int) error
}{
	{"a statement prepared before", "add(", func(ctx context.Context, conn *pgx.Conn, n int) error {
		_, err := conn.Exec(ctx, "select add($1)", n)
		return err
	}},
	{"a statement without preparing", "ADD(", func(ctx context.Context, conn *pgx.Conn, n int) error {
		_, err := conn.Exec(ctx, "select add($1)", pgx.QueryExecModeExec, n)
		return err
	}},
	{"the simple protocol", "add(", func(ctx context.Context, conn *pgx.Conn, n int) error {
		_, err := conn.Exec(ctx, "select add($1)", pgx.QueryExecModeSimpleProtocol, n)
		return err
	}},
	{"a transaction", "commit", func(ctx context.Context, conn *pgx.Conn, n int) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "select add($1)", n)
			return err
		})
	}},
	{"a batch", "add(", func(ctx context.Context, conn *pgx.Conn, n int) error {
		batch := new(pgx.Batch)
		batch.Queue("select 1")
		batch.Queue("select add($1)", n)
		batch.Queue("select 2")
		return conn.SendBatch(ctx, batch).Close()
	}},
}

func TestPostgres_PassesAllThatIsNotIntercepted(t *testing.T) {
	b := newBank(t)
	conn := b.connect(b.Addr())
	for n, way := range ways {
		for _, n := range []int{n, n + 100} {
			if err := way.add(t.Context(), conn, n); err != nil || !b.has(n) {
				t.Errorf("%s: %v", way.name, err)
			}
		}
	}
	if c := b.Counts(); c.Accepted != 1 || c.Cut != 0 || c.Bytes[faultproxy.ToServer] == 0 || c.Bytes[faultproxy.ToClient] == 0 {
		t.Errorf("counts %+v", c)
	}
}

// TestPostgres_ActsOnTheMessageThatRunsTheSQL holds what LoseReply promises:
// the server has done it, the client cannot know.
func TestPostgres_ActsOnTheMessageThatRunsTheSQL(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			for _, prepared := range []bool{false, true} {
				b := newBank(t)
				conn := b.connect(b.Addr())
				if prepared {
					must(t, way.add(t.Context(), conn, 1))
				}
				met := b.Next(way.next, faultproxy.CutBefore)
				if err := way.add(t.Context(), conn, 2); err == nil {
					t.Error("a connection that was cut before gave an answer")
				}
				<-met
				conn = b.connect(b.Addr())
				if prepared {
					must(t, way.add(t.Context(), conn, 3))
				}
				met = b.Next(way.next, faultproxy.LoseReply)
				if err := way.add(t.Context(), conn, 4); err == nil {
					t.Error("a reply that was lost has come")
				}
				<-met
				if b.has(2) || !b.has(4) {
					t.Errorf("cut before is done: %v, reply lost is done: %v", b.has(2), b.has(4))
				}
				if c := b.Counts(); c.CutBefore != 1 || c.Lost != 1 || c.Cut != 2 {
					t.Errorf("counts %+v", c)
				}
				must(t, way.add(t.Context(), b.connect(b.Addr()), 5)) // Next is over
			}
		})
	}
}

func TestPostgres_HoldsAReplyUntilTheThaw(t *testing.T) {
	b := newBank(t)
	conn := b.connect(b.Addr())
	b.Next("add(", faultproxy.HoldReply)
	answer := make(chan error, 1)
	go func() { answer <- ways[0].add(context.Background(), conn, 1) }()
	within(t, "the server has done it", func() bool { return b.has(1) })
	select {
	case err := <-answer:
		t.Fatalf("a held reply has come: %v", err)
	case <-time.After(pause):
	}
	b.Thaw()
	must(t, <-answer, ways[0].add(t.Context(), conn, 2))
	if c := b.Counts(); c.Held != 1 || c.Cut != 0 {
		t.Errorf("counts %+v", c)
	}

	b.Next("add(", faultproxy.HoldReply)
	ctx, cancel := context.WithTimeout(t.Context(), pause)
	defer cancel()
	if err := ways[0].add(ctx, conn, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a client that waits no longer: %v", err)
	}
}

func TestPostgres_InterceptSeesMessagesButNoPassword(t *testing.T) {
	b := newBank(t)
	_, err := b.direct.Exec(t.Context(), "create role reader login password 'hidden-word'")
	must(t, err)
	t.Cleanup(func() { _ = b.server.Exec(context.Background(), "drop role reader") })
	var mu sync.Mutex
	var seen []string
	b.Intercept(func(m faultproxy.Message) faultproxy.Action {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(string(m.Bytes), "SCRAM") || m.Type == 'p' {
			t.Errorf("a password: %q", m.Bytes)
		}
		seen = append(seen, string(m.Type)+" "+m.SQL)
		return faultproxy.Pass
	})
	conn, err := pgx.Connect(t.Context(), servers.URLVia(b.Addr(), "reader", "hidden-word", b.name))
	must(t, err)
	_, err = conn.Exec(t.Context(), "select $1::int", 7)
	must(t, err)
	_, err = conn.Exec(t.Context(), "select 8")
	must(t, err, conn.Close(t.Context()))
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"P select $1::int", "B select $1::int", "E select $1::int", "Q select 8", "S "} {
		if !slices.Contains(seen, want) {
			t.Errorf("did not see %q, but %q", want, seen)
		}
	}
}

func TestPostgres_PassesCancellationsAndRefusesEncryption(t *testing.T) {
	b := newBank(t)
	conn := b.connect(b.Addr())
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select pg_sleep(3600)")
		done <- err
	}()
	within(t, "the sleep runs", func() bool {
		var runs bool
		must(t, b.direct.QueryRow(t.Context(), "select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep')").Scan(&runs))
		return runs
	})
	must(t, conn.PgConn().CancelRequest(t.Context()))
	if err := <-done; err == nil || !strings.Contains(err.Error(), "57014") {
		t.Errorf("a canceled query: %v", err)
	}

	plain := strings.Replace(servers.URLVia(b.Addr(), "postgres", "", b.name), "sslmode=disable", "sslmode=prefer", 1)
	fallen, err := pgx.Connect(t.Context(), plain)
	must(t, err, fallen.Close(t.Context()))
	if _, err = pgx.Connect(t.Context(), strings.Replace(plain, "prefer", "require", 1)); err == nil {
		t.Error("the proxy gave encryption")
	}
}

// A cut after any number of bytes leaves an error or an answer, and never a proxy that hangs.
func TestPostgres_IsCutAtAnyByte(t *testing.T) {
	b := newBank(t)
	for n := int64(0); ; n += 7 {
		conn := b.connect(b.Addr())
		must(t, ways[0].add(t.Context(), conn, -1))
		b.CutAfter(faultproxy.ToClient, n)
		err := ways[0].add(t.Context(), conn, int(n))
		if !b.has(int(n)) {
			t.Errorf("the server has not done what it has answered to, %d bytes of it", n)
		}
		if err == nil {
			if n < 20 {
				t.Errorf("an answer in %d bytes", n)
			}
			return
		}
	}
}

func TestPostgres_CutsWhatIsNoMessage(t *testing.T) {
	for _, nonsense := range []string{"\x00\x00\x00\x03", "\xff\xff\xff\xff", "\x00\x00\x00\x04", "\x00\x00\x00\x09"} {
		b := faultproxy.NewPostgres(t, servers.SharedPostgres(t).Addr())
		l := newLine(t, b.TCP)
		l.say(nonsense)
		_ = l.CloseWrite() // unless it is cut already
		if heard, err := l.hear(1, patience); err == nil {
			t.Errorf("%q: heard %q", nonsense, heard)
		}
		within(t, "the connection has ended", func() bool { return b.Connections() == 0 })
	}
}
