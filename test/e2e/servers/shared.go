package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Runner runs tests, as [testing.M] does.
type Runner interface{ Run() int }

// Main returns tests after which the shared servers are ended. Without it no
// test gets a shared server.
func Main(tests Runner) Runner { return &sharing{tests} }

type sharing struct{ tests Runner }

func (s *sharing) Run() int {
	shared.Lock()
	shared.allowed = true
	shared.Unlock()
	code := s.tests.Run()
	if err := endShared(); err != nil {
		fmt.Fprintf(os.Stderr, "end the shared servers: %v\n", err)
		return max(code, 1)
	}
	return code
}

// shared are the servers of this test binary.
var shared struct {
	sync.Mutex
	allowed     bool
	postgres    *PostgresServer
	postgresErr error
	s3          *S3Server
	s3Err       error
}

var errNoMain = errors.New("a shared server needs a TestMain that runs servers.Main(m)")

func endShared() error {
	shared.Lock()
	defer shared.Unlock()
	shared.allowed = false
	var errs []error
	if shared.postgres != nil {
		errs = append(errs, shared.postgres.remove())
	}
	if shared.s3 != nil {
		errs = append(errs, shared.s3.remove())
	}
	shared.postgres, shared.s3 = nil, nil
	return errors.Join(errs...)
}

// SharedPostgres is the server of all tests of this test binary, started on the
// first call. Nobody may stop it, or change what belongs to all its databases.
func SharedPostgres(tb testing.TB) *PostgresServer {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	switch {
	case !shared.allowed:
		tb.Fatal(errNoMain)
	case shared.postgres == nil && shared.postgresErr == nil:
		shared.postgres, shared.postgresErr = newPostgres(nil, (*PostgresServer).initialize)
	}
	if shared.postgresErr != nil {
		tb.Fatalf("the shared PostgreSQL: %v", shared.postgresErr)
	}
	return shared.postgres
}

// SharedS3 is the S3 server of all tests of this test binary, started on the
// first call. Nobody may stop it.
func SharedS3(tb testing.TB) *S3Server {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	switch {
	case !shared.allowed:
		tb.Fatal(errNoMain)
	case shared.s3 == nil && shared.s3Err == nil:
		shared.s3, shared.s3Err = newS3()
	}
	if shared.s3Err != nil {
		tb.Fatalf("the shared S3 server: %v", shared.s3Err)
	}
	return shared.s3
}

// Database is the superuser's way to a new database on the shared server.
func Database(tb testing.TB) (url string) {
	tb.Helper()
	server := SharedPostgres(tb)
	return server.URLFor(superuser, "", server.Database(tb))
}

// Bucket is the shared S3 server and a new bucket on it.
func Bucket(tb testing.TB) (server *S3Server, bucket string) {
	tb.Helper()
	server = SharedS3(tb)
	return server, server.NewBucket(tb)
}

// made counts databases and buckets, so that each has a name of its own.
var made atomic.Int64

// Database makes an empty database and returns its name. It is dropped at the
// end of tb, with all sessions in it, if the server is up then.
func (s *PostgresServer) Database(tb testing.TB) (name string) {
	tb.Helper()
	name = fmt.Sprintf("test_%d", made.Add(1))
	quoted := pgx.Identifier{name}.Sanitize()
	if err := s.Exec(tb.Context(), "create database "+quoted); err != nil {
		tb.Fatalf("make a database: %v", err)
	}
	tb.Cleanup(func() {
		if s.running == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
		defer cancel()
		failing(tb, "drop a database", func() error { return s.Exec(ctx, "drop database "+quoted+" with (force)") })
	})
	return name
}
