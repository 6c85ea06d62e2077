package disk

import (
	"maps"
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// cacheTime lets the kernel remember what only it can change.
const cacheTime = time.Hour

// server answers the kernel's requests for a disk.
type server struct {
	fuse.RawFileSystem
	disk *Disk
}

func (*server) String() string { return "powerloss" }

func (d *Disk) ids() []uint64 { return slices.Sorted(maps.Keys(d.inodes)) }

// find locks the disk and returns the inode id, unless the power is gone.
func (d *Disk) find(id uint64) (*inode, func(), fuse.Status) {
	d.mu.Lock()
	node := d.inodes[id]
	status := fuse.OK
	switch {
	case d.dark:
		status = fuse.EIO
	case node == nil:
		status = fuse.ENOENT
	}
	return node, d.mu.Unlock, status
}

func (n *inode) entry(out *fuse.EntryOut) {
	out.NodeId, out.Generation = n.id, 1
	out.SetEntryTimeout(cacheTime)
	out.SetAttrTimeout(cacheTime)
	n.attr(&out.Attr)
}

func (s *server) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, unlock, status := s.disk.find(h.NodeId)
	defer unlock()
	if !status.Ok() {
		return status
	}
	child := s.disk.inodes[dir.names[name]]
	if child == nil {
		return fuse.ENOENT
	}
	child.entry(out)
	return fuse.OK
}

func (s *server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	node, unlock, status := s.disk.find(in.NodeId)
	defer unlock()
	if status.Ok() {
		out.SetTimeout(cacheTime)
		node.attr(&out.Attr)
	}
	return status
}

func (s *server) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.Valid&fuse.FATTR_SIZE != 0 {
		if status := s.disk.enter("truncate", ""); !status.Ok() {
			return status
		}
	}
	node, unlock, status := s.disk.find(in.NodeId)
	defer unlock()
	if !status.Ok() {
		return status
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		node.truncate(int64(in.Size))
	}
	if in.Valid&fuse.FATTR_MODE != 0 {
		node.mode = node.mode&unix.S_IFMT | in.Mode&0o7777
	}
	out.SetTimeout(cacheTime)
	node.attr(&out.Attr)
	return fuse.OK
}

// add makes an inode with a name in the folder parent, or with none.
func (s *server) add(kind string, parent uint64, name string, mode uint32, out *fuse.EntryOut) fuse.Status {
	if status := s.disk.enter(kind, name); !status.Ok() {
		return status
	}
	dir, unlock, status := s.disk.find(parent)
	defer unlock()
	if !status.Ok() {
		return status
	}
	if _, taken := dir.names[name]; taken {
		return fuse.Status(unix.EEXIST)
	}
	s.disk.lastID++
	node := newInode(s.disk.lastID, mode)
	s.disk.inodes[node.id] = node
	if name != "" {
		node.links = 1
		rename(nameChange{dir, name, node.id})
	}
	node.entry(out)
	return fuse.OK
}

func (s *server) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return s.add("mkdir", in.NodeId, name, fuse.S_IFDIR|in.Mode&0o7777, out)
}

func (s *server) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return s.add("create", in.NodeId, name, fuse.S_IFREG|in.Mode&0o7777, &out.EntryOut)
}

func (s *server) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if !s.disk.makesNameless() {
		return fuse.ENOSYS
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return s.add("tmpfile", in.NodeId, "", fuse.S_IFREG|in.Mode&0o7777, &out.EntryOut)
}

func (s *server) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if status := s.disk.enter("link", name); !status.Ok() {
		return status
	}
	dir, unlock, status := s.disk.find(in.NodeId)
	defer unlock()
	node := s.disk.inodes[in.Oldnodeid]
	switch {
	case !status.Ok():
		return status
	case node == nil:
		return fuse.ENOENT
	case dir.names[name] != 0:
		return fuse.Status(unix.EEXIST)
	}
	node.links++
	rename(nameChange{dir, name, node.id})
	node.entry(out)
	return fuse.OK
}

func (s *server) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return s.remove("unlink", h.NodeId, name)
}

func (s *server) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return s.remove("rmdir", h.NodeId, name)
}

