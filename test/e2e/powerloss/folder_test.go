package powerloss_test

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/adapters/localfs"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
	"github.com/streamhouse/streamhouse/test/e2e/powerloss/disk"
)

// faulty is a segment store on a disk with faults. The store maps nothing into
// memory, so it may live in the process that serves the disk.
type faulty struct {
	*testing.T
	*disk.Disk
	*localfs.Store
	dir     string
	unmount func() error
}

func openFaulty(t testing.TB, d *disk.Disk) *faulty {
	t.Helper()
	f := &faulty{Disk: d, dir: t.TempDir()}
	f.T, _ = t.(*testing.T)
	f.mount(t)
	t.Cleanup(func() {
		f.Intercept(nil)
		if err := errors.Join(f.Store.Close(), f.unmount()); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *faulty) mount(t testing.TB) {
	t.Helper()
	unmount, err := f.Mount(f.dir)
	if err != nil {
		t.Fatalf("mount: %v (is /dev/fuse there, and may this user mount?)", err)
	}
	f.unmount = unmount
	if f.Store, err = localfs.Open(f.dir, localfs.Options{}); err != nil {
		t.Fatal(err)
	}
}

// crash cuts the power and opens the store on what is left.
func (f *faulty) crash() {
	f.Helper()
	f.PullThePlug()
	if err := errors.Join(f.Store.Close(), f.unmount()); err != nil {
		f.Fatal(err)
	}
	f.Recover(nil)
	f.Intercept(nil)
	f.mount(f.T)
}

// failing fails the changes of one kind, count of them, with errno.
func (f *faulty) failing(kind string, errno unix.Errno, count int32) {
	var left atomic.Int32
	left.Store(count)
	f.Intercept(func(op disk.Op) fuse.Status {
		if op.Kind == kind && left.Add(-1) >= 0 {
			return fuse.Status(errno)
		}
		return fuse.OK
	})
}

func (f *faulty) put(key string) error { return f.Put(f.Context(), key, []byte("the bytes of "+key)) }

// holds demands that the object is there, whole.
func (f *faulty) holds(key string) {
	f.Helper()
	want := "the bytes of " + key
	got, err := f.ReadRange(f.Context(), key, 0, int64(len(want)))
	if err != nil || string(got) != want {
		f.Errorf("%s holds %q, %v", key, got, err)
	}
}

func (f *faulty) fails(err error, kind ports.Kind, cause error) {
	f.Helper()
	if err == nil || ports.KindOf(err) != kind || !errors.Is(err, cause) || !errors.Is(err, domain.ErrStorage) {
		f.Errorf("error is %v (%v), want a %s one of %v", err, ports.KindOf(err), kind, cause)
	}
}

func TestFolder_KeepsTheContractOnADiskWithoutNamelessFiles(t *testing.T) {
	portstest.TestSegmentStore(t, func(t testing.TB) ports.SegmentStore { return openFaulty(t, namedOnly()).Store })
}

func namedOnly() *disk.Disk {
	d := disk.New()
	d.NoNamelessFiles()
	return d
}

func TestFolder_PutIsDurableWithNamesToo(t *testing.T) {
	f := openFaulty(t, namedOnly())
	if err := f.put("segments/00/a"); err != nil {
		t.Fatal(err)
	}
	f.crash()
	f.holds("segments/00/a")
}

func TestFolder_DeleteIsDurable(t *testing.T) {
	f := openFaulty(t, disk.New())
	if err := errors.Join(f.put("segments/00/a"), f.Delete(t.Context(), "segments/00/a")); err != nil {
		t.Fatal(err)
	}
	f.crash()
	_, err := f.Stat(t.Context(), "segments/00/a")
	f.fails(err, ports.Definite, ports.ErrObjectNotFound)
}

// Every step of a Put before the link may fail without a trace.
func TestFolder_AFailedPutLeavesNothingAndMayBeRepeated(t *testing.T) {
	steps := []struct {
		kind  string
		errno unix.Errno
		disk  func() *disk.Disk
	}{
		{"tmpfile", unix.ENOSPC, disk.New}, {"write", unix.ENOSPC, disk.New}, {"write", unix.EDQUOT, disk.New}, {"write", unix.EIO, disk.New},
		{"fsync", unix.EIO, disk.New}, {"fsync", unix.ENOSPC, disk.New}, {"link", unix.ENOSPC, disk.New}, {"link", unix.EMLINK, disk.New},
		{"mkdir", unix.ENOSPC, disk.New}, {"create", unix.ENOSPC, namedOnly}, {"write", unix.ENOSPC, namedOnly}, {"fsync", unix.EIO, namedOnly},
		{"link", unix.ENOSPC, namedOnly},
	}
	for _, step := range steps {
		t.Run(step.kind+" "+step.errno.Error(), func(t *testing.T) {
			f := openFaulty(t, step.disk())
			f.failing(step.kind, step.errno, 1)
			f.fails(f.put("segments/00/a"), ports.Transient, step.errno)
			f.Close() // lets go of the file
			if infos, err := f.List(t.Context(), "", 10); !errors.Is(err, domain.ErrClosed) {
				t.Errorf("list: %v, %v", infos, err)
			}
			f.crashless()
			if n := f.Files(); n != 0 {
				t.Errorf("the failed put left %d files", n)
			}
			if err := f.put("segments/00/a"); err != nil {
				t.Errorf("again: %v", err)
			}
			f.crash()
			f.holds("segments/00/a")
		})
	}
}

// crashless opens the store anew, with all that is there.
func (f *faulty) crashless() {
	f.Helper()
	if err := errors.Join(f.Store.Close(), f.unmount()); err != nil {
		f.Fatal(err)
	}
	f.mount(f.T)
}

func TestFolder_ALinkOfUnknownOutcomeIsAmbiguousAndMayBeRepeated(t *testing.T) {
	f := openFaulty(t, disk.New())
	f.failing("link", unix.EIO, 1)
	f.fails(f.put("segments/00/a"), ports.Ambiguous, unix.EIO)
	if err := f.put("segments/00/a"); err != nil {
		t.Error(err)
	}
	f.crash()
	f.holds("segments/00/a")
}

// A second sync could succeed because the kernel forgot what it could not
// write.
func TestFolder_AFailedSyncOfAFolderEndsTheStore(t *testing.T) {
	f := openFaulty(t, disk.New())
	if err := f.put("segments/00/kept"); err != nil {
		t.Fatal(err)
	}
	f.failing("fsyncdir", unix.EIO, 1)
	f.fails(f.put("segments/00/a"), ports.Fatal, unix.EIO)
	f.fails(f.put("segments/00/a"), ports.Fatal, unix.EIO)
	f.fails(f.Delete(t.Context(), "segments/00/kept"), ports.Fatal, unix.EIO)
	_, statErr := f.Stat(t.Context(), "segments/00/kept")
	_, readErr := f.ReadRange(t.Context(), "segments/00/kept", 0, 1)
	_, listErr := f.List(t.Context(), "", 1)
	for _, err := range []error{statErr, readErr, listErr} {
		f.fails(err, ports.Fatal, unix.EIO)
	}
	f.crash()
	f.holds("segments/00/kept")
}

func TestFolder_OpenRefusesADiskThatCannotSyncFolders(t *testing.T) {
	f := openFaulty(t, disk.New())
	f.failing("fsyncdir", unix.EINVAL, 1000)
	_, err := localfs.Open(f.dir+"/new", localfs.Options{})
	f.fails(err, ports.Definite, unix.EINVAL)
}

// hold keeps the changes of one kind waiting. The first of them closes reached.
func (f *faulty) hold(kind string) (reached <-chan struct{}, release func()) {
	arrived, free := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	f.Intercept(func(op disk.Op) fuse.Status {
		if op.Kind == kind && first.CompareAndSwap(false, true) {
			close(arrived)
			<-free
		}
		return fuse.OK
	})
	return arrived, func() { close(free) }
}

func TestFolder_PutReturnsWhenItsContextEndsThoughTheDiskHangs(t *testing.T) {
	for _, kind := range []string{"fsync", "link", "fsyncdir"} {
		f := openFaulty(t, disk.New())
		if err := f.put("segments/00/first"); err != nil { // makes the folders
			t.Fatal(err)
		}
		reached, release := f.hold(kind)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-reached
			cancel()
		}()
		body := []byte("the bytes of segments/00/a")
		f.fails(f.Put(ctx, "segments/00/a", body), ports.Ambiguous, context.Canceled)
		clear(body) // ours again
		release()
		if err := f.put("segments/00/a"); err != nil && !errors.Is(err, ports.ErrObjectExists) {
			t.Errorf("%s hung, put again: %v", kind, err)
		}
		f.crash()
		f.holds("segments/00/a")
	}
}

func TestFolder_ContextDeadlineBoundsAPutOnAHangingDisk(t *testing.T) {
	f := openFaulty(t, disk.New())
	_, release := f.hold("fsync")
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	f.fails(f.Put(ctx, "segments/00/a", []byte("x")), ports.Ambiguous, context.DeadlineExceeded)
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %s", took)
	}
}

