package localfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func openIn(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openStore(t testing.TB) *Store { return openIn(t, t.TempDir()) }

// openNamed opens a store that behaves as on a file system without nameless
// files.
func openNamed(t testing.TB) *Store {
	t.Helper()
	s := openStore(t)
	s.named.Store(true)
	return s
}

func TestStore_KeepsTheContract(t *testing.T) {
	portstest.TestSegmentStore(t, func(t testing.TB) ports.SegmentStore { return openStore(t) })
}

func TestStore_KeepsTheContractWithTemporaryNames(t *testing.T) {
	portstest.TestSegmentStore(t, func(t testing.TB) ports.SegmentStore { return openNamed(t) })
}

func BenchmarkStore(b *testing.B) {
	portstest.BenchmarkSegmentStore(b, func(b testing.TB) ports.SegmentStore { return openStore(b) })
}

func BenchmarkStoreWithTemporaryNames(b *testing.B) {
	portstest.BenchmarkSegmentStore(b, func(b testing.TB) ports.SegmentStore { return openNamed(b) })
}

func TestOpen_MakesTheFolderForItsOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "deep", "data")
	openIn(t, dir)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the folder is %v (%v), want 0700", info.Mode(), err)
	}
}

func TestOpen_LeavesTheModeOfAFolderThatExists(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	openIn(t, dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("mode of the folder became %v (%v)", info.Mode(), err)
	}
}

func TestOpen_RefusesAFileInPlaceOfTheFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		_, err := Open(dir, Options{})
		if !errors.Is(err, domain.ErrStorage) || ports.KindOf(err) != ports.Definite {
			t.Errorf("open %s: %v, want a definite storage error", dir, err)
		}
	}
}

func TestOpen_FindsWhatAnEarlierStoreStored(t *testing.T) {
	dir := t.TempDir()
	if err := openIn(t, dir).Put(t.Context(), "segments/00/a", []byte("bytes")); err != nil {
		t.Fatal(err)
	}
	again := openIn(t, dir)
	got, err := again.ReadRange(t.Context(), "segments/00/a", 1, 3)
	if err != nil || string(got) != "yte" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := again.Put(t.Context(), "segments/00/a", []byte("bytes")); !errors.Is(err, ports.ErrObjectExists) {
		t.Errorf("put again: %v", err)
	}
}

func TestStore_LeavesNoTemporaryBehind(t *testing.T) {
	for name, s := range map[string]*Store{"nameless": openStore(t), "named": openNamed(t)} {
		for i := range 5 {
			key := fmt.Sprintf("segments/00/%d", i%3) // two of them exist
			if err := s.Put(t.Context(), key, []byte("x")); err != nil && !errors.Is(err, ports.ErrObjectExists) {
				t.Fatal(err)
			}
		}
		var files []string
		_ = filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				files = append(files, path)
			}
			return nil
		})
		if len(files) != 3 {
			t.Errorf("%s: three objects left the files %q", name, files)
		}
	}
}

