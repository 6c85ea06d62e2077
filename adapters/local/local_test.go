package local_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/adapters/local"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, dir string, opts ...local.Option) *local.Store {
	t.Helper()
	s, err := local.Open(t.Context(), dir, opts...)
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

// refused demands a definite error of the class that says what.
func refused(t *testing.T, err, class error, what string) {
	t.Helper()
	if !errors.Is(err, class) || ports.KindOf(err) != ports.Definite || !strings.Contains(err.Error(), what) {
		t.Errorf("error is %v, want a definite one of class %v that says %q", err, class, what)
	}
}

func TestStore_KeepsTheContractOfSegments(t *testing.T) {
	portstest.TestSegmentStore(t, func(t testing.TB) ports.SegmentStore { return open(t, t.TempDir()).Segments() })
}

func TestOpen_MakesTheFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	open(t, dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v, want mode 0700", info, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "metadata.db")); err != nil {
		t.Error(err)
	}
}

func TestOpen_FindsWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	ref, err := first.Metadata().Reserve(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	topic, err := first.Metadata().CreateTopic(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 3})
	if err := errors.Join(err, first.Segments().Put(t.Context(), ref[0].Key, []byte("bytes")), first.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(ref[0].Key))); err != nil {
		t.Errorf("an object is not where its key says: %v", err)
	}
	again := open(t, dir)
	if again.Metadata().ClusterID() != first.Metadata().ClusterID() {
		t.Error("the cluster has another id")
	}
	if found, err := again.Metadata().Topic(t.Context(), "orders"); err != nil || found.ID != topic.ID {
		t.Errorf("topic is %+v, %v", found, err)
	}
	if got, err := again.Segments().ReadRange(t.Context(), ref[0].Key, 0, 5); err != nil || string(got) != "bytes" {
		t.Errorf("object holds %q, %v", got, err)
	}
}

func TestOpen_RefusesWrongThingsInTheFolder(t *testing.T) {
	write := func(name, content string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, filepath.FromSlash(name))
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cases := []struct {
		name    string
		prepare func(t *testing.T, dir string)
		class   error
		says    string
	}{
		{"empty metadata file", write("metadata.db", ""), domain.ErrMetadata, "empty"},
		{"text as metadata file", write("metadata.db", strings.Repeat("not a database\n", 1000)), domain.ErrMetadata, "metadata.db"},
		{"folder as metadata file", write("metadata.db/file", ""), domain.ErrMetadata, "folder"},
		{"file as segments", write("segments", "text"), domain.ErrStorage, "segments is not a folder"},
		{"metadata file is gone", write("segments/00/0190", "object"), domain.ErrMetadata, "metadata.db is missing"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.prepare(t, dir)
			before := tree(t, dir)
			_, err := local.Open(t.Context(), dir)
			refused(t, err, c.class, c.says)
			if after := tree(t, dir); after != before {
				t.Errorf("the refused folder was changed from\n%s to\n%s", before, after)
			}
		})
	}
}

// tree lists the files below dir with their contents.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		b.WriteString(path + ": " + string(content) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestOpen_AcceptsAFolderWithEmptySegmentsAndStrangers(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "segments", "00"), 0o700),
		os.WriteFile(filepath.Join(dir, "README.txt"), []byte("mine"), 0o600),
		// Names that a key could have, and that sort after segments/.
		os.MkdirAll(filepath.Join(dir, "training"), 0o700),
		os.WriteFile(filepath.Join(dir, "training", "set"), []byte("mine"), 0o600),
		os.WriteFile(filepath.Join(dir, "zebra"), []byte("mine"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestOpen_RefusesAFileInPlaceOfTheFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := local.Open(t.Context(), file)
	refused(t, err, domain.ErrStorage, file)
}

func TestOpen_RefusesAnUnknownSynchronousMode(t *testing.T) {
	var fault *domain.ConfigError
	if _, err := local.Open(t.Context(), t.TempDir(), local.UnsafeSynchronous("MAYBE")); !errors.As(err, &fault) {
		t.Errorf("error is %v, want a *domain.ConfigError", err)
	}
}

func TestOpen_ObeysAnEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := local.Open(ctx, t.TempDir())
	if err == nil {
		_ = s.Close()
		t.Error("an ended context opened a store")
	}
}

func TestClose_MayBeCalledTwice(t *testing.T) {
	s := open(t, t.TempDir())
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := s.Metadata().ListTopics(t.Context()); !errors.Is(err, domain.ErrClosed) {
		t.Errorf("metadata after Close: %v", err)
	}
	if _, err := s.Segments().List(t.Context(), "", 1); !errors.Is(err, domain.ErrClosed) {
		t.Errorf("segments after Close: %v", err)
	}
}
