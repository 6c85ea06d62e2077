package localfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// errNoNameless: the file system, or the kernel, has no files without a name.
var errNoNameless = errors.New("no files without a name")

// createNameless makes a file in the file system of dir that has no name, so
// that nothing of it stays unless it is linked.
func createNameless(dir string) (*unnamed, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, fileMode)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return nil, fmt.Errorf("%s: %w: %w", dir, errNoNameless, err)
	case err != nil:
		return nil, &fs.PathError{Op: "create a file in", Path: dir, Err: err}
	}
	return &unnamed{File: os.NewFile(uintptr(fd), dir)}, nil
}

// link gives f the name path; fs.ErrExist if that is taken.
func (s *Store) link(f *unnamed, path string) error {
	if f.temporary != "" {
		return os.Link(f.temporary, path)
	}
	fd := int(f.Fd())
	err := unix.Linkat(fd, "", unix.AT_FDCWD, path, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		// Kernels before 6.10 want a capability for that way, but not for this.
		err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		return &fs.PathError{Op: "link", Path: path, Err: err}
	}
	return nil
}
