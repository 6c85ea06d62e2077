package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/ports"
)

// DropSchema removes the schema that a URL names and everything in it: topics,
// offsets, the way to every record. It is for stores that were made to be thrown away. A schema
// that does not exist is a success.
func DropSchema(ctx context.Context, url string) error {
	t, err := parseURL(url, Options{})
	if err != nil {
		return err
	}
	op := fmt.Sprintf("drop schema %s of postgres %s", t.schema, t.name)
	c, err := pgx.ConnectConfig(ctx, t.pool.ConnConfig)
	if err != nil {
		return ports.MetadataError(op, ports.Transient, err)
	}
	defer closeConn(c)
	if _, err := c.Exec(ctx, "DROP SCHEMA IF EXISTS "+quoted(t.schema)+" CASCADE"); err != nil {
		return ports.MetadataError(op, ports.Ambiguous, err)
	}
	return nil
}
