package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// schema2 adds what upkeep needs. It is in Go because the checksums of extents
// have to cover a new column.
//
// A program of schema 1 that still has the file open cannot commit any more: the column
// that it would write has another name, and it stops with an error that says so. Nor can it read
// records: their rows no longer have the checksum that it expects.
var schema2 = goose.NewGoMigration(2, &goose.GoFunc{RunTx: upgradeTo2}, nil)

const (
	// segments.state: 4 is deleted. state_at is when the segment came into its
	// state. replaced is how many copies held, null if the segment was not committed by
	// a compaction. What only gathers, garbage and deleted rows, is found by small indexes.
	// An index of the pending ones would cost every commit; reservations costs only Reserve: it has the
	// numbers of the segments that were reserved together, until none of them can be pending any
	// more. Numbers of forgotten segments may be given again, so created_at decides.
	beforeExtents2 = `
		ALTER TABLE segments RENAME COLUMN committed_at TO state_at;
		ALTER TABLE segments ADD COLUMN replaced INTEGER;
		UPDATE segments SET state_at = created_at WHERE state = 1;
		CREATE TABLE reservations (
			created_at INTEGER NOT NULL,
			first_no   INTEGER NOT NULL,
			last_no    INTEGER NOT NULL,
			PRIMARY KEY (created_at, first_no)
		) STRICT, WITHOUT ROWID;
		INSERT INTO reservations SELECT created_at, segment_no, segment_no FROM segments WHERE state = 1;
		CREATE INDEX segments_deleting ON segments (segment_id, state_at) WHERE state = 3;
		CREATE INDEX segments_deleted ON segments (state_at) WHERE state = 4;

		-- swept is null while the topic has extents. From then on its sequences
		-- go, producer by producer, and swept is the last of them.
		CREATE TABLE deleted_topics (
			topic_no   INTEGER PRIMARY KEY,
			topic_id   BLOB NOT NULL UNIQUE,
			deleted_at INTEGER NOT NULL,
			swept      INTEGER
		) STRICT;
		CREATE INDEX deleted_topics_full ON deleted_topics (topic_no) WHERE swept IS NULL;
		CREATE INDEX deleted_topics_empty ON deleted_topics (topic_no) WHERE swept IS NOT NULL;

		CREATE TABLE agents (
			agent_id    BLOB PRIMARY KEY,
			agent_group TEXT NOT NULL,
			zone        TEXT NOT NULL,
			address     TEXT NOT NULL,
			version     TEXT NOT NULL,
			started_at  INTEGER NOT NULL,
			seen_at     INTEGER NOT NULL,
			draining    INTEGER NOT NULL
		) STRICT, WITHOUT ROWID;

		CREATE TABLE extents2 (
			partition_key INTEGER NOT NULL,
			base_offset   INTEGER NOT NULL,
			last_offset   INTEGER NOT NULL,
			segment_no    INTEGER NOT NULL,
			position      INTEGER NOT NULL,
			length        INTEGER NOT NULL,
			batches       INTEGER NOT NULL,
			max_timestamp INTEGER NOT NULL,
			committed_at  INTEGER NOT NULL,
			row_crc32c    INTEGER NOT NULL,
			PRIMARY KEY (partition_key, base_offset)
		) STRICT, WITHOUT ROWID`

	// When garbage came to be was not kept. It counts from now, so that readers
	// that know of it have their time.
	garbageSince2 = `UPDATE segments SET state_at = max(?, created_at, state_at) WHERE state = 3`

	oldExtents2 = `SELECT partition_key, base_offset, last_offset, segment_no, position, length, batches, max_timestamp, row_crc32c, s.state_at
		FROM extents LEFT JOIN segments AS s USING (segment_no) ORDER BY partition_key, base_offset`
	newExtent2    = `INSERT INTO extents2 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	afterExtents2 = `DROP TABLE extents; ALTER TABLE extents2 RENAME TO extents`
)

func upgradeTo2(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, beforeExtents2); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, garbageSince2, time.Now().UnixMilli()); err != nil {
		return err
	}
	if err := copyExtents2(ctx, tx); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, afterExtents2)
	return err
}

// copyExtents2 gives each extent the time of its segment's commit, and a
// checksum of all, if it has the one it should have.
func copyExtents2(ctx context.Context, tx *sql.Tx) error {
	insert, err := tx.PrepareContext(ctx, newExtent2)
	if err != nil {
		return err
	}
	defer func() { _ = insert.Close() }()
	rows, err := tx.QueryContext(ctx, oldExtents2)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var (
			pk, base, last, no, sum int64
			committed               sql.NullInt64
			e                       commit.Extent
		)
		if err := rows.Scan(&pk, &base, &last, &no, &e.Position, &e.Length, &e.Batches, &e.MaxTimestamp, &sum, &committed); err != nil {
			return err
		}
		if sum != sumOf(pk, base, last, no, e.Position, e.Length, int64(e.Batches), e.MaxTimestamp) || !committed.Valid {
			return damagedError("an extent's row does not have its checksum")
		}
		e.Base, e.Last, e.CommittedAt = domain.Offset(base), domain.Offset(last), committed.Int64
		_, err := insert.ExecContext(ctx, pk, base, last, no, e.Position, e.Length, e.Batches, e.MaxTimestamp, e.CommittedAt, sumOfExtent(pk, no, e))
		if err != nil {
			return err
		}
	}
	return rows.Err()
}
