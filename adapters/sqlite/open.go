package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// lockWait is how long Open waits for a file that another process has locked
// for itself alone, if its context allows as much.
const lockWait = 5 * time.Second

// Open opens the metadata file at path and brings its schema up to date. A file that
// does not exist is created, complete or not at all; its folder must exist.
//
// Nothing is written to a file that is refused: a folder, an empty or foreign
// file, another application's database, a schema newer than this program, a damaged file, one
// that may not be written, one that another process keeps locked.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	op := "open metadata file " + path
	if err := o.validate(); err != nil {
		return nil, err
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, ports.MetadataError(op, ports.Definite, err)
	}
	s := newStore(absolute, o)
	if err := s.open(ctx); err != nil {
		return nil, refusal(op, err)
	}
	return s, nil
}

func (o Options) validate() error {
	switch o.UnsafeSynchronous {
	case "", "NORMAL", "OFF":
		return nil
	}
	return &domain.ConfigError{Field: "UnsafeSynchronous", Value: o.UnsafeSynchronous, Want: `"" (full sync), "NORMAL" or "OFF"`}
}

func newStore(path string, o Options) *Store {
	s := &Store{path: path, options: o, now: time.Now, writer: make(chan *conn, 1), idle: make(chan *conn, readers)}
	s.writer <- nil
	for range readers {
		s.idle <- nil
	}
	s.wakes.Watch = s.watch
	return s
}

// refusal gives the error of an Open that failed: nothing was written.
func refusal(op string, err error) error {
	var known *ports.Error
	if errors.As(err, &known) {
		return err
	}
	kind := ports.Definite
	if busy(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		kind = ports.Transient
	}
	return ports.MetadataError(op, kind, err)
}

func (s *Store) open(ctx context.Context) error {
	// Where there is no fdatasync the full sync stays.
	_, _ = sqlite.Fdatasync(true)
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = create(ctx, s.path); err == nil {
			info, err = os.Stat(s.path)
		}
	}
	if err != nil {
		return err
	}
	if err := acceptable(s.path, info); err != nil {
		return err
	}
	s.file = info
	return s.connect(ctx)
}

// acceptable refuses what can be seen to be no metadata file without opening
// it for writing.
func acceptable(path string, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return errors.New("it is a folder: give the path of the file in it")
	case !info.Mode().IsRegular():
		return fmt.Errorf("it is not a regular file (%s)", info.Mode().Type())
	case info.Size() == 0:
		return errors.New("it is empty, which a metadata file never is: restore it from a backup, or delete it to begin anew")
	case info.Mode().Perm()&0o222 == 0:
		return errors.New("it is read-only: allow writing to it")
	}
	return ours(path)
}

// connect opens the writing connection and learns the cluster's id.
func (s *Store) connect(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	c, err := s.patiently(waiting, func() (*conn, error) { return s.ready(ctx) })
	if err != nil {
		if busy(err) && ctx.Err() == nil {
			return fmt.Errorf("another process keeps it locked: %w", err)
		}
		return err
	}
	<-s.writer
	s.writer <- c
	return nil
}

// patiently repeats open while others hold a lock, until ctx ends.
func (s *Store) patiently(ctx context.Context, open func() (*conn, error)) (*conn, error) {
	for wait := newBackoff(); ; {
		c, err := open()
		if err == nil || !busy(err) {
			return c, err
		}
		if wait.sleep(ctx) != nil {
			return nil, err
		}
	}
}

// ready gives a writing connection to a file of the present schema.
func (s *Store) ready(ctx context.Context) (*conn, error) {
	c, err := s.dialWriter()
	if err != nil {
		return nil, explainOpen(err)
	}
	err = s.check(ctx, c)
	if err != nil {
		_ = c.close()
		return nil, explainOpen(err)
	}
	return c, nil
}

func (s *Store) check(ctx context.Context, c *conn) error {
	library, err := c.value("SELECT sqlite_version()")
	if err != nil {
		return err
	}
	if err := supported(fmt.Sprint(library)); err != nil {
		return err
	}
	if err := c.ours(); err != nil {
		return err
	}
	if err := healthy(c); err != nil {
		return err
	}
	version, err := schemaVersionOf(c)
	if err != nil {
		return err
	}
	if version > schemaVersion {
		return newerSchema(version)
	}
	if version < schemaVersion {
		if err := migrateLocked(ctx, s.path); err != nil {
			return err
		}
	}
	id, err := c.value("SELECT cluster_id FROM cluster")
	if err != nil {
		return err
	}
	b, _ := id.([]byte)
	if copy(s.cluster[:], b) != len(s.cluster) {
		return damagedError("the cluster has no id")
	}
	return nil
}

// checkBytes is up to which size a file is read through for damage when it is
// opened: that takes a quarter of a second. In a larger one damage shows when it is met, and
// the store then refuses everything.
const checkBytes = 64 << 20

// healthy looks for damaged pages.
func healthy(c *conn) error {
	size, err := c.value("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
	if n, ok := size.(int64); err == nil && ok && n > checkBytes {
		return nil
	}
	answer, err := c.value("PRAGMA quick_check(1)")
	if err == nil && answer != "ok" {
		err = damagedError(fmt.Sprint(answer))
	}
	return err
}

// explainOpen says in a sentence what SQLite's error means for a file that is
// being opened.
func explainOpen(err error) error {
	var e coded
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_NOTADB:
		return fmt.Errorf("it is not an SQLite database, or its header is damaged: %w", err)
	case lib.SQLITE_CORRUPT:
		return fmt.Errorf("it is damaged: restore it from a backup: %w", err)
	case lib.SQLITE_READONLY:
		return fmt.Errorf("it is read-only: allow writing to it and its folder: %w", err)
	case lib.SQLITE_CANTOPEN:
		return fmt.Errorf("it cannot be opened for reading and writing: %w", err)
	}
	return err
}

// openWriter opens the writing connection of a store that is open.
func (s *Store) openWriter(context.Context) (*conn, error) { return s.dialWriter() }

// openReader opens a reading connection of a store that is open.
func (s *Store) openReader(context.Context) (*conn, error) {
	return s.dial("PRAGMA query_only = ON; PRAGMA cache_size = -2000")
}

// checkpointPages is how far the write-ahead log grows before a commit moves it
// into the database file: 16 MiB.
const checkpointPages = 4000

func (s *Store) dialWriter() (*conn, error) {
	synchronous := s.options.UnsafeSynchronous
	if synchronous == "" {
		synchronous = "FULL"
	}
	return s.dial(fmt.Sprintf("PRAGMA synchronous = %s; PRAGMA wal_autocheckpoint = %d; PRAGMA cache_size = -8000", synchronous, checkpointPages))
}

func (s *Store) dial(settings string) (*conn, error) {
	c, err := dial(s.path, url.Values{"mode": {"rw"}})
	if err != nil {
		return nil, err
	}
	if err := c.prepare(settings); err != nil {
		_ = c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) prepare(settings string) error {
	mode, err := c.value("PRAGMA journal_mode = WAL")
	if err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("its file system does not allow a write-ahead log: the journal mode is %v", mode)
	}
	return c.run("PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; " + settings)
}
