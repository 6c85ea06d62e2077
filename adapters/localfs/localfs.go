// Package localfs keeps segments as files in a folder.
//
// An object is a file named by its key below the folder. It appears complete
// and synced, or not at all: a Put writes a file that has no name, syncs it, links it to
// the key's name, which fails if that is taken, and syncs the folder. Several processes may use
// one folder. Names that cannot be keys are left alone and not listed.
//
// It needs a Unix file system with hard links and a folder that can be synced.
package localfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// Planted bugs, see package mutant; test/e2e/powerloss must find each.
const (
	mutantFileNotSynced      mutant.ID = "localfs-file-not-synced"
	mutantFolderNotSynced    mutant.ID = "localfs-folder-not-synced"
	mutantNewFolderNotSynced mutant.ID = "localfs-new-folder-not-synced"
)

// Mutants lists the planted bugs of this package.
var Mutants = []mutant.ID{mutantFileNotSynced, mutantFolderNotSynced, mutantNewFolderNotSynced}

// Options changes how a store works. The zero value is safe.
type Options struct {
	// UnsafeNoSync leaves out every sync: what was acknowledged is lost when
	// the machine, not only the process, stops. Default false.
	UnsafeNoSync bool
}

// Store is a segment store in a folder.
type Store struct {
	dir     string
	options Options
	folders folders
	// spare is the file the next Put will use. Making one takes as long as a
	// third of a sync where the kernel has to read the inode's block first, and nothing of it
	// stays if the process ends.
	spare atomic.Pointer[unnamed]
	// named is set once the file system has refused a file without a name.
	named atomic.Bool
	steps steps
	// broken holds the first failed sync of a folder, see fail.
	broken atomic.Pointer[error]
}

var _ ports.SegmentStore = (*Store)(nil)

// Open opens the store in the folder dir. It makes the folder, and those above
// it, if they do not exist: dir itself readable by its owner only. It removes what Puts of
// processes that no longer live have left unfinished.
//
// The error is an *ports.Error, Definite if the folder cannot serve as it is.
func Open(dir string, options Options) (*Store, error) {
	op := "open folder " + dir
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, openError(op, err)
	}
	s := &Store{dir: abs, options: options}
	if err := s.open(); err != nil {
		return nil, openError(op, err)
	}
	return s, nil
}

func (s *Store) open() error {
	if err := s.makeRoot(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.folders.syncEntries(s, s.dir); err != nil {
		return err
	}
	return s.sweep()
}

// Put implements ports.SegmentStore. Body is read until Put returns and not
// after, also when ctx ends meanwhile.
func (s *Store) Put(ctx context.Context, key string, body []byte) error {
	op := "put object " + key
	if err := s.ready(ctx, op, key); err != nil {
		return err
	}
	if !s.steps.begin() {
		return closedError(op)
	}
	defer s.steps.end()
	path := s.path(key)
	if err := s.folders.ensure(s, filepath.Dir(path)); err != nil {
		return s.fail(op, err)
	}
	f, err := s.write(ctx, filepath.Dir(path), body)
	if err != nil {
		return s.fail(op, err)
	}
	return s.await(ctx, op, func(settled func(error)) {
		err := s.publish(f, path)
		settled(err)
		if err == nil {
			s.prepare(filepath.Dir(path))
		}
	})
}

// await runs a step that the disk may hold up for any time, and returns what it
// passes to settled; without it if ctx ends first. The step goes on in any case until it
// returns. The caller has begun.
func (s *Store) await(ctx context.Context, op string, step func(settled func(error))) error {
	settled := make(chan error, 1)
	s.steps.start(func() { step(func(err error) { settled <- s.fail(op, err) }) })
	select {
	case err := <-settled:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-settled:
		return err
	default:
		return ports.StorageError(op, ports.Ambiguous, ctx.Err())
	}
}

// publish gives the written file f its name, durably, and releases f.
func (s *Store) publish(f *unnamed, path string) error {
	defer f.discard()
	if !mutant.On(mutantFileNotSynced) {
		if err := s.syncFile(f.File); err != nil {
			return err
		}
	}
	err := s.link(f, path)
	if errors.Is(err, fs.ErrExist) {
		return s.taken(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		s.folders.forget()
	}
	if err != nil {
		return linkError(err)
	}
	if mutant.On(mutantFolderNotSynced) {
		return nil
	}
	return s.settle(path)
}

// settle makes the change of the name path durable.
func (s *Store) settle(path string) error {
	err := s.syncFolder(filepath.Dir(path))
	if unsynced := new(syncError); err != nil && !errors.As(err, &unsynced) {
		return &unclearError{err} // the folder could not even be opened
	}
	return err
}

// taken answers a Put whose name exists. The other Put may not have synced the
// folder yet, and whoever hears that the object exists may build on it.
func (s *Store) taken(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return &unclearError{err} // deleted this moment
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file: %w", path, unix.EISDIR)
	}
	if err := s.settle(path); err != nil {
		return err
	}
	return ports.ErrObjectExists
}

// Delete implements ports.SegmentStore.
func (s *Store) Delete(ctx context.Context, key string) error {
	op := "delete object " + key
	if err := s.ready(ctx, op, key); err != nil {
		return err
	}
	if !s.steps.begin() {
		return closedError(op)
	}
	defer s.steps.end()
	return s.await(ctx, op, func(settled func(error)) { settled(s.remove(s.path(key))) })
}

func (s *Store) remove(path string) error {
	err := unix.Unlink(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return linkError(&fs.PathError{Op: "unlink", Path: path, Err: err})
	}
	// Also if it was missing: an earlier Delete may not have got this far.
	err = s.settle(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is no such folder
	}
	return err
}

func (s *Store) path(key string) string { return filepath.Join(s.dir, filepath.FromSlash(key)) }

// Close waits for Puts and Deletes in progress, and what outlived them, but not
// for a disk that hangs. Calls after it return domain.ErrClosed. It may be called twice.
func (s *Store) Close() error {
	err := s.steps.close()
	if f := s.spare.Swap(nil); f != nil {
		f.discard()
	}
	if err != nil {
		return ports.StorageError("close folder "+s.dir, ports.Ambiguous, err)
	}
	return nil
}

// ready refuses a call that should not begin.
func (s *Store) ready(ctx context.Context, op, key string) error {
	if err := s.usable(op); err != nil {
		return err
	}
	if err := ports.CheckObjectKey(key); err != nil {
		return ports.StorageError(op, ports.Definite, err)
	}
	if ctx.Err() != nil {
		return ports.StorageError(op, ports.Transient, ctx.Err())
	}
	return nil
}

func (s *Store) usable(op string) error {
	if s.steps.ended() {
		return closedError(op)
	}
	if broken := s.broken.Load(); broken != nil {
		return ports.StorageError(op, ports.Fatal, *broken)
	}
	return nil
}

func closedError(op string) error { return fmt.Errorf("%s: %w", op, domain.ErrClosed) }