func (s *server) remove(kind string, parent uint64, name string) fuse.Status {
	if status := s.disk.enter(kind, name); !status.Ok() {
		return status
	}
	dir, unlock, status := s.disk.find(parent)
	defer unlock()
	if !status.Ok() {
		return status
	}
	node := s.disk.inodes[dir.names[name]]
	switch {
	case node == nil:
		return fuse.ENOENT
	case node.isDir() && len(node.names) > 0:
		return fuse.Status(unix.ENOTEMPTY)
	}
	node.links--
	rename(nameChange{dir, name, 0})
	return fuse.OK
}

func (s *server) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if status := s.disk.enter("rename", to); !status.Ok() {
		return status
	}
	dir, unlock, status := s.disk.find(in.NodeId)
	defer unlock()
	target := s.disk.inodes[in.Newdir]
	switch {
	case !status.Ok():
		return status
	case target == nil || dir.names[from] == 0:
		return fuse.ENOENT
	case in.Flags&unix.RENAME_NOREPLACE != 0 && target.names[to] != 0:
		return fuse.Status(unix.EEXIST)
	case in.Flags&^unix.RENAME_NOREPLACE != 0:
		return fuse.EINVAL
	}
	if old := s.disk.inodes[target.names[to]]; old != nil {
		old.links--
	}
	rename(nameChange{dir, from, 0}, nameChange{target, to, dir.names[from]})
	return fuse.OK
}

func (s *server) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	_, unlock, status := s.disk.find(in.NodeId)
	defer unlock()
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return status
}

func (s *server) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	node, unlock, status := s.disk.find(in.NodeId)
	defer unlock()
	if !status.Ok() {
		return nil, status
	}
	at := min(in.Offset, uint64(len(node.data)))
	return fuse.ReadResultData(buf[:copy(buf, node.data[at:])]), fuse.OK
}

func (s *server) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if status := s.disk.enter("write", ""); !status.Ok() {
		return 0, status
	}
	node, unlock, status := s.disk.find(in.NodeId)
	defer unlock()
	if !status.Ok() {
		return 0, status
	}
	node.write(int64(in.Offset), data)
	return uint32(len(data)), fuse.OK
}

func (s *server) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return s.sync("fsync", in.NodeId)
}

func (s *server) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return s.sync("fsyncdir", in.NodeId)
}

func (s *server) sync(kind string, id uint64) fuse.Status {
	if status := s.disk.enter(kind, ""); !status.Ok() {
		return status
	}
	node, unlock, status := s.disk.find(id)
	defer unlock()
	if status.Ok() {
		node.sync()
	}
	return status
}

func (s *server) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Release forgets a file that has neither a name nor a durable one.
func (s *server) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if node := s.disk.inodes[in.NodeId]; node != nil && node.links == 0 && !s.disk.remembered(node.id) {
		delete(s.disk.inodes, in.NodeId)
	}
}

// remembered says whether a loss of power may bring a name of the inode back.
func (d *Disk) remembered(id uint64) bool {
	for _, node := range d.inodes {
		if slices.Contains(slices.Collect(maps.Values(node.durableNames)), id) {
			return true
		}
		for _, m := range node.unsyncedNames {
			if slices.ContainsFunc(m.changes, func(c nameChange) bool { return c.id == id }) {
				return true
			}
		}
	}
	return false
}

func (s *server) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	_, unlock, status := s.disk.find(in.NodeId)
	defer unlock()
	s.disk.lastFh++
	out.Fh = s.disk.lastFh
	return status
}

func (s *server) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	dir, unlock, status := s.disk.find(in.NodeId)
	defer unlock()
	if !status.Ok() {
		return status
	}
	if in.Offset == 0 { // a listing is of one moment
		s.disk.handles[in.Fh] = s.disk.listing(dir)
	}
	entries := s.disk.handles[in.Fh]
	for _, e := range entries[min(in.Offset, uint64(len(entries))):] {
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (d *Disk) listing(dir *inode) []fuse.DirEntry {
	var entries []fuse.DirEntry
	for i, name := range slices.Sorted(maps.Keys(dir.names)) {
		id := dir.names[name]
		entries = append(entries, fuse.DirEntry{Name: name, Ino: id, Mode: d.inodes[id].mode, Off: uint64(i + 1)})
	}
	return entries
}

func (s *server) ReleaseDir(in *fuse.ReleaseIn) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	delete(s.disk.handles, in.Fh)
}

func (s *server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Blocks: 1 << 20, Bfree: 1 << 20, Bavail: 1 << 20, Files: 1 << 20, Ffree: 1 << 20, Bsize: 4096, Frsize: 4096, NameLen: 255}
	return fuse.OK
}
