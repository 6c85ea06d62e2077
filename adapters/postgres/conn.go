package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// warnings notes that the server told of a cancelled wait for its standby. It
// belongs to one connection and is used by whoever uses that.
type warnings struct{ conn *pgconn.PgConn }

// warned is the key of what a connection notes.
const warned = "streamhouse.warned"

func warningsOf(c *pgx.Conn) warnings { return warnings{c.PgConn()} }

func (w warnings) reset() { delete(w.conn.CustomData(), warned) }

func (w warnings) seen() bool { return w.conn.CustomData()[warned] != nil }

// onNotice hears the server's notices. SQLSTATE 01000 beside a commit is how it
// tells that the commit may not be on the standby.
func onNotice(c *pgconn.PgConn, n *pgconn.Notice) {
	if n.Code == "01000" {
		c.CustomData()[warned] = true
	}
}

// server is what a new connection finds out about its server.
type server struct {
	version     int
	versionText string
	recovery    bool
	fsync       string
	pageWrites  string
	synchronous string
	path        string
	isolation   string
	pid         int
}

// synchronous_commit is set to what it is, so that a later change of the server's
// settings does not weaken the commits of this session.
const inspectServer = `SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
	current_setting('fsync'), current_setting('full_page_writes'),
	set_config('synchronous_commit', current_setting('synchronous_commit'), false),
	current_setting('search_path'), current_setting('default_transaction_isolation'), pg_backend_pid()`

func inspect(ctx context.Context, c *pgx.Conn) (v server, err error) {
	err = c.QueryRow(ctx, inspectServer).Scan(&v.version, &v.versionText, &v.recovery, &v.fsync, &v.pageWrites,
		&v.synchronous, &v.path, &v.isolation, &v.pid)
	return v, err
}

const oldest = 140_000 // PostgreSQL 14

// acceptable refuses a server that would lose what it acknowledged, each reason
// in a sentence.
func (v server) acceptable(schema string, o Options) error {
	var errs []error
	refuse := func(when bool, override string, accepted bool, reason string) {
		if when && !accepted {
			errs = append(errs, refusedError(reason+" (override: "+override+"=true)"))
		}
	}
	refuse(v.version < oldest, "unsafe_server_version", o.UnsafeServerVersion,
		fmt.Sprintf("the server is PostgreSQL %s: 14 or later is needed", v.versionText))
	refuse(v.recovery, "unsafe_standby", o.UnsafeStandby, "the server is in recovery: connect to the primary")
	refuse(v.fsync != "on", "unsafe_fsync_off", o.UnsafeFsyncOff,
		"the server runs with fsync="+v.fsync+": a power cut may destroy the database; set fsync=on")
	refuse(v.pageWrites != "on", "unsafe_full_page_writes_off", o.UnsafeFullPageWritesOff,
		"the server runs with full_page_writes="+v.pageWrites+": a power cut may tear its pages; set full_page_writes=on")
	refuse(v.synchronous == "off", "unsafe_synchronous_commit", o.UnsafeSynchronousCommit,
		"synchronous_commit is off: a crash of the server would lose acknowledged records; set it to on for this user or database")
	refuse(v.synchronous == "local", "unsafe_synchronous_commit", o.UnsafeSynchronousCommit,
		"synchronous_commit is local: a failover would lose acknowledged records; set it to on for this user or database")
	if v.path != quoted(schema) || v.isolation != "read committed" {
		errs = append(errs, errSettings)
	}
	return errors.Join(errs...)
}

// refusedError says why a server is refused.
type refusedError string

func (e refusedError) Error() string { return string(e) }

// dialing paces new connections while the server cannot be reached, so that its
// return is not met by a storm. It is the pool's tracer, which is how it learns how dialing went.
type dialing struct {
	mu    sync.Mutex // guards all below
	fails int
	next  time.Time // no connection is begun before
}

const (
	firstRetry = 20 * time.Millisecond
	lastRetry  = time.Second
)

// before waits until the next connection may be begun.
func (d *dialing) before(ctx context.Context, _ *pgx.ConnConfig) error {
	d.mu.Lock()
	wait := time.Until(d.next)
	d.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TraceConnectStart implements pgx.ConnectTracer.
func (d *dialing) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

// TraceConnectEnd implements pgx.ConnectTracer.
func (d *dialing) TraceConnectEnd(_ context.Context, e pgx.TraceConnectEndData) {
	if e.Err == nil {
		d.succeed()
	} else {
		d.fail()
	}
}

func (d *dialing) succeed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails, d.next = 0, time.Time{}
}

// fail puts the next connection off, further with each failure, and by chance.
func (d *dialing) fail() {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := min(firstRetry<<min(d.fails, 10), lastRetry)
	d.fails++
	d.next = time.Now().Add(wait/2 + rand.N(wait))
}

// TraceQueryStart implements pgx.QueryTracer, which a tracer has to be.
func (d *dialing) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (d *dialing) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// closeConn closes a connection without waiting for a server that is gone.
func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}
