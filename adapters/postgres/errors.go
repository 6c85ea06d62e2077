package postgres

import (
	"errors"
	"fmt"
	"net"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// phase is how far a call had come when an error showed.
type phase uint8

const (
	// reading: the call has no effect.
	reading phase = iota
	// undone: what makes the change last, COMMIT or a statement that is a
	// transaction of its own, was not sent, so the server rolls back.
	undone
	// sent: it was sent, the server refused it before it was complete, and the
	// connection is fine: that is an abort.
	sent
	// completed: it was sent, and the server said that it is complete before
	// the error came, or may have said so to a connection that is no more.
	completed
)

// errNotReplicated: the server committed, but somebody cancelled its wait for
// the synchronous standby.
var errNotReplicated = errors.New("the wait for the synchronous standby was cancelled: the change may be lost in a failover until it is committed again")

// errSettings: what we asked of the session in the start-up message is not so.
var errSettings = errors.New("a connection pooler between here and the server drops session settings: connect to the server itself, or to a pooler in session mode that passes them on")

// fail turns err into the port's error, and stops the store if err is fatal.
// Errors of the domain pass as they are: they are answers.
func (s *Store) fail(op string, p phase, err error) error {
	var known interface{ Fate() domain.Fate }
	if errors.As(err, &known) && !errors.Is(err, domain.ErrInternal) {
		return err
	}
	kind, err := judge(p, err)
	if kind == ports.Fatal {
		s.stop(err)
	}
	return ports.MetadataError(op, kind, err)
}

// judge says of which kind err is, and adds to the server's words what they
// mean here.
func judge(p phase, err error) (ports.Kind, error) {
	switch {
	case errors.Is(err, domain.ErrInternal):
		return ports.Fatal, err
	case errors.Is(err, errNotReplicated):
		return ports.Ambiguous, err
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return unanswered(p, err)
	}
	if kind := kindOf(e.Code); kind == ports.Fatal {
		return kind, explained(e)
	}
	if p == completed {
		return ports.Ambiguous, explained(e)
	}
	return kindOf(e.Code), explained(e)
}

// unanswered judges an error that did not come from the server. What pgx says of
// it (pgconn.SafeToRetry) is not asked: a connection that is lost while COMMIT is on the way may read as "conn
// closed", which claims that nothing was sent.
func unanswered(p phase, err error) (ports.Kind, error) {
	err = unreached(err)
	if p == reading || p == undone {
		return ports.Transient, err
	}
	return ports.Ambiguous, err
}

// unreachedError is a server that could not be reached, in one line: pgx lists
// each attempt in a line of its own, and names the user.
type unreachedError struct {
	err  error
	last error // the network's word on the last attempt
}

func (e *unreachedError) Error() string {
	return fmt.Sprintf("the server cannot be reached (%v): check host and port, and that it runs", e.last)
}

func (e *unreachedError) Unwrap() error { return e.err }

// unreached gives the errors of attempts to connect their short form.
func unreached(err error) error {
	var connect *pgconn.ConnectError
	var dial *net.OpError
	if errors.As(err, &connect) && errors.As(err, &dial) && dial.Op == "dial" {
		return &unreachedError{err, dial}
	}
	return err
}

// kindOf judges the server's refusal of a statement, which is always an abort.
func kindOf(code string) ports.Kind {
	switch code {
	case "42501", "28000", "28P01", "3D000", "0LP01":
		return ports.Definite // an administrator has to act
	case "0A000":
		return ports.Transient // a plan that a migration has made invalid
	case "XX001", "XX002":
		return ports.Fatal // damaged data
	}
	switch code[:min(2, len(code))] {
	case "22", "23", "42", "3F", "21":
		return ports.Fatal // our bug: what we believe of the rows is wrong
	}
	return ports.Transient
}

// again reports whether the same transaction is likely to succeed at once.
func again(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "40001", "40P01", "55P03", "57014", "0A000":
		return true
	}
	return false
}

// explained adds to the server's words what they mean here, if that is not
// plain.
func explained(e *pgconn.PgError) error {
	if kindOf(e.Code) == ports.Fatal && e.Code[:2] != "XX" {
		return fmt.Errorf("%w: a statement broke a rule of the schema, which is a bug in StreamHouse or a change by another hand; nothing more is written: %w", domain.ErrInternal, told(e))
	}
	meaning := map[string]string{
		"57P01": "the server was told to shut down or to end this connection",
		"57P02": "another process of the server crashed",
		"57P03": "the server is starting up, shutting down or recovering",
		"57P05": "the server ended an idle connection",
		"53300": "the server has no connection left: raise max_connections or lower pool_max_conns",
		"53100": "the server's disk is full, nothing was stored",
		"53200": "the server is out of memory",
		"25006": "the server is read-only, as after a failover to another one",
		"42501": "the database user lacks a privilege: see the grants in docs/postgres.md",
		"28P01": "the password was refused",
		"28000": "the server refuses this user or this address",
		"3D000": "the database does not exist: create it first",
		"55P03": "another transaction holds a lock for too long",
		"XX001": "the server found damaged data, nothing more is read or written",
		"XX002": "the server found a damaged index, nothing more is read or written",
	}[e.Code]
	if meaning == "" {
		return told(e)
	}
	return fmt.Errorf("%s: %w", meaning, told(e))
}

// serverError is the server's error with its place in our functions.
type serverError struct{ *pgconn.PgError }

func told(e *pgconn.PgError) error { return serverError{e} }

func (e serverError) Error() string {
	text := e.PgError.Error()
	if e.Where != "" && kindOf(e.Code) == ports.Fatal {
		text += " at " + e.Where
	}
	return text
}

func (e serverError) Unwrap() error { return e.PgError }

// stop makes every later call fail.
func (s *Store) stop(cause error) { s.stopped.CompareAndSwap(nil, &cause) }
