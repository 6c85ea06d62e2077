package sqlite

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

const segmentColumns = "SELECT segment_id, object_key, state, size_bytes, crc32c, live_extents, created_at, state_at FROM segments "

var (
	// topicsFrom are the topics from the id ?1 on, deleted ones too.
	topicsFrom = query{`SELECT topic_id, topic_no FROM topics WHERE topic_id >= ?1
		UNION ALL SELECT topic_id, topic_no FROM deleted_topics WHERE topic_id >= ?1 ORDER BY topic_id`}
	segmentsAfter = query{segmentColumns + "WHERE segment_id > ? ORDER BY segment_id LIMIT ?"}
	segmentRows   = newBulk(segmentColumns+"WHERE segment_id IN (", "?", ")")
)

// inspect runs a page of at most limit rows in one snapshot.
func (s *Store) inspect(ctx context.Context, op string, limit int, page func(*conn) error) error {
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return err
	}
	return s.read(ctx, op, page)
}

// Extents implements ports.Inspection. Besides the extents it costs by how many
// topics without any lie between.
func (s *Store) Extents(ctx context.Context, after ports.ExtentPlace, limit int) ([]ports.ExtentRef, error) {
	var refs []ports.ExtentRef
	err := s.inspect(ctx, "list extents", limit, func(c *conn) error {
		refs = make([]ports.ExtentRef, 0, min(limit, 1024))
		return c.query(&topicsFrom, func(r *row) error {
			topic, no := domain.TopicID(r.uuid(0)), r.int(1)
			if r.err != nil {
				return r.err
			}
			from, base, last := placeIn(topic, no, after)
			rows, err := c.extentRows(&extentsAfter, topic, from, base, last, int64(limit-len(refs)))
			if err != nil {
				return err
			}
			for _, e := range rows {
				refs = append(refs, e.ExtentRef)
			}
			if len(refs) == limit {
				return errStop
			}
			return nil
		}, after.Topic[:])
	})
	return given(refs, err)
}

// placeIn returns the partition key and base offset after which a page that
// begins after the place goes on in a topic, and the topic's last partition key.
func placeIn(topic domain.TopicID, no int64, after ports.ExtentPlace) (from, base, last int64) {
	first, last := topicKeys(no)
	switch {
	case topic != after.Topic || after.Partition < 0:
		return first, -1, last
	case after.Partition > domain.MaxPartitions:
		return last, maxOffset, last
	}
	return partitionKey(no, after.Partition), int64(after.Base), last
}

var (
	keptTopics = query{topicColumns + `WHERE (retention_ns > 0 OR retention_bytes > 0) AND topic_id >= ? ORDER BY topic_id`}
	// The oldest extent of each partition with the keys ?1 to ?2.
	oldestExtents = query{`SELECT p.partition_key, p.bytes, e.length, e.committed_at FROM partitions AS p JOIN extents AS e
		ON e.partition_key = p.partition_key
		AND e.base_offset = (SELECT min(base_offset) FROM extents WHERE partition_key = p.partition_key)
		WHERE p.partition_key BETWEEN ?1 AND ?2 ORDER BY p.partition_key`}
)

// RetentionDue implements ports.Inspection.
func (s *Store) RetentionDue(ctx context.Context, after commit.PartitionKey, limit int) ([]commit.PartitionKey, error) {
	var due []commit.PartitionKey
	err := s.inspect(ctx, "find partitions that retention is due for", limit, func(c *conn) error {
		due = []commit.PartitionKey{}
		return c.query(&keptTopics, func(r *row) error {
			t := scanTopic(r)
			if r.err != nil {
				return r.err
			}
			if err := c.retentionDue(t, after, s.now().UnixMilli(), limit, &due); err != nil {
				return err
			}
			if len(due) == limit {
				return errStop
			}
			return nil
		}, after.Topic[:])
	})
	return given(due, err)
}

// retentionDue appends the partitions of t behind the one after, up to limit in
// all.
func (c *conn) retentionDue(t topicRow, after commit.PartitionKey, now int64, limit int, due *[]commit.PartitionKey) error {
	first, last := t.keys()
	from := first
	if t.ID == after.Topic && after.Partition >= 0 {
		from = partitionKey(t.no, min(after.Partition, domain.MaxPartitions-1)) + 1
	}
	return c.query(&oldestExtents, func(r *row) error {
		oldest := []commit.Extent{{Length: r.int(2), CommittedAt: r.int(3)}}
		if n, _ := commit.Retained(t.Retention, oldest, r.int(1), now); n > 0 {
			*due = append(*due, commit.PartitionKey{Topic: t.ID, Partition: domain.PartitionID(r.int(0) - first)})
		}
		if len(*due) == limit {
			return errStop
		}
		return nil
	}, from, last)
}

func scanSegment(r *row) ports.SegmentRow {
	return ports.SegmentRow{
		SegmentRef: ports.SegmentRef{ID: domain.SegmentID(r.uuid(0)), Key: r.text(1)},
		State:      ports.SegmentState(r.int(2)),
		Size:       r.int(3), CRC32C: uint32(r.int(4)), Live: int(r.int(5)),
		CreatedAt: time.UnixMilli(r.int(6)).UTC(), StateAt: time.UnixMilli(r.int(7)).UTC(),
	}
}

// Segments implements ports.Inspection.
func (s *Store) Segments(ctx context.Context, after domain.SegmentID, limit int) ([]ports.SegmentRow, error) {
	var rows []ports.SegmentRow
	err := s.inspect(ctx, "list segments", limit, func(c *conn) error {
		rows = []ports.SegmentRow{}
		return c.query(&segmentsAfter, func(r *row) error {
			rows = append(rows, scanSegment(r))
			return nil
		}, after[:], int64(limit))
	})
	return given(rows, err)
}

// SegmentsByID implements ports.Inspection.
func (s *Store) SegmentsByID(ctx context.Context, ids []domain.SegmentID) ([]ports.SegmentRow, error) {
	var rows []ports.SegmentRow
	args := make([]driver.Value, len(ids))
	for i, id := range ids {
		args[i] = append([]byte(nil), id[:]...)
	}
	err := s.inspect(ctx, "find segments", max(1, len(ids)), func(c *conn) error {
		rows = make([]ports.SegmentRow, 0, len(ids))
		return c.queryBulk(segmentRows, func(r *row) error {
			rows = append(rows, scanSegment(r))
			return nil
		}, args)
	})
	return given(rows, err)
}
