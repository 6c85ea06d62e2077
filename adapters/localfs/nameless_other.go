//go:build !linux

package localfs

import (
	"errors"
	"os"
)

// errNoNameless: the file system, or the kernel, has no files without a name.
var errNoNameless = errors.New("no files without a name")

func createNameless(string) (*unnamed, error) { return nil, errNoNameless }

// link gives f the name path; fs.ErrExist if that is taken.
func (s *Store) link(f *unnamed, path string) error { return os.Link(f.temporary, path) }
