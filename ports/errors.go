package ports

import (
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/domain"
)

// Kind answers, for a failed call on a port, whether it had its effect.
type Kind uint8

const (
	// Ambiguous: the call may have had its effect, or may still have it. The
	// same call again is safe and settles it. Errors of no declared kind, and a context
	// that ended during a call with an effect, are ambiguous.
	Ambiguous Kind = iota
	// Transient: the call had no effect and never will; the same call may
	// succeed later.
	Transient
	// Definite: the call had no effect, and would fail again as it is.
	Definite
	// Fatal: the store refuses everything from now on, because going on could
	// lose data. Whether this call had its effect is unknown.
	Fatal
)

func (k Kind) String() string {
	switch k {
	case Transient:
		return "transient"
	case Definite:
		return "definite"
	case Fatal:
		return "fatal"
	default:
		return "ambiguous"
	}
}

// Error is how a port reports a failure of the technology behind it. Op says
// what was tried and on what: "commit segment 0190...". Class is the domain
// sentinel it belongs to: domain.ErrMetadata, ErrStorage, ErrAgent.
type Error struct {
	Class error
	Op    string
	Kind  Kind
	Err   error
}

// MetadataError makes an Error of class domain.ErrMetadata.
func MetadataError(op string, kind Kind, err error) error {
	return &Error{Class: domain.ErrMetadata, Op: op, Kind: kind, Err: err}
}

// StorageError makes an Error of class domain.ErrStorage.
func StorageError(op string, kind Kind, err error) error {
	return &Error{Class: domain.ErrStorage, Op: op, Kind: kind, Err: err}
}

func (e *Error) Error() string { return fmt.Sprintf("%v: %s: %v", e.Class, e.Op, e.Err) }

// Unwrap lets both the class and the cause match.
func (e *Error) Unwrap() []error { return []error{e.Class, e.Err} }

// Fate implements the interface that domain.FateOf looks for.
func (e *Error) Fate() domain.Fate {
	switch e.Kind {
	case Transient:
		return domain.Fate{Stored: domain.StoredNo, Retry: true}
	case Definite:
		return domain.Fate{Stored: domain.StoredNo}
	case Fatal:
		return domain.Fate{Fatal: true}
	default:
		return domain.Fate{Retry: true}
	}
}

// KindOf returns the kind of a non-nil error from a port: that of the outermost
// *Error in its chain; Definite for the domain errors that say that nothing was stored;
// Ambiguous for all others.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	switch fate := domain.FateOf(err); {
	case fate.Stored == domain.StoredNo && fate.Retry:
		return Transient
	case fate.Stored == domain.StoredNo:
		return Definite
	default:
		return Ambiguous
	}
}

// What a SegmentStore answers about objects; matched with errors.Is.
var (
	ErrObjectExists   = errors.New("object exists")
	ErrObjectNotFound = errors.New("object not found")
)