func TestStore_LeaksNoFileDescriptors(t *testing.T) {
	s := openStore(t)
	calls := func() {
		for range 20 {
			_ = s.Put(t.Context(), "segments/00/a", []byte("x"))
			_, _ = s.ReadRange(t.Context(), "segments/00/a", 0, 1)
			_, _ = s.ReadRange(t.Context(), "segments/00/a", 0, 2)
			_, _ = s.Stat(t.Context(), "segments/00/a")
			_, _ = s.Stat(t.Context(), "segments")
			_, _ = s.List(t.Context(), "", 10)
			_ = s.Delete(t.Context(), "segments/00/b")
		}
	}
	calls()
	before := openFiles(t)
	calls()
	if after := openFiles(t); after > before+1 { // the spare
		t.Errorf("%d open files became %d", before, after)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestStore_IgnoresWhatIsNoObject(t *testing.T) {
	s := openStore(t)
	if err := s.Put(t.Context(), "segments/00/object", []byte("x")); err != nil {
		t.Fatal(err)
	}
	shard := filepath.Join(s.dir, "segments", "00")
	for _, name := range []string{"notes.txt", "UPPER", ".hidden", "with space", "object~"} {
		if err := os.WriteFile(filepath.Join(shard, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.MkdirAll(filepath.Join(shard, "empty", "folders"), 0o700),
		unix.Mkfifo(filepath.Join(shard, "fifo"), 0o600),
		os.Symlink("nowhere", filepath.Join(shard, "dangling")),
	); err != nil {
		t.Fatal(err)
	}
	infos, err := s.List(t.Context(), "", 100)
	if err != nil || len(infos) != 1 || infos[0].Key != "segments/00/object" {
		t.Errorf("list shows %+v, %v", infos, err)
	}
	for _, key := range []string{"segments/00/fifo", "segments/00/empty", "segments/00/dangling"} {
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, ports.ErrObjectNotFound) {
			t.Errorf("stat %s: %v", key, err)
		}
		if _, err := s.ReadRange(t.Context(), key, 0, 0); !errors.Is(err, ports.ErrObjectNotFound) {
			t.Errorf("read %s: %v", key, err)
		}
		if err := s.Put(t.Context(), key, nil); err == nil || errors.Is(err, ports.ErrObjectExists) {
			t.Errorf("put %s: %v, want another error: there is no object", key, err)
		}
	}
}

func TestStore_PutWhereAFileStandsInPlaceOfTheShardIsDefinite(t *testing.T) {
	s := openStore(t)
	if err := os.WriteFile(filepath.Join(s.dir, "segments"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := s.Put(t.Context(), "segments/00/a", nil)
	if ports.KindOf(err) != ports.Definite || !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("put: %v", err)
	}
}

func TestStore_PutMakesAShardAgainThatSomebodyRemoved(t *testing.T) {
	for name, s := range map[string]*Store{"nameless": openStore(t), "named": openNamed(t)} {
		for i := range 3 {
			err := s.Put(t.Context(), fmt.Sprintf("segments/00/%d", i), []byte("x"))
			for ports.KindOf(err) == ports.Transient && err != nil {
				err = s.Put(t.Context(), fmt.Sprintf("segments/00/%d", i), []byte("x"))
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := os.RemoveAll(filepath.Join(s.dir, "segments")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestList_PagesAFolderLargerThanItsMemory(t *testing.T) {
	s := openStore(t)
	const objects = 2*listChunk + 100
	var want []string
	for i := range objects {
		shard := filepath.Join(s.dir, "segments", fmt.Sprintf("%02x", i%2))
		if err := errors.Join(os.MkdirAll(shard, 0o700), os.WriteFile(filepath.Join(shard, fmt.Sprint(i)), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("segments/%02x/%d", i%2, i))
	}
	for i := range listChunk + 10 { // folders that hold nothing must not end a page
		if err := os.MkdirAll(filepath.Join(s.dir, fmt.Sprintf("empty-%d", i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	for _, limit := range []int{700, objects + 1} {
		var got []string
		after := ""
		for {
			infos, err := s.List(t.Context(), after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(infos) == 0 {
				break
			}
			for _, info := range infos {
				got = append(got, info.Key)
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d gave %d keys, want %d", limit, len(got), len(want))
		}
	}
}

func TestClose_LetsNoCallBegin(t *testing.T) {
	s := openStore(t)
	if err := errors.Join(s.Put(t.Context(), "a", nil), s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, statErr := s.Stat(t.Context(), "a")
	_, readErr := s.ReadRange(t.Context(), "a", 0, 0)
	_, listErr := s.List(t.Context(), "", 1)
	for _, err := range []error{s.Put(t.Context(), "b", nil), s.Delete(t.Context(), "a"), statErr, readErr, listErr} {
		if !errors.Is(err, domain.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestErrors_NameTheObject(t *testing.T) {
	_, err := openStore(t).Stat(t.Context(), "segments/00/gone")
	if err == nil || !strings.Contains(err.Error(), "segments/00/gone") {
		t.Errorf("error is %v", err)
	}
}
