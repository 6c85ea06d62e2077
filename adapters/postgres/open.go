package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// Open opens the metadata store at a URL
//
//	postgres://user:password@host:port/database?schema=streamhouse&pool_max_conns=8
//
// and brings its schema up to date; a schema that does not exist is created. Parameters
// that are not ours, such as sslmode, are pgx's; see docs/postgres.md for all.
//
// Open refuses a server that may lose what it acknowledged, unless o or the URL accepts it:
// see Options. It refuses a schema newer than this program, missing privileges, and a connection pooler that
// gives one session's statements to several servers' sessions.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	t, err := parseURL(url, o)
	if err != nil {
		return nil, err
	}
	op := fmt.Sprintf("open postgres %s schema %s", t.name, t.schema)
	s, err := open(ctx, t)
	if err != nil {
		return nil, refusal(op, err)
	}
	return s, nil
}

// refusal gives the error of an Open that failed.
func refusal(op string, err error) error {
	var refused refusedError
	if errors.As(err, &refused) || errors.Is(err, errSettings) {
		return ports.MetadataError(op, ports.Definite, err)
	}
	kind, err := judge(undone, err)
	if kind == ports.Fatal { // nothing was stored, and there is no store to stop
		kind = ports.Definite
	}
	return ports.MetadataError(op, kind, err)
}

func open(ctx context.Context, t *target) (*Store, error) {
	s := &Store{name: t.name, schema: t.schema, options: t.options, dialing: new(dialing)}
	t.pool.ConnConfig.OnNotice = onNotice
	if err := s.prepare(ctx, t); err != nil {
		return nil, err
	}
	t.pool.ConnConfig.Tracer = s.dialing
	t.pool.BeforeConnect = s.dialing.before
	t.pool.AfterConnect = s.greet
	t.pool.PingTimeout = 5 * time.Second
	t.pool.MaxConnIdleTime = 5 * time.Minute
	var err error
	if s.pool, err = pgxpool.NewWithConfig(ctx, t.pool); err != nil {
		return nil, err
	}
	s.notify = newNotifier(s.sendNotification)
	s.wakes.Watch = func(done <-chan struct{}) { s.listen(done, t.pool.ConnConfig) }
	return s, nil
}

// greet checks a new connection, which may lead to another server than the last.
func (s *Store) greet(ctx context.Context, c *pgx.Conn) error {
	v, err := inspect(ctx, c)
	if err != nil {
		return err
	}
	return v.acceptable(s.schema, s.options)
}

// prepare checks the server and brings the schema up to date, over a connection
// of its own.
func (s *Store) prepare(ctx context.Context, t *target) error {
	c, err := pgx.ConnectConfig(ctx, t.pool.ConnConfig)
	if err != nil {
		return err
	}
	defer closeConn(c)
	v, err := inspect(ctx, c)
	if err != nil {
		return err
	}
	if err := v.acceptable(t.schema, t.options); err != nil {
		return err
	}
	if err := notPooled(ctx, t, v.pid); err != nil {
		return err
	}
	if err := migrated(ctx, c, t, v.recovery); err != nil {
		return err
	}
	if err := permitted(ctx, c); err != nil {
		return err
	}
	var id [16]byte
	if err := c.QueryRow(ctx, "SELECT cluster_id FROM cluster").Scan(&id); err != nil {
		return err
	}
	s.cluster = domain.ClusterID(id)
	return nil
}

// notPooled refuses a pooler in transaction mode: it lets two connections share
// one session of the server, whose settings, prepared statements and notifications then are
// anybody's. Pid is the session of a connection that is open.
func notPooled(ctx context.Context, t *target, pid int) error {
	c, err := pgx.ConnectConfig(ctx, t.pool.ConnConfig)
	if err != nil {
		return err
	}
	defer closeConn(c)
	v, err := inspect(ctx, c)
	if err == nil && v.pid == pid {
		err = refusedError("a connection pooler gives one session of the server to several connections, as PgBouncer does in transaction mode: " +
			"connect to the server itself, or to a pooler in session mode")
	}
	return err
}

// needs lists the privileges that the store uses, by table.
const needs = `SELECT n.what FROM (VALUES
	('cluster', 'SELECT'), ('topics', 'SELECT'), ('topics', 'INSERT'), ('topics', 'UPDATE'), ('topics', 'DELETE'),
	('partitions', 'SELECT'), ('partitions', 'INSERT'), ('partitions', 'UPDATE'), ('partitions', 'DELETE'),
	('segments', 'SELECT'), ('segments', 'INSERT'), ('segments', 'UPDATE'), ('segments', 'DELETE'),
	('extents', 'SELECT'), ('extents', 'INSERT'), ('extents', 'UPDATE'), ('extents', 'DELETE'),
	('producers', 'SELECT'), ('producers', 'INSERT'), ('producers', 'UPDATE'), ('producers', 'DELETE'),
	('agents', 'SELECT'), ('agents', 'INSERT'), ('agents', 'UPDATE'), ('agents', 'DELETE'),
	('producer_partitions', 'SELECT'), ('producer_partitions', 'INSERT'), ('producer_partitions', 'UPDATE'), ('producer_partitions', 'DELETE')
	) AS t(name, privilege), LATERAL (SELECT t.privilege || ' on ' || t.name AS what) AS n
	WHERE NOT has_table_privilege(quote_ident(current_schema()) || '.' || t.name, t.privilege)
	UNION ALL SELECT 'EXECUTE on function ' || p.proname FROM pg_proc AS p
	WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND NOT has_function_privilege(p.oid, 'EXECUTE')`

// permitted refuses a database user that lacks a privilege that would be missed
// later.
func permitted(ctx context.Context, c *pgx.Conn) error {
	var missing []string
	err := query(ctx, c, needs, func(r pgx.Rows) error {
		var what string
		err := r.Scan(&what)
		missing = append(missing, what)
		return err
	})
	if err == nil && len(missing) > 0 {
		err = refusedError("the database user lacks privileges: " + strings.Join(missing, ", ") + "; see the grants in docs/postgres.md")
	}
	return err
}
