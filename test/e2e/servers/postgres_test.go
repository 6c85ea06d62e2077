package servers_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Main(m)) }

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func one(t *testing.T, s *servers.PostgresServer, sql string, args ...any) string {
	t.Helper()
	value, err := s.One(t.Context(), sql, args...)
	must(t, err)
	return value
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestPostgres_HasWhatItAcknowledgedBeforeKill9(t *testing.T) {
	s := servers.Postgres(t)
	must(t, s.Exec(t.Context(), "create table kept (n int)"))
	// A session that is at work does not notice by itself that its server is dead.
	busy := connect(t, s.URL())
	answer := make(chan error, 1)
	go func() {
		_, err := busy.Exec(context.Background(), "select count(*) from generate_series(1, 1e12::bigint)")
		answer <- err
	}()
	for one(t, s, "select count(*)::text from pg_stat_activity where state = 'active' and query like '%generate_series%' and pid <> pg_backend_pid()") != "1" {
		// The database itself takes its time: this is no spin.
	}
	must(t, s.Exec(t.Context(), "insert into kept values (7)"))

	url := s.URL()
	must(t, s.Kill9())
	if err := <-answer; err == nil {
		t.Error("a session of a killed server ended well")
	}
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("a killed server takes connections")
	}
	must(t, s.Start())
	if got := one(t, s, "select n::text from kept"); got != "7" || s.URL() != url {
		t.Errorf("read %s at %s, want 7 at %s", got, s.URL(), url)
	}
}

func TestPostgres_RestartsAtTheSameAddress(t *testing.T) {
	s := servers.Postgres(t)
	idle := connect(t, s.URL())
	url := s.URL()
	must(t, s.Restart())
	if err := idle.Ping(t.Context()); err == nil {
		t.Error("a session outlived the restart")
	}
	if s.Start() == nil {
		t.Error("a running server was started")
	}
	must(t, s.Stop())
	if s.Stop() == nil || s.Kill9() == nil {
		t.Error("a stopped server was stopped again")
	}
	must(t, s.Start())
	connect(t, url)
}

func TestPostgres_IsDurableUnlessSettingsSayOtherwise(t *testing.T) {
	shared, set := servers.SharedPostgres(t), servers.Postgres(t, "fsync=off", "synchronous_commit=off")
	for _, name := range []string{"fsync", "synchronous_commit"} {
		if got := one(t, shared, "select current_setting($1)", name); got != "on" {
			t.Errorf("by default %s is %s", name, got)
		}
		if got := one(t, set, "select current_setting($1)", name); got != "off" {
			t.Errorf("%s is %s, not as set", name, got)
		}
	}
	if one(t, set, "select current_setting('data_directory')") != set.DataDir {
		t.Error("the server does not know its own folder")
	}
}

func TestPostgres_AsksAllButTheSuperuserForAPassword(t *testing.T) {
	s := servers.Postgres(t)
	must(t, s.Exec(t.Context(), "create role writer login password 'right'"))
	connect(t, s.URLFor("writer", "right", "postgres"))
	_, err := pgx.Connect(t.Context(), s.URLFor("writer", "wrong", "postgres"))
	if refused := new(pgconn.PgError); !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestPostgres_SaysWhyItDoesNotStart(t *testing.T) {
	s := servers.Postgres(t)
	must(t, s.Stop())
	broken := servers.WithSettings(s, "no_such_setting=1")
	began := time.Now()
	if err := broken.Start(); err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("start: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to see that the server had ended", took)
	}
}

func TestStandby_FollowsRefusesWritesAndTakesOver(t *testing.T) {
	primary := servers.Postgres(t)
	must(t, primary.Exec(t.Context(), "create table followed (n int)"))
	standby := servers.Standby(t, primary)
	if one(t, standby, "select pg_is_in_recovery()::text") != "true" {
		t.Fatal("the standby is not in recovery")
	}
	var refused *pgconn.PgError
	if err := standby.Exec(t.Context(), "insert into followed values (1)"); !errors.As(err, &refused) || refused.Code != "25006" {
		t.Errorf("a write to the standby: %v", err)
	}
	must(t, primary.Exec(t.Context(), "insert into followed values (2)"))
	for deadline := time.Now().Add(time.Minute); one(t, standby, "select count(*)::text from followed") != "1"; {
		if time.Now().After(deadline) {
			t.Fatal("the standby does not follow")
		}
	}
	must(t, primary.Kill9(), standby.Promote(), standby.Exec(t.Context(), "insert into followed values (3)"))
	if got := one(t, standby, "select sum(n)::text from followed"); got != "5" {
		t.Errorf("after the failover the sum is %s, want 5", got)
	}
}

func TestDatabase_IsNewForEachCaller(t *testing.T) {
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			conn := connect(t, servers.Database(t))
			if _, err := conn.Exec(t.Context(), "create table mine ()"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDatabase_IsDroppedAtTheEndOfItsTest(t *testing.T) {
	const count = "select count(*)::text from pg_database where datname like 'test\\_%'"
	s := servers.Postgres(t)
	t.Run("a test", func(t *testing.T) {
		connect(t, s.URLFor("postgres", "", s.Database(t)))
		if one(t, s, count) != "1" {
			t.Error("the database is not there")
		}
	})
	if one(t, s, count) != "0" {
		t.Error("the database is there after its test")
	}
}

func BenchmarkDatabase(b *testing.B) {
	servers.SharedPostgres(b)
	for b.Loop() {
		servers.Database(b)
	}
}

func BenchmarkPostgres(b *testing.B) {
	for b.Loop() {
		servers.Postgres(b)
	}
}
