package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// The rest of the topic that the page before ended in, then the topics after it.
const listExtents = `SELECT e.topic_id, e.partition, ` + extentColumns + ` FROM (
		(SELECT t.topic_id, x.* FROM topics AS t JOIN extents AS x USING (topic_no)
			WHERE t.topic_id = $1 AND (x.partition, x.base_offset) > ($2, $3) ORDER BY x.partition, x.base_offset LIMIT $4)
		UNION ALL
		(SELECT t.topic_id, x.* FROM topics AS t CROSS JOIN LATERAL (SELECT * FROM extents AS y WHERE y.topic_no = t.topic_no
				ORDER BY y.partition, y.base_offset LIMIT $4) AS x
			WHERE t.topic_id > $1 ORDER BY t.topic_id, x.partition, x.base_offset LIMIT $4)
	) AS e LEFT JOIN segments AS s USING (segment_id)
	ORDER BY e.topic_id, e.partition, e.base_offset LIMIT $4`

// Extents implements ports.Inspection.
func (s *Store) Extents(ctx context.Context, after ports.ExtentPlace, limit int) ([]ports.ExtentRef, error) {
	const op = "list extents"
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return nil, err
	}
	var refs []ports.ExtentRef
	err := s.read(ctx, op, func(c *pgxpool.Conn) error {
		refs = []ports.ExtentRef{}
		return query(ctx, c, listExtents, func(r pgx.Rows) error {
			var topic [16]byte
			var number int32
			var e extentRow
			if err := r.Scan(e.targets(&topic, &number)...); err != nil {
				return err
			}
			ref, err := e.ref(commit.PartitionKey{Topic: topic, Partition: domain.PartitionID(number)})
			refs = append(refs, ref)
			return err
		}, [16]byte(after.Topic), int32(after.Partition), int64(after.Base), limit)
	})
	return given(&refs, err)
}

const (
	segmentColumns = `SELECT segment_id, object_key, state, size_bytes, crc32c, live_extents, created_at, state_at FROM segments `
	segmentsAfter  = segmentColumns + "WHERE segment_id > $1 ORDER BY segment_id LIMIT $2"
	segmentsByID   = segmentColumns + "WHERE segment_id = ANY ($1)"
)

// Segments implements ports.Inspection.
func (s *Store) Segments(ctx context.Context, after domain.SegmentID, limit int) ([]ports.SegmentRow, error) {
	return s.segments(ctx, "list segments", segmentsAfter, limit, [16]byte(after), limit)
}

// SegmentsByID implements ports.Inspection.
func (s *Store) SegmentsByID(ctx context.Context, ids []domain.SegmentID) ([]ports.SegmentRow, error) {
	return s.segments(ctx, "find segments", segmentsByID, max(1, len(ids)), uuids(ids))
}

func (s *Store) segments(ctx context.Context, op, statement string, limit int, args ...any) ([]ports.SegmentRow, error) {
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return nil, err
	}
	var rows []ports.SegmentRow
	err := s.read(ctx, op, func(c *pgxpool.Conn) error {
		rows = []ports.SegmentRow{}
		return query(ctx, c, statement, func(r pgx.Rows) error {
			row, err := scanSegment(r)
			rows = append(rows, row)
			return err
		}, args...)
	})
	return given(&rows, err)
}

func scanSegment(r pgx.Row) (row ports.SegmentRow, err error) {
	var id [16]byte
	var state int16
	var sum, created, at int64
	err = r.Scan(&id, &row.Key, &state, &row.Size, &sum, &row.Live, &created, &at)
	row.ID, row.State, row.CRC32C = id, ports.SegmentState(state), uint32(sum)
	row.CreatedAt, row.StateAt = time.UnixMilli(created).UTC(), time.UnixMilli(at).UTC()
	return row, err
}

// As commit.Retained decides on the oldest extent.
const retentionDue = `SELECT t.topic_id, p.partition FROM topics AS t JOIN partitions AS p USING (topic_no)
	CROSS JOIN LATERAL (SELECT x.length, x.committed_at FROM extents AS x WHERE x.topic_no = p.topic_no AND x.partition = p.partition
		ORDER BY x.base_offset LIMIT 1) AS e
	WHERE t.deleted_at IS NULL AND (t.retention_ns > 0 OR t.retention_bytes > 0) AND t.topic_id >= $1 AND (t.topic_id, p.partition) > ($1, $2)
		AND (t.retention_ns > 0 AND e.committed_at <= (SELECT now_ms()) - t.retention_ns / 1000000
			OR t.retention_bytes > 0 AND p.bytes - e.length >= t.retention_bytes)
	ORDER BY t.topic_id, p.partition LIMIT $3`

// RetentionDue implements ports.Inspection.
func (s *Store) RetentionDue(ctx context.Context, after commit.PartitionKey, limit int) ([]commit.PartitionKey, error) {
	const op = "find partitions that retention is due for"
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return nil, err
	}
	var due []commit.PartitionKey
	err := s.read(ctx, op, func(c *pgxpool.Conn) error {
		due = []commit.PartitionKey{}
		return query(ctx, c, retentionDue, func(r pgx.Rows) error {
			var topic [16]byte
			var number int32
			err := r.Scan(&topic, &number)
			due = append(due, commit.PartitionKey{Topic: topic, Partition: domain.PartitionID(number)})
			return err
		}, [16]byte(after.Topic), int32(after.Partition), limit)
	})
	return given(&due, err)
}
