package localfs

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// temporaries is the folder of files on the way, used where the file
	// system has no files without a name. No key has a dot.
	temporaries = ".tmp"
	// writeChunk is how much is written between two looks at the context.
	writeChunk = 1 << 20
	fileMode   = 0o644
)

// unnamed is a file that is not an object yet.
type unnamed struct {
	*os.File
	// temporary is its name for the time being, empty if it has none.
	temporary string
}

// discard lets go of the file; the object, if it was linked, stays.
func (f *unnamed) discard() {
	if f.temporary != "" {
		_ = os.Remove(f.temporary) // else sweep does
	}
	_ = f.Close() // synced before, or of no use
}

// write makes a file with the bytes body that can be linked into the folder dir.
func (s *Store) write(ctx context.Context, dir string, body []byte) (*unnamed, error) {
	f, err := s.create(dir)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody removed the folder since it was ensured.
		s.folders.forget()
		if err = s.folders.ensure(s, dir); err == nil {
			f, err = s.create(dir)
		}
	}
	if err != nil {
		return nil, err
	}
	for len(body) > 0 && err == nil {
		n := min(len(body), writeChunk)
		if _, err = f.Write(body[:n]); err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		body = body[n:]
	}
	if err != nil {
		f.discard()
		return nil, err
	}
	return f, nil
}

// create makes an empty file without a name, or with a temporary one.
func (s *Store) create(dir string) (*unnamed, error) {
	if s.named.Load() {
		return s.createNamed()
	}
	if f := s.spare.Swap(nil); f != nil {
		return f, nil
	}
	f, err := createNameless(dir)
	if errors.Is(err, errNoNameless) {
		s.named.Store(true)
		return s.createNamed()
	}
	return f, err
}

// prepare makes the next Put's file, unless there is one.
func (s *Store) prepare(dir string) {
	if s.named.Load() || s.spare.Load() != nil {
		return
	}
	f, err := createNameless(dir)
	if err != nil {
		return // the next Put will see for itself
	}
	if !s.spare.CompareAndSwap(nil, f) {
		f.discard()
	}
}

// createNamed makes a file in the folder of temporaries. Its lock tells sweeps
// of other processes that its maker lives.
func (s *Store) createNamed() (*unnamed, error) {
	dir := filepath.Join(s.dir, temporaries)
	if _, err := makeFolder(dir, 0o777); err != nil {
		return nil, err
	}
	for {
		path := filepath.Join(dir, rand.Text())
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
		if err != nil {
			return nil, err
		}
		ours, err := lock(f)
		if err == nil && ours {
			return &unnamed{f, path}, nil
		}
		_ = f.Close()
		if err != nil {
			_ = os.Remove(path)
			return nil, err
		}
		// A sweep was quicker and removes it.
	}
}

// lock takes the lock of f unless another process holds it or has removed f's
// name. It ends with the process, however that ends.
func lock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return false, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return stat.Nlink > 0, nil
}

// sweep removes the temporaries whose makers are gone. Those of living
// processes are locked.
func (s *Store) sweep() error {
	dir, err := os.Open(filepath.Join(s.dir, temporaries))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(listChunk)
		for _, name := range names {
			sweepOne(filepath.Join(dir.Name(), name))
		}
		if len(names) == 0 {
			return ignoreEOF(err)
		}
	}
}

// sweepOne removes the temporary path if it is free. If it cannot tell, or not
// remove it, the file stays: it costs space, and nothing else.
func sweepOne(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if free, err := lock(f); err == nil && free {
		_ = os.Remove(path)
	}
}
