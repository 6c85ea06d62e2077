package servers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/test/e2e/loopback"
)

// superuser is who owns a server. It needs no password; all other roles do.
const superuser = "postgres"

// postgresTaken is in the log of a server that finds its port taken.
const postgresTaken = "could not bind"

// PostgresServer is a PostgreSQL server of its own data folder. Its methods
// may be used by one goroutine at a time; its URLs stay the same for its whole life.
type PostgresServer struct {
	// DataDir is the data folder.
	DataDir string

	folder   *folder
	port     int
	binaries installation
	settings []string
	running  *process // nil while it is down
}

// Postgres makes a server and starts it; both end with tb. Each setting is
// "name=value" as in postgresql.conf, and beats the defaults, with which
// everything acknowledged is on the disk.
func Postgres(tb testing.TB, settings ...string) *PostgresServer {
	tb.Helper()
	return owned(tb, settings, (*PostgresServer).initialize)
}

// Standby makes a server that follows primary and answers reads only, until
// [PostgresServer.Promote]. It has all that primary had when Standby was called, and gets the rest
// a moment after primary has committed it.
func Standby(tb testing.TB, primary *PostgresServer, settings ...string) *PostgresServer {
	tb.Helper()
	return owned(tb, settings, func(s *PostgresServer) error {
		return s.run("pg_basebackup", "--pgdata="+s.DataDir, "--dbname="+primary.URL(),
			"--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync")
	})
}

// owned makes a server that ends with tb, and shows its log if tb has failed.
func owned(tb testing.TB, settings []string, fill func(*PostgresServer) error) *PostgresServer {
	tb.Helper()
	s, err := newPostgres(settings, fill)
	if err != nil {
		tb.Fatalf("PostgreSQL: %v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the end of the log of PostgreSQL at %s:\n%s", s.Addr(), tail(s.log()))
		}
		failing(tb, "end PostgreSQL", s.remove)
	})
	return s
}

func newPostgres(settings []string, fill func(*PostgresServer) error) (*PostgresServer, error) {
	found, err := findPostgres()
	if err != nil {
		return nil, err
	}
	files, err := newFolder()
	if err != nil {
		return nil, err
	}
	s := &PostgresServer{DataDir: files.join("data"), folder: files, binaries: found, settings: settings}
	if err = found.own(s.DataDir); err == nil {
		err = fill(s)
	}
	if err == nil {
		err = startFirst(s.Start, s.moveTo, s.log(), postgresTaken)
	}
	if err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// access is pg_hba.conf: the superuser is trusted, others show their password.
const access = `# kind  database     user      address       how
host    all          postgres  127.0.0.1/32  trust
host    replication  postgres  127.0.0.1/32  trust
host    all          all       127.0.0.1/32  scram-sha-256
`

func (s *PostgresServer) initialize() error {
	err := s.run("initdb", "--pgdata="+s.DataDir, "--username="+superuser, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.DataDir, "pg_hba.conf"), []byte(access), 0o600)
}

func (s *PostgresServer) program(name string, args ...string) program {
	return program{
		path: s.binaries.path(name), args: args, dir: s.folder.path, log: s.log(), as: s.binaries.as, orphaned: syscall.SIGQUIT,
		env: []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}, // no PGOPTIONS, PGSERVICE and the like of the caller
	}
}

func (s *PostgresServer) run(name string, args ...string) error {
	return s.program(name, args...).run(startLimit)
}

func (s *PostgresServer) log() string { return s.folder.join("server.log") }

// Start starts a server that is down and returns once it answers.
func (s *PostgresServer) Start() error {
	if s.running != nil {
		return errors.New("start PostgreSQL: it is running")
	}
	// No sockets in the file system: their paths may be too long.
	args := []string{"-D", s.DataDir, "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	started, err := s.program("postgres", args...).start()
	if err != nil {
		return err
	}
	for limit := time.Now().Add(startLimit); !s.answers(started.cmd.Process.Pid); {
		if started.gone(startPoll) {
			return fmt.Errorf("start PostgreSQL: %w\n%s", started.reap(), tail(s.log()))
		}
		if time.Now().After(limit) {
			return errors.Join(fmt.Errorf("start PostgreSQL: no answer after %v\n%s", startLimit, tail(s.log())), started.end(syscall.SIGQUIT))
		}
	}
	s.running = started
	return nil
}

// answers reports whether the server whose first process is pid takes
// connections. It reads the file that pg_ctl waits for too, so no other server on the port can be
// taken for this one.
func (s *PostgresServer) answers(pid int) bool {
	lines := s.pidFile()
	if len(lines) < 8 || lines[0] != strconv.Itoa(pid) {
		return false
	}
	state := strings.TrimSpace(lines[7])
	return state == "ready" || state == "standby"
}

func (s *PostgresServer) pidFile() []string {
	text, err := os.ReadFile(filepath.Join(s.DataDir, "postmaster.pid"))
	if err != nil {
		return nil
	}
	return strings.Split(string(text), "\n")
}

// Kill9 kills the server as a crash does, without a chance to write anything,
// and returns once its sessions are gone too. Start recovers it.
func (s *PostgresServer) Kill9() error { return s.stop(syscall.SIGKILL) }

// Stop ends all sessions, writes what is to be written and stops the server.
func (s *PostgresServer) Stop() error { return s.stop(syscall.SIGINT) }

// Restart is Stop and Start.
func (s *PostgresServer) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start()
}

func (s *PostgresServer) stop(how syscall.Signal) error {
	if s.running == nil {
		return errors.New("stop PostgreSQL: it is down")
	}
	stopped := s.running
	s.running = nil
	return stopped.end(how)
}

// Promote makes a standby a primary, and returns once it takes writes.
func (s *PostgresServer) Promote() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	return s.Exec(ctx, "select pg_promote(wait => true)")
}

// remove ends the server, however it is, and leaves nothing of it.
func (s *PostgresServer) remove() error {
	var err error
	if s.running != nil {
		err = s.stop(syscall.SIGQUIT)
	}
	s.removeMemory()
	return errors.Join(err, s.folder.remove())
}

func (s *PostgresServer) moveTo(port int) { s.port = port }

// Addr is the server's host and port.
func (s *PostgresServer) Addr() string { return loopback.Addr(s.port) }

// URL is the superuser's way to the database postgres.
func (s *PostgresServer) URL() string { return s.URLFor(superuser, "", "postgres") }

// URLFor is the way of a user to a database.
func (s *PostgresServer) URLFor(user, password, database string) string {
	return URLVia(s.Addr(), user, password, database)
}

// URLVia is the way of a user to a database of the server behind addr, which
// may be a proxy.
func URLVia(addr, user, password, database string) string {
	u := url.URL{Scheme: "postgres", Host: addr, Path: "/" + database, User: url.User(user), RawQuery: "sslmode=disable"}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}

// Exec runs one statement as the superuser in the database postgres.
func (s *PostgresServer) Exec(ctx context.Context, sql string, args ...any) error {
	return s.as(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// One runs a query as Exec does and returns the one value of its one row, which
// must be text: cast what is not.
func (s *PostgresServer) One(ctx context.Context, sql string, args ...any) (string, error) {
	var value string
	err := s.as(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, sql, args...).Scan(&value) })
	return value, err
}

func (s *PostgresServer) as(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	return errors.Join(f(conn), conn.Close(ctx))
}
