package localfs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// syncError is a folder that could not be synced. The kernel may have marked
// its changes as written, so that a second sync would succeed and mean nothing: no later
// answer of the store could be trusted.
type syncError struct {
	folder string
	err    error
}

func (e *syncError) Error() string { return fmt.Sprintf("sync folder %s: %v", e.folder, e.err) }
func (e *syncError) Unwrap() error { return e.err }

// unclearError is a failure after which the effect is open, but not the store's
// sanity.
type unclearError struct{ err error }

func (e *unclearError) Error() string { return e.err.Error() }
func (e *unclearError) Unwrap() error { return e.err }

// fail turns the outcome of a call into the port's error, and breaks the store
// if a folder could not be synced. Nil stays nil.
func (s *Store) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	kind := kindOf(err)
	if kind == ports.Fatal {
		s.broken.CompareAndSwap(nil, &err)
	}
	return ports.StorageError(op, kind, err)
}

// openError turns the failure of a call on a folder that serves nobody yet into
// the port's error.
func openError(op string, err error) error {
	kind := kindOf(err)
	if kind == ports.Fatal {
		kind = ports.Definite // a file system that cannot sync folders
	}
	return ports.StorageError(op, kind, err)
}

// definite are the causes that stay until somebody changes something.
var definite = []error{
	ports.ErrObjectExists, ports.ErrObjectNotFound, domain.ErrCorrupt,
	unix.EACCES, unix.EPERM, unix.EROFS, unix.ENOTDIR, unix.EISDIR,
	unix.ELOOP, unix.ENAMETOOLONG, unix.EFBIG,
}

// linkError is a failed change of a folder. Some causes say that the change was
// refused; after the rest, as of a disk or network in trouble, it may be there.
func linkError(err error) error {
	for _, cause := range append(slices.Clip(definite), unix.ENOENT, unix.ENOSPC, unix.EDQUOT, unix.EMLINK, unix.ENOMEM) {
		if errors.Is(err, cause) {
			return err
		}
	}
	return &unclearError{err}
}

// kindOf says what a failure means. Whatever fails before the link of a Put
// leaves nothing: the file has no name yet, so its errors, those of its own sync included, are
// Transient; a retry writes a new file.
func kindOf(err error) ports.Kind {
	var (
		unsynced *syncError
		unclear  *unclearError
	)
	switch {
	case errors.As(err, &unsynced):
		return ports.Fatal
	case errors.As(err, &unclear):
		return ports.Ambiguous
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return ports.Transient
	}
	for _, cause := range definite {
		if errors.Is(err, cause) {
			return ports.Definite
		}
	}
	return ports.Transient
}
