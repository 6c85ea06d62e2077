package localfs

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/streamhouse/streamhouse/ports"
)

// listChunk bounds how many names of a folder are held at a time.
const listChunk = 1024

// List implements ports.SegmentStore. Its memory is bounded by limit and the
// depth of the keys, not by the number of objects; each call reads the names of the
// folders it visits anew.
func (s *Store) List(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error) {
	op := fmt.Sprintf("list objects after %.80q", after)
	if err := s.usable(op); err != nil {
		return nil, err
	}
	l := lister{ctx: ctx, store: s, after: after, limit: limit}
	if err := l.folder(""); err != nil {
		return nil, s.fail(op, err)
	}
	return l.found, nil
}

// lister walks the folders in key order.
type lister struct {
	ctx   context.Context
	store *Store
	after string
	limit int
	found []ports.ObjectInfo
}

func (l *lister) full() bool { return len(l.found) >= l.limit }

// folder lists what is below the folder prefix, which ends in a slash or is
// empty.
func (l *lister) folder(prefix string) error {
	for !l.full() {
		names, err := l.next(prefix)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := l.entry(name); err != nil {
				return err
			}
			l.after = max(l.after, last(name))
		}
		if len(names) < listChunk {
			return nil
		}
	}
	return nil
}

// entry lists one name: a key, or a folder that ends in a slash.
func (l *lister) entry(name string) error {
	if l.full() {
		return nil
	}
	if strings.HasSuffix(name, "/") {
		return l.folder(name)
	}
	info, err := os.Stat(l.store.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	l.found = append(l.found, ports.ObjectInfo{Key: name, Size: info.Size(), ModifiedUnixMilli: info.ModTime().UnixMilli()})
	return nil
}

// next returns the first listChunk names of a folder that may hold keys after
// l.after, sorted. Folders end in a slash, so that they sort as their keys do.
func (l *lister) next(prefix string) ([]string, error) {
	dir, err := os.Open(l.store.path(prefix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var first largest
	for {
		if l.ctx.Err() != nil {
			return nil, l.ctx.Err()
		}
		entries, err := dir.ReadDir(listChunk)
		for _, entry := range entries {
			if name := prefix + keyPart(dir.Name(), entry); name != prefix && last(name) > l.after {
				first.keep(name)
			}
		}
		if len(entries) == 0 {
			slices.Sort(first)
			return first, ignoreEOF(err)
		}
	}
}

// keyPart returns the name of an entry of dir, with a slash if it is a folder,
// and nothing if no key can have it.
func keyPart(dir string, entry fs.DirEntry) string {
	if ports.CheckObjectKey(entry.Name()) != nil {
		return ""
	}
	kind := entry.Type()
	if kind == fs.ModeSymlink {
		if info, err := os.Stat(filepath.Join(dir, entry.Name())); err == nil {
			kind = info.Mode().Type()
		}
	}
	switch {
	case kind.IsDir():
		return entry.Name() + "/"
	case kind.IsRegular():
		return entry.Name()
	default:
		return ""
	}
}

// last returns the greatest key that name stands for: itself, or a bound of
// those below it.
func last(name string) string {
	if strings.HasSuffix(name, "/") {
		return name + "\xff"
	}
	return name
}

// largest is a heap of names, the greatest first, that keeps the smallest.
type largest []string

func (h largest) Len() int           { return len(h) }
func (h largest) Less(i, j int) bool { return h[i] > h[j] }
func (h largest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *largest) Push(x any)        { *h = append(*h, x.(string)) }
func (h *largest) Pop() any {
	n := len(*h) - 1
	x := (*h)[n]
	*h = (*h)[:n]
	return x
}

func (h *largest) keep(name string) {
	if h.Len() == listChunk {
		if name >= (*h)[0] {
			return
		}
		heap.Pop(h)
	}
	heap.Push(h, name)
}

// subfolders returns the paths of the folders in dir that can hold objects.
func subfolders(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []string
	for len(found) < maxKnownFolders/2 {
		entries, err := f.ReadDir(listChunk)
		for _, entry := range entries {
			if strings.HasSuffix(keyPart(dir, entry), "/") {
				found = append(found, filepath.Join(dir, entry.Name()))
			}
		}
		if len(entries) == 0 {
			return found, ignoreEOF(err)
		}
	}
	return found, nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
