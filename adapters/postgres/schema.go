package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// schemaVersion is the newest migration's.
	schemaVersion = 3
	versionTable  = "schema_version"
)

// migrated brings the schema up to date, while no other process does. One that
// is so already needs no right to change it.
func migrated(ctx context.Context, c *pgx.Conn, t *target, recovery bool) error {
	version, err := versionOf(ctx, c)
	if err != nil || version == schemaVersion {
		return err
	}
	if recovery {
		return refusedError(fmt.Sprintf("the schema has version %d, this program needs %d, and a server in recovery cannot be migrated", version, schemaVersion))
	}
	// A lock of the session, which ends with it. It may be waited for as long as
	// ctx allows.
	const key = "hashtextextended('streamhouse migration of ' || $1, 0)"
	if _, err := c.Exec(ctx, "SET statement_timeout = 0; SET lock_timeout = 0"); err != nil {
		return err
	}
	if _, err := c.Exec(ctx, "SELECT pg_advisory_lock("+key+")", t.schema); err != nil {
		return err
	}
	if version, err = versionOf(ctx, c); err != nil || version == schemaVersion {
		return err // another process was faster
	}
	if err := createSchema(ctx, c, t.schema); err != nil {
		return err
	}
	if err := migrate(ctx, t); err != nil {
		return err
	}
	_, err = c.Exec(ctx, "SELECT pg_advisory_unlock("+key+")", t.schema)
	return err
}

// versionOf returns the version of the schema, 0 if there is none yet.
func versionOf(ctx context.Context, c *pgx.Conn) (version int64, err error) {
	var exists, readable bool
	err = c.QueryRow(ctx, `SELECT count(*) > 0, coalesce(bool_and(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')), true)
		FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
		WHERE c.relname = $1 AND quote_ident(n.nspname) = current_setting('search_path') OR
			c.relname = $1 AND '"' || n.nspname || '"' = current_setting('search_path')`, versionTable).Scan(&exists, &readable)
	if err != nil || !exists {
		return 0, err
	}
	if !readable {
		return 0, refusedError("the database user lacks privileges: USAGE on the schema, SELECT on " + versionTable + "; see the grants in docs/postgres.md")
	}
	err = c.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versionTable+" WHERE is_applied").Scan(&version)
	if err == nil && version > schemaVersion {
		err = refusedError(fmt.Sprintf("its schema has version %d, and this program knows up to %d: use a newer program", version, schemaVersion))
	}
	return version, err
}

// createSchema makes the schema if there is none. It asks first: to make one
// takes a privilege even if it exists.
func createSchema(ctx context.Context, c *pgx.Conn, schema string) error {
	var exists, may bool
	err := c.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1),
		has_database_privilege(current_database(), 'CREATE') OR
		coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1), false)`, schema).Scan(&exists, &may)
	switch {
	case err != nil:
		return err
	case !may:
		return refusedError("the database user may not create the schema's tables: grant CREATE on the database or on the schema, or open it once with its owner; see docs/postgres.md")
	case exists:
		return nil
	}
	_, err = c.Exec(ctx, "CREATE SCHEMA "+quoted(schema))
	return err
}

func migrate(ctx context.Context, t *target) error {
	config := t.pool.ConnConfig.Copy()
	config.RuntimeParams["statement_timeout"] = "0"
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(1)
	scripts, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return errors.Join(err, db.Close())
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, scripts,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return errors.Join(err, db.Close())
	}
	_, err = provider.Up(ctx)
	return errors.Join(err, provider.Close())
}
