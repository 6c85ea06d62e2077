package disk

import (
	"maps"
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// inode is a file or a folder, as processes see it and as it would survive.
type inode struct {
	id       uint64
	mode     uint32
	links    uint32
	modified time.Time

	data     []byte
	durable  []byte
	unsynced []edit

	names         map[string]uint64
	durableNames  map[string]uint64
	unsyncedNames []*move
}

// edit is a write, or a truncation if data is nil.
type edit struct {
	at   int64
	data []byte
}

// move is a change of names that is kept or lost as one.
type move struct {
	changes []nameChange
	settled bool
}

// nameChange gives a name to an inode, or to none if id is 0.
type nameChange struct {
	folder *inode
	name   string
	id     uint64
}

func newInode(id uint64, mode uint32) *inode {
	n := &inode{id: id, mode: mode, modified: now()}
	if n.isDir() {
		n.names, n.durableNames = make(map[string]uint64), make(map[string]uint64)
	}
	return n
}

func (n *inode) isDir() bool { return n.mode&fuse.S_IFDIR != 0 }

// write changes what processes see, and remembers how.
func (n *inode) write(at int64, data []byte) {
	e := edit{at, slices.Clone(data)}
	n.data = e.apply(n.data)
	n.unsynced = append(n.unsynced, e)
	n.modified = now()
}

func (n *inode) truncate(size int64) {
	e := edit{at: size}
	n.data = e.apply(n.data)
	n.unsynced = append(n.unsynced, e)
	n.modified = now()
}

// apply returns file with the edit made.
func (e edit) apply(file []byte) []byte {
	end := e.at + int64(len(e.data))
	if e.data == nil || end > int64(len(file)) {
		file = resize(file, end)
	}
	copy(file[e.at:], e.data)
	return file
}

// resize cuts file or extends it with zeros.
func resize(file []byte, size int64) []byte {
	if old := int64(len(file)); size <= old {
		clear(file[size:])
		return file[:size]
	}
	if size > int64(cap(file)) {
		file = slices.Grow(file, int(size)-len(file))
	}
	return file[:size] // grown room is zero, and cut room was cleared
}

// sync makes durable what the inode holds: bytes, or names.
func (n *inode) sync() {
	for _, e := range n.unsynced {
		n.durable = e.apply(n.durable)
	}
	n.unsynced = nil
	for _, m := range n.unsyncedNames {
		m.settle(true)
	}
	n.unsyncedNames = nil
}

// settle makes a change of names durable, in all its folders, or drops it.
func (m *move) settle(kept bool) {
	if m.settled {
		return
	}
	m.settled = true
	if !kept {
		return
	}
	for _, c := range m.changes {
		c.in(c.folder.durableNames)
	}
}

func (c nameChange) in(names map[string]uint64) {
	if c.id == 0 {
		delete(names, c.name)
		return
	}
	names[c.name] = c.id
}

// lose is the loss of power: of each unsynced change, sector by sector, keep
// says whether it survives.
func (n *inode) lose(keep func() bool) {
	for _, e := range n.unsynced {
		for _, part := range e.sectors() {
			if keep() {
				n.durable = part.apply(n.durable)
			}
		}
	}
	n.unsynced = nil
	n.data = slices.Clone(n.durable)
	for _, m := range n.unsyncedNames {
		if !m.settled {
			m.settle(keep())
		}
	}
	n.unsyncedNames = nil
	n.names = maps.Clone(n.durableNames)
}

// sectors splits a write where a loss of power may tear it.
func (e edit) sectors() []edit {
	if e.data == nil {
		return []edit{e}
	}
	var parts []edit
	for at, data := e.at, e.data; len(data) > 0; {
		size := min(int64(len(data)), SectorSize-at%SectorSize)
		parts = append(parts, edit{at, data[:size]})
		at, data = at+size, data[size:]
	}
	return parts
}

// rename changes names at once in what processes see.
func rename(changes ...nameChange) {
	m := &move{changes: changes}
	for i, c := range changes {
		c.in(c.folder.names)
		c.folder.modified = now()
		if i == 0 || c.folder != changes[0].folder {
			c.folder.unsyncedNames = append(c.folder.unsyncedNames, m)
		}
	}
}

func (n *inode) attr(out *fuse.Attr) {
	*out = fuse.Attr{Ino: n.id, Size: uint64(len(n.data)), Blocks: uint64(len(n.data)+SectorSize-1) / SectorSize, Mode: n.mode, Nlink: n.links, Blksize: 4096}
	out.SetTimes(&n.modified, &n.modified, &n.modified)
}
