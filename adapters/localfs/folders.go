package localfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

// maxKnownFolders bounds the memory of folders. Objects are spread over 256
// shards, so it is never reached by our own keys.
const maxKnownFolders = 4096

// folders remembers which folders exist durably: their entry in the folder
// above was synced since they were seen, by this process. That somebody else made a
// folder does not mean that he has synced it yet.
type folders struct {
	mu    sync.Mutex
	known map[string]struct{}
}

// ensure makes dir, and what is missing above it up to the store's folder, and
// returns once its name is durable.
func (f *folders) ensure(s *Store, dir string) error {
	if dir == s.dir || f.has(dir) {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := f.ensure(s, parent); err != nil {
		return err
	}
	made, err := makeFolder(dir, 0o777)
	if err != nil {
		return err
	}
	switch {
	case mutant.On(mutantNewFolderNotSynced):
	case made:
		err = s.syncFolder(parent)
	default:
		// Not the first process here: likely all shards exist.
		err = f.syncEntries(s, parent)
	}
	if err != nil {
		return err
	}
	f.add(dir)
	return nil
}

// syncEntries makes the names in dir durable and remembers the folders among
// them.
func (f *folders) syncEntries(s *Store, dir string) error {
	seen, err := subfolders(dir)
	if err != nil {
		return err
	}
	if err := s.syncFolder(dir); err != nil {
		return err
	}
	f.add(seen...)
	return nil
}

func (f *folders) has(dir string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.known[dir]
	return ok
}

func (f *folders) add(dirs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil || len(f.known)+len(dirs) > maxKnownFolders {
		f.known = make(map[string]struct{})
	}
	for _, dir := range dirs[:min(len(dirs), maxKnownFolders)] {
		f.known[dir] = struct{}{}
	}
}

// forget makes the next ensure look again, after a folder was found missing.
func (f *folders) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known = nil
}

// makeFolder makes dir if it does not exist, and says whether it did. A file in
// its place is an error.
func makeFolder(dir string, mode fs.FileMode) (made bool, err error) {
	err = os.Mkdir(dir, mode)
	if !errors.Is(err, fs.ErrExist) {
		return err == nil, err
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s: %w", dir, unix.ENOTDIR)
	}
	return false, err
}

// MakeFolder makes the folder dir for its owner only, and those above it, if
// they do not exist, durably. The error is an *ports.Error.
func MakeFolder(dir string) error {
	abs, err := filepath.Abs(dir)
	if err == nil {
		err = (&Store{}).makeRoot(abs, 0o700)
	}
	if err != nil {
		return openError("make folder "+dir, err)
	}
	return nil
}

// makeRoot makes dir and what is missing above it, durably. Whoever made dir, if
// it exists, may not have synced its name.
func (s *Store) makeRoot(dir string, mode fs.FileMode) error {
	if err := s.makeAll(dir, mode); err != nil {
		return err
	}
	err := s.syncFolder(filepath.Dir(dir))
	if errors.Is(err, fs.ErrPermission) {
		return nil // a folder of somebody else, who gave us dir
	}
	return err
}

// makeAll makes dir and what is missing above it, and syncs every folder that
// got a new entry.
func (s *Store) makeAll(dir string, mode fs.FileMode) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s: %w", dir, unix.ENOTDIR)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := s.makeAll(parent, 0o777); err != nil {
		return err
	}
	if _, err := makeFolder(dir, mode); err != nil {
		return err
	}
	return s.syncFolder(parent)
}

// syncFolder makes the entries of dir durable.
func (s *Store) syncFolder(dir string) error {
	if s.options.UnsafeNoSync {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return &syncError{dir, err}
	}
	return nil
}

// syncFile makes the bytes of f durable.
func (s *Store) syncFile(f *os.File) error {
	if s.options.UnsafeNoSync {
		return nil
	}
	return f.Sync()
}
