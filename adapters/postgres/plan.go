package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// planReads finds the bounds and extents of all requests. Extents follow each
// other without a gap, so each is looked up where the one before ends: what is not returned is
// not touched.
const planReads = `WITH RECURSIVE asked AS MATERIALIZED (
		SELECT u.ord, u.start, u.bytes, u.most, t.name, t.partitions, p.topic_no, p.partition, p.log_start, p.next_offset
		FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[], $5::integer[]) WITH ORDINALITY AS u(topic, no, start, bytes, most, ord)
		LEFT JOIN topics AS t ON t.topic_id = u.topic AND t.deleted_at IS NULL
		LEFT JOIN partitions AS p ON p.topic_no = t.topic_no AND p.partition = u.no
	), found AS (
		SELECT a.ord, a.bytes - e.length AS room, 1 AS n, a.most, e.* FROM asked AS a
		CROSS JOIN LATERAL (SELECT * FROM extents AS x WHERE x.topic_no = a.topic_no AND x.partition = a.partition
			AND x.base_offset <= a.start ORDER BY x.base_offset DESC LIMIT 1) AS e
		WHERE a.bytes > 0 AND a.start >= a.log_start AND a.start < a.next_offset
	UNION ALL
		SELECT f.ord, f.room - e.length, f.n + 1, f.most, e.* FROM found AS f
		JOIN extents AS e ON e.topic_no = f.topic_no AND e.partition = f.partition AND e.base_offset = f.last_offset + 1
		WHERE f.n < f.most AND f.room >= e.length
	)
	SELECT a.ord, a.name, a.partitions, a.log_start, a.next_offset, ` + extentColumns + `
	FROM asked AS a LEFT JOIN found AS e USING (ord) LEFT JOIN segments AS s ON s.segment_id = e.segment_id
	ORDER BY a.ord, e.base_offset`

const extentColumns = `e.base_offset, e.last_offset, e.segment_id, e.position, e.length, e.batches, e.max_timestamp, e.committed_at, s.object_key`

// extentRow scans extentColumns, which may be NULL all together.
type extentRow struct {
	base, last, position, length, maxTimestamp, committedAt *int64
	batches                                                 *int32
	segment                                                 *[16]byte
	key                                                     *string
}

func (e *extentRow) targets(before ...any) []any {
	return append(before, &e.base, &e.last, &e.segment, &e.position, &e.length, &e.batches, &e.maxTimestamp, &e.committedAt, &e.key)
}

// ref gives the extent of a row that is not NULL.
func (e *extentRow) ref(key commit.PartitionKey) (ports.ExtentRef, error) {
	if e.key == nil {
		return ports.ExtentRef{}, damaged("an extent's segment %x has no row", *e.segment)
	}
	return ports.ExtentRef{
		Extent: commit.Extent{
			Topic: key.Topic, Partition: key.Partition, Base: domain.Offset(*e.base), Last: domain.Offset(*e.last),
			Segment: *e.segment, Position: *e.position, Length: *e.length, Batches: *e.batches,
			MaxTimestamp: *e.maxTimestamp, CommittedAt: *e.committedAt,
		},
		ObjectKey: *e.key,
	}, nil
}

// damaged says that what the database holds cannot have been written by us.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: the metadata are damaged: "+format, append([]any{domain.ErrInternal}, args...)...)
}

// Plan implements ports.Log. All requests are one statement.
func (s *Store) Plan(ctx context.Context, requests []ports.PlanRequest) ([]ports.Plan, error) {
	n := len(requests)
	topics, numbers, most := make([][16]byte, n), make([]int32, n), make([]int32, n)
	starts, bytes := make([]int64, n), make([]int64, n)
	for i, r := range requests {
		topics[i], numbers[i], most[i] = r.Topic, int32(r.Partition), int32(r.Extents())
		starts[i], bytes[i] = int64(r.From), r.MaxBytes
	}
	var plans []ports.Plan
	err := s.read(ctx, "plan reads", func(c *pgxpool.Conn) error {
		plans = make([]ports.Plan, n)
		err := query(ctx, c, planReads, func(r pgx.Rows) error { return scanPlan(r, requests, plans) }, topics, numbers, starts, bytes, most)
		if err != nil {
			return err
		}
		return complete(requests, plans)
	})
	return given(&plans, err)
}

func scanPlan(r pgx.Rows, requests []ports.PlanRequest, plans []ports.Plan) error {
	var (
		at          int
		topic       *string
		count       *int32
		start, next *int64
		e           extentRow
	)
	if err := r.Scan(e.targets(&at, &topic, &count, &start, &next)...); err != nil {
		return err
	}
	plan, key := &plans[at-1], requests[at-1].PartitionKey
	if start == nil {
		plan.Err = missing(key, topic, count)
		return nil
	}
	plan.LogStart, plan.HighWatermark = domain.Offset(*start), domain.Offset(*next)
	if e.base == nil {
		return nil
	}
	ref, err := e.ref(key)
	plan.Extents = append(plan.Extents, ref)
	return err
}

// missing says which part of key does not exist, for a partition without a row.
func missing(key commit.PartitionKey, topic *string, count *int32) error {
	if topic == nil {
		return fmt.Errorf("topic %s: %w", key.Topic, domain.ErrTopicNotFound)
	}
	return &domain.InvalidPartitionError{Topic: *topic, Partition: key.Partition, Count: *count}
}

// complete checks that what is between the bounds is there.
func complete(requests []ports.PlanRequest, plans []ports.Plan) error {
	for i, r := range requests {
		p := plans[i]
		if p.Err != nil || r.MaxBytes <= 0 || r.From < p.LogStart || r.From >= p.HighWatermark {
			continue
		}
		if len(p.Extents) == 0 || p.Extents[0].Last < r.From {
			return damaged("no extent of topic %s partition %d holds offset %d", r.Topic, r.Partition, r.From)
		}
	}
	return nil
}

const extentByTime = `SELECT t.name, t.partitions, p.log_start, ` + extentColumns + `
	FROM (SELECT $1::uuid AS topic, $2::integer AS no) AS u
	LEFT JOIN topics AS t ON t.topic_id = u.topic AND t.deleted_at IS NULL
	LEFT JOIN partitions AS p ON p.topic_no = t.topic_no AND p.partition = u.no
	LEFT JOIN LATERAL (SELECT * FROM extents AS x WHERE x.topic_no = p.topic_no AND x.partition = p.partition
		AND x.max_timestamp >= $3 ORDER BY x.base_offset LIMIT 1) AS e ON true
	LEFT JOIN segments AS s ON s.segment_id = e.segment_id`

// ExtentAt implements ports.Log. It costs by the extents before the one it
// finds.
func (s *Store) ExtentAt(ctx context.Context, key commit.PartitionKey, timestamp int64) (extent ports.ExtentRef, found bool, err error) {
	err = s.read(ctx, "find extent by time", func(c *pgxpool.Conn) error {
		found = false
		return query(ctx, c, extentByTime, func(r pgx.Rows) error {
			var (
				topic *string
				count *int32
				start *int64
				e     extentRow
			)
			if err := r.Scan(e.targets(&topic, &count, &start)...); err != nil {
				return err
			}
			if start == nil {
				return missing(key, topic, count)
			}
			if e.base == nil {
				return nil
			}
			found = true
			var err error
			extent, err = e.ref(key)
			return err
		}, [16]byte(key.Topic), int32(key.Partition), timestamp)
	})
	if err != nil || !found {
		return ports.ExtentRef{}, false, err
	}
	return extent, true, nil
}
