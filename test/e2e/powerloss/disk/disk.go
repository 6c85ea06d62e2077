// Package disk is a disk in memory that can lose power, mounted through FUSE.
//
// It keeps for every file and folder what processes see and what would survive.
// A sync of a file makes its bytes durable, but not its name; a sync of a folder makes the
// names in it durable, but not what they name. That is as little as POSIX promises, and less than
// most file systems keep: what relies on more is found out.
//
// The process that serves the disk must not map its files into memory: a page
// fault would wait for a goroutine of the process that it stops. Run what is under test in
// a process of its own.
package disk

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// SectorSize is the unit in which a write is torn by a loss of power.
const SectorSize = 512

// Op is a change that a process asks for.
type Op struct {
	// Kind is one of create, tmpfile, mkdir, unlink, rmdir, rename, link, write,
	// truncate, fsync and fsyncdir.
	Kind string
	// Name is the entry that a change of a folder is about, and empty else.
	Name string
}

// Disk is the content of a disk. It outlives its mounts.
type Disk struct {
	mu      sync.Mutex
	inodes  map[uint64]*inode
	lastID  uint64
	handles map[uint64][]fuse.DirEntry
	lastFh  uint64
	ops     map[string]int
	total   int

	// crashAt is the number of the change at which the power goes; 0 for never.
	crashAt int
	dark    bool
	crashed chan struct{}

	intercept func(Op) fuse.Status
	nameless  bool
}

const rootID = fuse.FUSE_ROOT_ID

// New makes an empty disk.
func New() *Disk {
	d := &Disk{lastID: rootID, handles: make(map[uint64][]fuse.DirEntry), ops: make(map[string]int), crashed: make(chan struct{}), nameless: true}
	root := newInode(rootID, fuse.S_IFDIR|0o755)
	root.links = 2
	d.inodes = map[uint64]*inode{rootID: root}
	return d
}

// CrashAt lets the power go at the n-th change from now on: it and all later
// requests fail. With 0 it never goes. The channel is closed when it has gone.
func (d *Disk) CrashAt(n int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashAt = 0; n > 0 {
		d.crashAt = d.total + n
	}
	return d.crashed
}

// PullThePlug lets the power go now.
func (d *Disk) PullThePlug() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.goDark()
}

func (d *Disk) goDark() {
	if !d.dark {
		d.dark = true
		close(d.crashed)
	}
}

// Intercept has f judge every change before it is made: it may fail it, or hold
// it up. Nil ends that.
func (d *Disk) Intercept(f func(Op) fuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.intercept = f
}

// NoNamelessFiles makes the disk one that cannot make files without a name.
func (d *Disk) NoNamelessFiles() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nameless = false
}

// Count returns how many changes of a kind were asked for, of all kinds if kind
// is empty.
func (d *Disk) Count(kind string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kind == "" {
		return d.total
	}
	return d.ops[kind]
}

// Files returns how many files there are, those without a name included that
// are still open.
func (d *Disk) Files() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, node := range d.inodes {
		if !node.isDir() && (node.links > 0 || !d.remembered(node.id)) {
			n++
		}
	}
	return n
}

// Recover gives the disk its power back. What was not synced is gone; with luck,
// a part of it is not: any subset of the unsynced sectors and names. The disk must not be
// mounted.
func (d *Disk) Recover(luck *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	chance := 0.0
	if luck != nil {
		chance = []float64{0.05, 0.5, 0.95}[luck.IntN(3)]
	}
	keep := func() bool { return chance > 0 && luck.Float64() < chance }
	for _, id := range d.ids() {
		d.inodes[id].lose(keep)
	}
	d.dropUnreachable()
	d.handles = make(map[uint64][]fuse.DirEntry)
	d.dark, d.crashAt, d.crashed = false, 0, make(chan struct{})
}

// dropUnreachable forgets what no durable name leads to, and counts names anew.
func (d *Disk) dropUnreachable() {
	found := map[uint64]*inode{rootID: d.inodes[rootID]}
	for _, node := range d.inodes {
		node.links = 0
	}
	for next := []uint64{rootID}; len(next) > 0; {
		node := d.inodes[next[0]]
		next = next[1:]
		for name, id := range node.names {
			child := d.inodes[id]
			if child == nil {
				delete(node.names, name)
				delete(node.durableNames, name)
				continue
			}
			child.links++
			if found[id] == nil {
				found[id] = child
				next = append(next, id)
			}
		}
	}
	d.inodes = found
}

// Mount serves the disk at the folder dir until the returned function is called.
func (d *Disk) Mount(dir string) (unmount func() error, err error) {
	server, err := fuse.NewServer(&server{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: d}, dir, &fuse.MountOptions{
		FsName: "powerloss", Name: "powerloss", DirectMount: true, DisableXAttrs: true, DisableReadDirPlus: true, MaxWrite: 1 << 20,
	})
	if err != nil {
		return nil, err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, err
	}
	return func() error {
		// Detached at once, though a process that is just being started may
		// hold a copy of a file for a moment; the server ends when the last is closed.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return err
		}
		server.Wait()
		d.closeAll()
		return nil
	}, nil
}

// closeAll forgets what was open without a name: the kernel does not wait until
// all its closes have been answered.
func (d *Disk) closeAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, node := range d.inodes {
		if !node.isDir() && node.links == 0 && !d.remembered(id) {
			delete(d.inodes, id)
		}
	}
}

// enter counts a change and says whether it may be made.
func (d *Disk) enter(kind, name string) fuse.Status {
	d.mu.Lock()
	d.ops[kind]++
	d.total++
	if d.crashAt > 0 && d.total >= d.crashAt {
		d.goDark()
	}
	dark, intercept := d.dark, d.intercept
	d.mu.Unlock()
	if dark {
		return fuse.EIO
	}
	if intercept != nil {
		return intercept(Op{Kind: kind, Name: name})
	}
	return fuse.OK
}

// now is the time that files get.
func now() time.Time { return time.Now() }

func (d *Disk) makesNameless() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.nameless
}
