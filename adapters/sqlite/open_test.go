package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// script runs statements on the file at path as another program would.
func script(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(s, err)
		}
	}
}

// closedStore makes a metadata file that holds something, and closes it.
func closedStore(t *testing.T, path string) {
	t.Helper()
	s, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	topic := createTopic(t, s, "orders", 64)
	for range 20 {
		must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{segmentOf(t, s, topic, ports.ProducerSession{ID: -1}, 0, 64)}))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	return must[[]byte](t)(os.ReadFile(path))
}

// refusals are files that must not be opened: how they come to be, and a word
// of the sentence that says why.
var refusals = []struct {
	name string
	make func(t *testing.T, path string)
	says string
}{
	{"folder", func(t *testing.T, path string) {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}, "folder"},
	{"empty file", func(t *testing.T, path string) { writeFile(t, path, nil) }, "empty"},
	{"text file", func(t *testing.T, path string) {
		writeFile(t, path, bytes.Repeat([]byte("user123\tsigned up\n"), 1000))
	}, "not an SQLite database"},
	{"short text file", func(t *testing.T, path string) { writeFile(t, path, []byte("hello\n")) }, "not an SQLite database"},
	{"another application's database", func(t *testing.T, path string) {
		script(t, path, "PRAGMA application_id = 7", "CREATE TABLE topics (a)")
	}, "another application"},
	{"another application's database in WAL mode", func(t *testing.T, path string) {
		script(t, path, "PRAGMA journal_mode = WAL", "CREATE TABLE topics (a)")
	}, "another application"},
	{"newer schema", func(t *testing.T, path string) {
		closedStore(t, path)
		script(t, path, "INSERT INTO schema_version (version_id, is_applied) VALUES (999, 1)")
	}, "newer program"},
	{"damaged header", func(t *testing.T, path string) {
		closedStore(t, path)
		b := readFile(t, path)
		copy(b, "SQLite format 9")
		writeFile(t, path, b)
	}, "header is damaged"},
	{"damaged page", func(t *testing.T, path string) {
		closedStore(t, path)
		b := readFile(t, path)
		for i := 8192; i < len(b); i += 4096 {
			copy(b[i:], "overwritten by something else")
		}
		writeFile(t, path, b)
	}, "damaged"},
	{"cut short", func(t *testing.T, path string) {
		closedStore(t, path)
		b := readFile(t, path)
		writeFile(t, path, b[:len(b)/2])
	}, "damaged"},
	{"read-only", func(t *testing.T, path string) {
		closedStore(t, path)
		if err := os.Chmod(path, 0o444); err != nil {
			t.Fatal(err)
		}
	}, "read-only"},
}

func TestOpen_RefusesAndWritesNothing(t *testing.T) {
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metadata.db")
			r.make(t, path)
			before := folder(t, filepath.Dir(path))
			s, err := Open(t.Context(), path, Options{})
			if err == nil {
				s.Close()
				t.Fatal("was opened")
			}
			if !strings.Contains(err.Error(), r.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %q does not say %q and the path", err, r.says)
			}
			if ports.KindOf(err) != ports.Definite || !errors.Is(err, domain.ErrMetadata) {
				t.Errorf("error %v is %v", err, ports.KindOf(err))
			}
			after := folder(t, filepath.Dir(path))
			for name, content := range after {
				if before[name] != content {
					t.Errorf("%s was written", name)
				}
			}
			if len(after) != len(before) {
				t.Errorf("folder held %d files, now %d", len(before), len(after))
			}
		})
	}
}

// folder returns the contents of a folder's files by name.
func folder(t *testing.T, path string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(path)) {
		if e.IsDir() {
			files[e.Name()] = "folder"
		} else {
			files[e.Name()] = string(readFile(t, filepath.Join(path, e.Name())))
		}
	}
	return files
}

func TestOpen_RefusesAMissingFolder(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "nowhere")
	_, err := Open(t.Context(), filepath.Join(missing, "metadata.db"), Options{})
	if err == nil || !strings.Contains(err.Error(), "folder "+missing+" does not exist") {
		t.Fatal(err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Fatal("the folder was made")
	}
}

func TestOpen_RefusesAFileLockedByAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	closedStore(t, path)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range []string{"PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"} {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, path, Options{}); ports.KindOf(err) != ports.Transient {
		t.Fatalf("locked: %v", err)
	}
}

