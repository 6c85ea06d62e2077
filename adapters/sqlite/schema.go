package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// applicationID marks the file as ours: "SHse".
	applicationID = 0x53487365
	// schemaVersion is the newest migration's.
	schemaVersion = 2
	versionTable  = "schema_version"
)

// ours refuses a file whose header or schema is not for us. It opens the file
// as immutable, so that not even a journal appears beside it.
//
// It does not see the write-ahead log. Without it a file whose last checkpoint was
// cut off looks damaged, and one that is being checkpointed torn: what is not clear is left
// to check, which sees all.
func ours(path string) error {
	c, err := dial(path, url.Values{"mode": {"ro"}, "immutable": {"1"}})
	if err != nil {
		return explainOpen(err)
	}
	defer func() { _ = c.close() }()
	switch err := c.ours(); {
	case corrupt(err):
		return nil
	case err != nil:
		return explainOpen(err)
	}
	if version, err := schemaVersionOf(c); err == nil && version > schemaVersion {
		return newerSchema(version)
	}
	return nil
}

// ours refuses a database that is not marked as ours.
func (c *conn) ours() error {
	id, err := c.value("PRAGMA application_id")
	if err == nil && id != int64(applicationID) {
		err = fmt.Errorf("it is another application's database (application_id %v)", id)
	}
	return err
}

func newerSchema(version int64) error {
	return fmt.Errorf("its schema has version %d, and this program knows up to %d: use a newer program", version, schemaVersion)
}

func schemaVersionOf(c *conn) (int64, error) {
	v, err := c.value("SELECT coalesce(max(version_id), 0) FROM " + versionTable + " WHERE is_applied")
	if err != nil {
		return 0, err
	}
	version, ok := v.(int64)
	if !ok {
		return 0, damagedError("the schema has no version")
	}
	return version, nil
}

// exclusively runs fn while no other process creates or migrates the file. The
// lock is on a file of its own, beside it.
func exclusively(ctx context.Context, path string, fn func() error) error {
	lock := flock.New(path + ".lock")
	if _, err := lock.TryLockContext(ctx, 5*time.Millisecond); err != nil {
		return fmt.Errorf("lock for creation: %w", err)
	}
	err := fn()
	return errors.Join(err, lock.Close())
}

// create makes a new metadata file: beside its place first, so that it appears
// there complete.
func create(ctx context.Context, path string) error {
	folder := filepath.Dir(path)
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return fmt.Errorf("its folder %s does not exist: create it first", folder)
	}
	return exclusively(ctx, path, func() error {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return err // another process was faster
		}
		unfinished := path + ".new"
		if err := removeAll(unfinished, unfinished+"-journal", unfinished+"-wal", unfinished+"-shm"); err != nil {
			return err
		}
		if err := build(ctx, unfinished); err != nil {
			return err
		}
		if err := os.Rename(unfinished, path); err != nil {
			return err
		}
		return syncFile(folder)
	})
}

func removeAll(paths ...string) error {
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// build writes a metadata file of the present schema, with a new cluster.
func build(ctx context.Context, path string) error {
	c, err := dial(path, url.Values{"mode": {"rwc"}})
	if err != nil {
		return err
	}
	err = c.run(fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if err == nil {
		err = migrate(ctx, path)
	}
	if err == nil {
		now := time.Now()
		id := newID(now)
		err = c.exec(&query{"INSERT INTO cluster (one, cluster_id, created_at) VALUES (1, ?, ?)"}, id[:], now.UnixMilli())
	}
	if err == nil {
		_, err = c.value("PRAGMA journal_mode = WAL")
	}
	if err := errors.Join(err, c.close()); err != nil {
		return err
	}
	return syncFile(path)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// migrateLocked brings the schema of a file that may be in use up to date.
func migrateLocked(ctx context.Context, path string) error {
	return exclusively(ctx, path, func() error { return migrate(ctx, path) })
}

func migrate(ctx context.Context, path string) error {
	uri := url.URL{Scheme: "file", Path: path, RawQuery: "mode=rw&_busy_timeout=5000&_txlock=immediate"}
	connector, err := sqlite.NewConnector(uri.String())
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	scripts, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, scripts,
		goose.WithTableName(versionTable), goose.WithGoMigrations(schema2), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return errors.Join(err, db.Close())
	}
	_, err = provider.Up(ctx)
	return errors.Join(err, provider.Close())
}

// oldest is the first SQLite without the bug by which a checkpoint that raced a
// write could lose commits.
var oldest = [3]int{3, 51, 3}

// supported refuses an SQLite library that is too old.
func supported(version string) error {
	var v [3]int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &v[0], &v[1], &v[2]); err != nil {
		return fmt.Errorf("SQLite library version %q: %w", version, err)
	}
	for i := range v {
		if v[i] != oldest[i] {
			if v[i] < oldest[i] {
				return fmt.Errorf("SQLite library %s can lose commits: at least %d.%d.%d is needed", version, oldest[0], oldest[1], oldest[2])
			}
			break
		}
	}
	return nil
}
