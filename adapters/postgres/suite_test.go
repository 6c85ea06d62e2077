package postgres

import (
	"context"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Main(m)) }

// opened is a store and how to open it again.
type opened struct {
	*Store
	url     string
	options Options
}

var schemas atomic.Int64

// with returns the URL with a parameter more.
func with(t testing.TB, to, name, value string) string {
	t.Helper()
	u := must[*url.URL](t)(url.Parse(to))
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// newURL leads to a schema of its own in the shared server, which does not exist yet.
func newURL(t testing.TB) string {
	t.Helper()
	s := servers.SharedPostgres(t)
	return with(t, s.URL(), "schema", fmt.Sprintf("streamhouse_%d", schemas.Add(1)))
}

func newTest(t testing.TB, o Options) *opened {
	t.Helper()
	to := newURL(t)
	s := openTest(t, to, o)
	t.Cleanup(func() {
		schema := quoted(s.schema)
		if err := servers.SharedPostgres(t).Exec(context.Background(), "DROP SCHEMA "+schema+" CASCADE"); err != nil {
			t.Errorf("drop %s: %v", schema, err)
		}
	})
	return s
}

func openTest(t testing.TB, to string, o Options) *opened {
	t.Helper()
	s := must[*Store](t)(Open(t.Context(), to, o))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &opened{s, to, o}
}

// must ends the test if err is not nil.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// connect opens a plain connection to the store's schema.
func (o *opened) connect(t testing.TB) *pgx.Conn {
	t.Helper()
	target := must[*target](t)(parseURL(o.url, o.options))
	c := must[*pgx.Conn](t)(pgx.ConnectConfig(context.Background(), target.pool.ConnConfig))
	return c
}

// execute runs one statement in the store's schema.
func (o *opened) execute(t testing.TB, statement string, args ...any) {
	t.Helper()
	c := o.connect(t)
	defer closeConn(c)
	if _, err := c.Exec(context.Background(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// shiftClock makes the store's clock, and that of all stores on its schema, run
// d milliseconds ahead: everything takes the time from one function.
const shiftClock = `CREATE OR REPLACE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE
	AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + %d'`

func (o *opened) advance(t testing.TB, d time.Duration) {
	t.Helper()
	c := o.connect(t)
	defer closeConn(c)
	var ahead int64
	if err := c.QueryRow(t.Context(), "SELECT now_ms() - (extract(epoch FROM clock_timestamp()) * 1000)::bigint").Scan(&ahead); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), fmt.Sprintf(shiftClock, ahead+d.Milliseconds())); err != nil {
		t.Fatal(err)
	}
}

func TestStore_KeepsTheContract(t *testing.T) {
	again := func(t *testing.T, s ports.MetadataStore) ports.MetadataStore {
		return openTest(t, s.(*opened).url, Options{})
	}
	portstest.TestMetadataStore(t,
		func(t *testing.T) ports.MetadataStore { return newTest(t, Options{}) },
		portstest.ReopenWith(again),
		portstest.ShareWith(again),
		portstest.AdvanceWith(func(t *testing.T, s ports.MetadataStore, d time.Duration) { s.(*opened).advance(t, d) }),
		portstest.RaiseEpochWith(func(t *testing.T, s ports.MetadataStore, name string, epoch domain.Epoch) {
			s.(*opened).execute(t, "UPDATE producers SET epoch = $1 WHERE name = $2", int16(epoch), name)
		}),
		portstest.CheckWith(func(t *testing.T, s ports.MetadataStore) { checkInvariants(t, s.(*opened)) }),
	)
}

func BenchmarkStore(b *testing.B) {
	portstest.BenchmarkMetadataStore(b, func(t testing.TB) ports.MetadataStore { return newTest(t, Options{}) })
}
