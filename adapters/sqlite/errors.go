package sqlite

import (
	"context"
	"errors"
	"fmt"

	lib "modernc.org/sqlite/lib"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// phase is how far a transaction had come when an error showed.
type phase uint8

const (
	// atStatement: COMMIT was not sent, so a rollback undoes everything.
	atStatement phase = iota
	// atCommit: COMMIT was sent.
	atCommit
)

// coded is SQLite's error, with its extended result code.
type coded interface {
	error
	Code() int
}

// damagedError says that what the file holds cannot have been written by us.
type damagedError string

func (e damagedError) Error() string { return "database file is damaged: " + string(e) }

// errReplaced: the path no longer leads to the file that is open.
var errReplaced = errors.New("the database file was removed or replaced while it was open; what would be committed to it now could not be found again")

// kindOf says what a failure with SQLite's extended result code means for the
// transaction in which it shows.
func kindOf(code int, p phase) ports.Kind {
	switch code {
	case lib.SQLITE_IOERR_FSYNC, lib.SQLITE_IOERR_DIR_FSYNC:
		// The kernel may have marked the pages clean: the next sync would
		// succeed without having written them.
		return ports.Fatal
	case lib.SQLITE_IOERR_DATA, lib.SQLITE_IOERR_CORRUPTFS:
		return ports.Fatal
	}
	switch code & 0xff {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return ports.Fatal
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_ERROR, lib.SQLITE_MISUSE, lib.SQLITE_RANGE, lib.SQLITE_MISMATCH, lib.SQLITE_INTERNAL:
		// Our bug: what we believe about the rows is wrong.
		return ports.Fatal
	case lib.SQLITE_FULL:
		// Also at COMMIT: the frame that makes a transaction valid in the log is
		// the last to be written, so if one could not be written none counts.
		return ports.Transient
	}
	if p == atCommit {
		return ports.Ambiguous
	}
	switch code & 0xff {
	case lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_AUTH, lib.SQLITE_TOOBIG:
		return ports.Definite
	}
	return ports.Transient
}

// busy reports that another connection holds a lock that err's statement needs.
func busy(err error) bool {
	var e coded
	if !errors.As(err, &e) {
		return false
	}
	primary := e.Code() & 0xff
	return primary == lib.SQLITE_BUSY || primary == lib.SQLITE_LOCKED
}

// corrupt reports that SQLite found pages that do not fit together.
func corrupt(err error) bool {
	var e coded
	return errors.As(err, &e) && e.Code()&0xff == lib.SQLITE_CORRUPT
}

// fromDriver reports whether err came out of SQLite or its driver, and not from
// a decision of ours.
func fromDriver(err error) bool {
	var e coded
	var d damagedError
	return errors.As(err, &e) || errors.As(err, &d) || errors.Is(err, errReplaced)
}

// fail turns an error of the transaction op into the port's, and stops the
// store if it is fatal. Errors of the domain and of the port pass as they are.
func (s *Store) fail(op string, p phase, err error) error {
	if !fromDriver(err) {
		return s.passed(op, p, err)
	}
	kind := ports.Fatal
	var e coded
	if errors.As(err, &e) {
		kind = kindOf(e.Code(), p)
		err = explained(e)
	}
	if kind == ports.Fatal {
		s.stop(err)
	}
	return ports.MetadataError(op, kind, err)
}

// passed gives an error that SQLite has no part in: a refusal of ours, or the end of
// the context.
func (s *Store) passed(op string, p phase, err error) error {
	var known interface{ Fate() domain.Fate }
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.As(err, &known):
		return err
	}
	if p == atCommit {
		return ports.MetadataError(op, ports.Ambiguous, err)
	}
	return ports.MetadataError(op, ports.Transient, err)
}

// explained adds to SQLite's own words what they mean here.
func explained(e coded) error {
	switch e.Code() & 0xff {
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_ERROR, lib.SQLITE_MISUSE, lib.SQLITE_RANGE, lib.SQLITE_MISMATCH, lib.SQLITE_INTERNAL:
		return fmt.Errorf("%w: a statement broke a rule of the schema, which is a bug in StreamHouse; nothing more is written: %w", domain.ErrInternal, e)
	case lib.SQLITE_FULL:
		return fmt.Errorf("disk full, nothing was stored: %w", e)
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return fmt.Errorf("database file is damaged, nothing more is read or written: %w", e)
	}
	if e.Code() == lib.SQLITE_IOERR_FSYNC {
		return fmt.Errorf("a sync of the disk failed, so no later one can be believed; nothing more is written: %w", e)
	}
	return e
}

// stop makes every later call fail.
func (s *Store) stop(cause error) { s.stopped.CompareAndSwap(nil, &cause) }
