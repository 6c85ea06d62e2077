package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"

	"modernc.org/sqlite"

	"github.com/streamhouse/streamhouse/domain"
)

// conn is one connection with the statements prepared on it. It has one user
// at a time. Statements run to their end: no context interrupts them, so that an error is
// always SQLite's own answer.
type conn struct {
	dc    driver.Conn
	stmts map[*query]driver.Stmt
	args  []driver.NamedValue
	dest  []driver.Value
	// topics remembers numbers of topics. A number is never given twice, so
	// only whether a topic still exists can change, and that is asked each time.
	topics map[domain.TopicID]int64
	memo   *memo // nil if there is none
}

// query is the text of a statement; its address is its identity.
type query struct{ text string }

// dial opens the existing database file at path. Params are parameters of an
// SQLite URI, such as mode and immutable.
func dial(path string, params url.Values) (*conn, error) {
	uri := url.URL{Scheme: "file", Path: path, RawQuery: params.Encode()}
	connector, err := sqlite.NewConnector(uri.String())
	if err != nil {
		return nil, err
	}
	dc, err := connector.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	return &conn{dc: dc, stmts: make(map[*query]driver.Stmt), topics: make(map[domain.TopicID]int64)}, nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.dc.Close())...)
}

// run executes text once, without keeping it prepared.
func (c *conn) run(text string) error {
	_, err := c.dc.(driver.ExecerContext).ExecContext(context.Background(), text, nil)
	return err
}

// value runs a query of one row and one column.
func (c *conn) value(text string) (driver.Value, error) {
	q := query{text}
	var v driver.Value
	err := c.query(&q, func(r *row) error {
		v = r.values[0]
		return nil
	})
	if s := c.stmts[&q]; s != nil {
		delete(c.stmts, &q)
		err = errors.Join(err, s.Close())
	}
	return v, err
}

func (c *conn) exec(q *query, args ...driver.Value) error {
	s, err := c.prepared(q)
	if err != nil {
		return err
	}
	_, err = s.(driver.StmtExecContext).ExecContext(context.Background(), c.named(args))
	return err
}

// errStop ends a query before its last row.
var errStop = errors.New("no more rows wanted")

// query calls scan with each row. The row is scan's only until it returns;
// strings and slices in it may be kept.
func (c *conn) query(q *query, scan func(*row) error, args ...driver.Value) error {
	s, err := c.prepared(q)
	if err != nil {
		return err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(context.Background(), c.named(args))
	if err != nil {
		return err
	}
	err = c.walk(rows, scan)
	if closed := rows.Close(); err == nil {
		err = closed
	}
	return err
}

func (c *conn) walk(rows driver.Rows, scan func(*row) error) error {
	r := row{values: c.columns(len(rows.Columns()))}
	for {
		if err := rows.Next(r.values); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		err := scan(&r)
		if r.err != nil {
			return r.err
		}
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *conn) columns(n int) []driver.Value {
	if cap(c.dest) < n {
		c.dest = make([]driver.Value, n)
	}
	return c.dest[:n]
}

func (c *conn) prepared(q *query) (driver.Stmt, error) {
	if s := c.stmts[q]; s != nil {
		return s, nil
	}
	s, err := c.dc.(driver.ConnPrepareContext).PrepareContext(context.Background(), q.text)
	if err != nil {
		return nil, err
	}
	c.stmts[q] = s
	return s, nil
}

func (c *conn) named(args []driver.Value) []driver.NamedValue {
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return c.args
}

// row is a row of a result. A column of another type than the one asked for can
// only come from a damaged file: it reads as zero, and the query fails.
type row struct {
	values []driver.Value
	err    error
}

func column[T any](r *row, i int) T {
	v, ok := r.values[i].(T)
	if !ok {
		r.err = damagedError(fmt.Sprintf("column %d holds a %T, not a %T", i, r.values[i], v))
	}
	return v
}

func (r *row) int(i int) int64   { return column[int64](r, i) }
func (r *row) text(i int) string { return column[string](r, i) }
func (r *row) blob(i int) []byte { return column[[]byte](r, i) }
func (r *row) null(i int) bool   { return r.values[i] == nil }

// uuid reads an identifier of 16 bytes.
func (r *row) uuid(i int) (u domain.UUID) {
	if b := r.blob(i); copy(u[:], b) != len(u) || len(b) != len(u) {
		r.err = damagedError(fmt.Sprintf("column %d holds %d bytes, not an identifier", i, len(b)))
	}
	return u
}