func TestOpen_RefusesAnUnknownSynchronous(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	_, err := Open(t.Context(), path, Options{UnsafeSynchronous: "FAST"})
	var config *domain.ConfigError
	if !errors.As(err, &config) || config.Value != "FAST" {
		t.Fatal(err)
	}
}

func TestOpen_SyncsEveryCommitUnlessToldOtherwise(t *testing.T) {
	for option, want := range map[string]int64{"": 2, "NORMAL": 1, "OFF": 0} {
		s := must[*Store](t)(Open(t.Context(), filepath.Join(t.TempDir(), "metadata.db"), Options{UnsafeSynchronous: option}))
		err := s.write(t.Context(), "look", func(c *conn) error {
			level, err := c.value("PRAGMA synchronous")
			if level != want {
				t.Errorf("synchronous with %q is %v, want %d", option, level, want)
			}
			mode, _ := c.value("PRAGMA journal_mode")
			if mode != "wal" {
				t.Errorf("journal mode is %v", mode)
			}
			return err
		})
		if err := errors.Join(err, s.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestOpen_TakesOverWhatACrashedCreationLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	writeFile(t, path+".new", []byte("half a database"))
	writeFile(t, path+".new-journal", []byte("half a journal"))
	writeFile(t, path+".lock", nil)
	s := openTest(t, path)
	createTopic(t, s, "orders", 1)
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("the unfinished file is still there")
	}
}

func TestOpen_GoesOnFromACheckpointThatWasCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	s := openTest(t, path)
	before := readFile(t, path)
	topic := createTopic(t, s, "orders", 64)
	for range 20 {
		must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{segmentOf(t, s, topic, ports.ProducerSession{ID: -1}, 0, 64)}))
	}
	log := readFile(t, path+"-wal")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	after := readFile(t, path)
	if len(after) <= len(before) {
		t.Fatal("the checkpoint did not make the file longer")
	}
	for _, pages := range []int{1, 2, len(before) / 4096} {
		cut := filepath.Join(t.TempDir(), "metadata.db")
		// The first pages are those of the checkpoint, the others were not reached.
		writeFile(t, cut, append(bytes.Clone(after[:4096*pages]), before[4096*pages:]...))
		writeFile(t, cut+"-wal", log)
		s := openTest(t, cut)
		if high := s.highWatermark(t); high != 200 {
			t.Errorf("with %d pages: high watermark %d", pages, high)
		}
		checkInvariants(t, cut)
	}
}

func TestOpen_AcceptsAwkwardPaths(t *testing.T) {
	for _, name := range []string{"a b", "a?mode=ro", "a%20b", "a#b", "ä:b;c&d=e"} {
		path := filepath.Join(t.TempDir(), name)
		s := must[*Store](t)(Open(t.Context(), path, Options{}))
		createTopic(t, s, "orders", 1)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestOpen_FromManyAtOnceMakesOneCluster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	stores := make(chan *Store, 8)
	for range cap(stores) {
		go func() {
			s, err := Open(t.Context(), path, Options{})
			if err != nil {
				t.Error(err)
			}
			stores <- s
		}()
	}
	ids := make(map[domain.ClusterID]bool)
	for range cap(stores) {
		if s := <-stores; s != nil {
			ids[s.ClusterID()] = true
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if len(ids) != 1 {
		t.Fatalf("%d clusters", len(ids))
	}
}

func TestSchemaVersion_IsThatOfTheNewestMigration(t *testing.T) {
	names := must[[]os.DirEntry](t)(migrations.ReadDir("migrations"))
	if len(names) != 1 || schema2.Version != schemaVersion {
		t.Fatalf("%d migrations in SQL and one in Go to version %d, the newest is said to be %d", len(names), schema2.Version, schemaVersion)
	}
	s := newTest(t)
	err := s.read(t.Context(), "look", func(c *conn) error {
		if version, err := schemaVersionOf(c); err != nil || version != schemaVersion {
			t.Errorf("a new file has version %d, %v", version, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSupported_DemandsTheSQLiteWithoutTheLostCommits(t *testing.T) {
	for version, want := range map[string]bool{
		"3.51.2": false, "3.51.3": true, "3.51.10": true, "3.50.9": false, "3.52.0": true,
		"4.0.0": true, "2.99.99": false, "": false, "three": false,
	} {
		if err := supported(version); (err == nil) != want {
			t.Errorf("%q: %v", version, err)
		}
	}
}