// Whoever is told that the object exists may commit it. So it must be durable,
// though its own Put is not done yet.
func TestFolder_AnObjectThatIsSaidToExistIsDurable(t *testing.T) {
	f := openFaulty(t, disk.New())
	if err := f.put("segments/00/first"); err != nil {
		t.Fatal(err)
	}
	// As another process has left it, whose sync of the folder is to come.
	if err := os.Link(f.dir+"/segments/00/first", f.dir+"/segments/00/second"); err != nil {
		t.Fatal(err)
	}
	f.fails(f.put("segments/00/second"), ports.Definite, ports.ErrObjectExists)
	f.crash()
	if _, err := f.Stat(t.Context(), "segments/00/second"); err != nil {
		t.Error(err)
	}
}

// A folder that another process made may not be synced yet.
func TestFolder_APutSyncsTheFoldersThatOthersMade(t *testing.T) {
	f := openFaulty(t, disk.New())
	if err := os.MkdirAll(f.dir+"/data/segments/00", 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := localfs.Open(f.dir+"/data", localfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Put(t.Context(), "segments/00/a", []byte("x")), s.Close()); err != nil {
		t.Fatal(err)
	}
	f.crash()
	if _, err := f.Stat(t.Context(), "data/segments/00/a"); err != nil {
		t.Error(err)
	}
}

func TestFolder_UnsafeNoSyncSyncsNothing(t *testing.T) {
	f := openFaulty(t, disk.New())
	s, err := localfs.Open(f.dir+"/unsafe", localfs.Options{UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := f.Count("fsync") + f.Count("fsyncdir")
	if err := errors.Join(s.Put(t.Context(), "segments/00/a", []byte("x")), s.Delete(t.Context(), "segments/00/a")); err != nil {
		t.Fatal(err)
	}
	if n := f.Count("fsync") + f.Count("fsyncdir") - before; n != 0 {
		t.Errorf("%d syncs", n)
	}
}

func TestFolder_APutCostsTwoSyncs(t *testing.T) {
	f := openFaulty(t, disk.New())
	if err := f.put("segments/00/first"); err != nil {
		t.Fatal(err)
	}
	before := f.Count("fsync") + f.Count("fsyncdir")
	if err := f.put("segments/00/second"); err != nil {
		t.Fatal(err)
	}
	if n := f.Count("fsync") + f.Count("fsyncdir") - before; n != 2 {
		t.Errorf("a put into a known folder syncs %d times, want 2: the file and the folder", n)
	}
}
