package disk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/streamhouse/streamhouse/test/e2e/powerloss/disk"
)

// plugged is a disk that is mounted, and can be cut off and come back.
type plugged struct {
	*testing.T
	*disk.Disk
	dir     string
	unmount func() error
}

func plug(t *testing.T) *plugged {
	p := &plugged{T: t, Disk: disk.New(), dir: t.TempDir()}
	p.mount()
	t.Cleanup(func() { p.must(p.unmount()) })
	return p
}

func (p *plugged) mount() {
	unmount, err := p.Mount(p.dir)
	p.must(err)
	p.unmount = unmount
}

func (p *plugged) crash(luck *rand.Rand) {
	p.Helper()
	p.PullThePlug()
	p.must(p.unmount())
	p.Recover(luck)
	p.mount()
}

func (p *plugged) must(errs ...error) {
	p.Helper()
	if err := errors.Join(errs...); err != nil {
		p.Fatal(err)
	}
}

func (p *plugged) path(name string) string { return filepath.Join(p.dir, name) }

// write makes a file and syncs what is asked for.
func (p *plugged) write(name, content string, file, folder bool) {
	p.Helper()
	f, err := os.Create(p.path(name))
	p.must(err)
	_, err = f.WriteString(content)
	p.must(err)
	if file {
		p.must(f.Sync())
	}
	p.must(f.Close())
	if folder {
		p.sync(filepath.Dir(name))
	}
}

func (p *plugged) sync(name string) {
	p.Helper()
	f, err := os.Open(p.path(name))
	p.must(err)
	p.must(f.Sync(), f.Close())
}

func (p *plugged) holds(name, want string) {
	p.Helper()
	got, err := os.ReadFile(p.path(name))
	if err != nil || string(got) != want {
		p.Errorf("%s holds %.40q (%v), want %.40q", name, got, err, want)
	}
}

func (p *plugged) gone(name string) {
	p.Helper()
	if _, err := os.Lstat(p.path(name)); !errors.Is(err, os.ErrNotExist) {
		p.Errorf("%s is still there (%v)", name, err)
	}
}

func TestDisk_ServesFilesAndFolders(t *testing.T) {
	p := plug(t)
	p.must(os.MkdirAll(p.path("a/b"), 0o700))
	long := strings.Repeat("0123456789", 100_000)
	p.write("a/b/long", long, false, false)
	p.holds("a/b/long", long)
	p.must(os.Truncate(p.path("a/b/long"), 5), os.Truncate(p.path("a/b/long"), 8))
	p.holds("a/b/long", "01234\x00\x00\x00")
	p.must(os.Link(p.path("a/b/long"), p.path("other")), os.Rename(p.path("other"), p.path("a/third")))
	p.holds("a/third", "01234\x00\x00\x00")
	if err := os.Link(p.path("a/third"), p.path("a/b/long")); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second link to a name: %v", err)
	}
	if err := os.Remove(p.path("a/b")); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("removal of a full folder: %v", err)
	}
	p.must(os.Remove(p.path("a/b/long")), os.Remove(p.path("a/b")))
	p.gone("a/b")
	for i := range 300 {
		p.write("a/file"+strings.Repeat("x", i%100)+string(rune('a'+i/100)), "", false, false)
	}
	if entries, err := os.ReadDir(p.path("a")); err != nil || len(entries) != 301 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

func TestCrash_KeepsWhatWasSynced(t *testing.T) {
	p := plug(t)
	p.must(os.Mkdir(p.path("folder"), 0o700))
	p.sync(".")
	p.write("folder/synced", "bytes", true, true)
	p.crash(nil)
	p.holds("folder/synced", "bytes")
}

func TestCrash_DropsWhatWasNotSynced(t *testing.T) {
	p := plug(t)
	p.write("nothing synced", "bytes", false, false)
	p.write("file synced only", "bytes", true, false)
	p.crash(nil)
	p.gone("nothing synced")
	p.gone("file synced only")

	p.write("folder synced only", "bytes", false, true)
	p.write("changed", "old", true, true)
	p.write("changed", "newer", false, false)
	p.must(os.Remove(p.path("folder synced only")), os.Rename(p.path("changed"), p.path("renamed")))
	p.crash(nil)
	p.holds("folder synced only", "")
	p.holds("changed", "old")
	p.gone("renamed")
}

func TestCrash_OfARenameKeepsOneNameOrTheOther(t *testing.T) {
	p := plug(t)
	luck := rand.New(rand.NewPCG(1, 1))
	for i := range 10 {
		from, to := "old"+strconv.Itoa(i), "new"+strconv.Itoa(i)
		p.write(from, "bytes", true, true)
		p.must(os.Rename(p.path(from), p.path(to)))
		p.crash(luck)
		_, oldErr := os.Stat(p.path(from))
		_, newErr := os.Stat(p.path(to))
		if (oldErr == nil) == (newErr == nil) {
			t.Fatalf("old name: %v, new name: %v", oldErr, newErr)
		}
	}
}

func TestCrash_WithLuckTearsWritesBySector(t *testing.T) {
	p := plug(t)
	const sectors = 100
	p.write("torn", strings.Repeat("o", sectors*disk.SectorSize), true, true)
	f, err := os.OpenFile(p.path("torn"), os.O_WRONLY, 0)
	p.must(err)
	_, err = f.WriteString(strings.Repeat("n", sectors*disk.SectorSize))
	p.must(err, f.Close())
	p.crash(rand.New(rand.NewPCG(1, 4)))
	got, err := os.ReadFile(p.path("torn"))
	p.must(err)
	kept := 0
	for sector := range bytesBy(got, disk.SectorSize) {
		if bytes.Count(sector, sector[:1]) != len(sector) {
			t.Fatal("a sector is mixed")
		}
		if sector[0] == 'n' {
			kept++
		}
	}
	if kept == 0 || kept == sectors {
		t.Errorf("%d of %d sectors survived, want some", kept, sectors)
	}
}

func bytesBy(b []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) >= size && yield(b[:size]) {
			b = b[size:]
		}
	}
}

func TestCrash_AtAChangeFailsItAndAllAfterIt(t *testing.T) {
	p := plug(t)
	crashed := p.CrashAt(2)
	p.must(os.Mkdir(p.path("one"), 0o700))
	if err := os.Mkdir(p.path("two"), 0o700); !errors.Is(err, unix.EIO) {
		t.Errorf("change at the crash: %v", err)
	}
	<-crashed
	if err := os.Mkdir(p.path("three"), 0o700); !errors.Is(err, unix.EIO) {
		t.Errorf("change after the crash: %v", err)
	}
	p.crash(nil)
	p.must(os.Mkdir(p.path("one"), 0o700))
}

func TestDisk_KeepsNamelessFilesUntilTheyAreClosed(t *testing.T) {
	p := plug(t)
	fd, err := unix.Open(p.dir, unix.O_TMPFILE|unix.O_WRONLY, 0o600)
	p.must(err)
	f := os.NewFile(uintptr(fd), "nameless")
	_, err = f.WriteString("bytes")
	p.must(err, f.Sync())
	p.must(unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, p.path("named"), unix.AT_SYMLINK_FOLLOW))
	p.must(f.Close())
	p.sync(".")
	if n := p.Files(); n != 1 {
		t.Errorf("%d files, want 1", n)
	}
	p.crash(nil)
	p.holds("named", "bytes")
}

func TestDisk_HasFaultsOnDemand(t *testing.T) {
	p := plug(t)
	p.Intercept(func(op disk.Op) fuse.Status {
		if op.Kind == "mkdir" && op.Name == "no" {
			return fuse.Status(unix.ENOSPC)
		}
		return fuse.OK
	})
	if err := os.Mkdir(p.path("no"), 0o700); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error is %v", err)
	}
	p.must(os.Mkdir(p.path("yes"), 0o700))
	p.NoNamelessFiles()
	if _, err := unix.Open(p.dir, unix.O_TMPFILE|unix.O_WRONLY, 0o600); err == nil {
		t.Error("a nameless file was made")
	}
}
