package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

const oldestExtents = `SELECT last_offset, length, committed_at FROM extents
	WHERE topic_no = $1 AND partition = $2 ORDER BY base_offset LIMIT $3`

// retained says how many of the oldest extents of a partition retention lets go.
func retained(ctx context.Context, tx pgx.Tx, t topicRow, key commit.PartitionKey, p commit.Partition, limit int) (n int, to domain.Offset, err error) {
	var now int64
	if err := tx.QueryRow(ctx, timeNow).Scan(&now); err != nil {
		return 0, 0, err
	}
	var extents []commit.Extent
	err = query(ctx, tx, oldestExtents, func(r pgx.Rows) error {
		var e commit.Extent
		err := r.Scan(&e.Last, &e.Length, &e.CommittedAt)
		extents = append(extents, e)
		return err
	}, t.no, int32(key.Partition), limit)
	if err != nil {
		return 0, 0, err
	}
	if n, _ = commit.Retained(t.Retention, extents, p.Bytes, now); n > 0 {
		to = extents[n-1].Last + 1
	}
	return n, to, nil
}

// Retain implements ports.Upkeep. It locks nothing if there is nothing to do.
func (s *Store) Retain(ctx context.Context, key commit.PartitionKey, limit int) (ports.Removed, error) {
	op := fmt.Sprintf("retain topic %s partition %d", key.Topic, key.Partition)
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return ports.Removed{}, err
	}
	var removed ports.Removed
	err := s.write(ctx, op, func(ctx context.Context, tx pgx.Tx) error {
		removed = ports.Removed{}
		t, p, err := partition(ctx, tx, key)
		if err != nil {
			return err
		}
		removed.LogStart = p.LogStart
		n, to, err := retained(ctx, tx, t, key, p, limit)
		if err != nil || n == 0 {
			return err
		}
		if err := exec(ctx, tx, lockSegmentsBelow, t.no, int32(key.Partition), int64(to)); err != nil {
			return err
		}
		if p, err = locked(ctx, tx, t, key); err != nil {
			return err
		}
		removed.LogStart = p.LogStart
		if n, to, err = retained(ctx, tx, t, key, p, limit); err != nil || n == 0 {
			return err
		}
		removed.LogStart, removed.More = to, n == limit
		removed.Extents, removed.Bytes, err = drop(ctx, tx, t, key, p, to)
		return err
	})
	return given(&removed, err)
}

const (
	// Another janitor's topics are left to it.
	lockDeletedTopic = `SELECT topic_no, topic_id FROM topics WHERE deleted_at IS NOT NULL AND topic_id > $1
		ORDER BY topic_id LIMIT 1 FOR UPDATE SKIP LOCKED`
	lockPurged = `SELECT segment_id FROM segments WHERE segment_id IN
		(SELECT segment_id FROM (SELECT segment_id FROM extents WHERE topic_no = $1 ORDER BY partition, base_offset LIMIT $2) AS e)
		ORDER BY segment_id FOR UPDATE`
	purgeExtents = `WITH chosen AS MATERIALIZED (SELECT partition, base_offset FROM extents WHERE topic_no = $1 ORDER BY partition, base_offset LIMIT $2),
		gone AS (DELETE FROM extents AS e USING chosen WHERE e.topic_no = $1 AND e.partition = chosen.partition
			AND e.base_offset = chosen.base_offset RETURNING e.segment_id, e.length),
		` + releaseGone
	// What the streams of a deleted topic alone know, how long their sessions
	// last, is kept.
	someStreams = `SELECT producer_id, max(accepted_at) FROM producer_partitions WHERE topic_no = $1 AND producer_id IN
		(SELECT producer_id FROM (SELECT producer_id FROM producer_partitions WHERE topic_no = $1 LIMIT $2) AS s)
		GROUP BY producer_id`
	saveActive = `UPDATE producers AS p SET active_at = greatest(p.active_at, u.at)
		FROM unnest($1::bigint[], $2::bigint[]) AS u(id, at) WHERE p.producer_id = u.id`
	lockActive       = "SELECT producer_id FROM producers WHERE producer_id = ANY ($1) ORDER BY producer_id FOR NO KEY UPDATE"
	deleteStreamsOf  = "DELETE FROM producer_partitions WHERE topic_no = $1 AND producer_id = ANY ($2)"
	deleteTopicEmpty = `DELETE FROM topics AS t WHERE topic_no = $1 AND NOT EXISTS (SELECT 1 FROM extents AS e WHERE e.topic_no = t.topic_no)
		AND NOT EXISTS (SELECT 1 FROM producer_partitions AS s WHERE s.topic_no = t.topic_no)`
)

// PurgeTopics implements ports.Upkeep. With the last extent of a topic go the
// sequences of its producers and its row, which nobody sees.
func (s *Store) PurgeTopics(ctx context.Context, limit int) (ports.Removed, error) {
	const op = "purge deleted topics"
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return ports.Removed{}, err
	}
	var removed ports.Removed
	err := s.write(ctx, op, func(ctx context.Context, tx pgx.Tx) error {
		removed = ports.Removed{}
		var topic [16]byte
		for visited := 0; removed.Extents < limit && visited < limit; visited++ {
			no, found := int64(0), false
			err := query(ctx, tx, lockDeletedTopic, func(r pgx.Rows) error {
				found = true
				return r.Scan(&no, &topic)
			}, topic)
			if err != nil || !found {
				return err
			}
			if err := purge(ctx, tx, no, limit, &removed); err != nil {
				return err
			}
		}
		removed.More = removed.Extents == limit
		return nil
	})
	return given(&removed, err)
}

// purge removes up to limit extents, all in all, and some streams of a deleted
// topic, and its row if that was all.
func purge(ctx context.Context, tx pgx.Tx, no int64, limit int, removed *ports.Removed) error {
	room := limit - removed.Extents
	if err := exec(ctx, tx, lockPurged, no, room); err != nil {
		return err
	}
	var extents int
	var bytes int64
	if err := tx.QueryRow(ctx, purgeExtents, no, room).Scan(&extents, &bytes); err != nil {
		return err
	}
	removed.Extents += extents
	removed.Bytes += bytes
	if extents == room {
		return nil
	}
	var ids, active []int64
	err := query(ctx, tx, someStreams, func(r pgx.Rows) error {
		var id, at int64
		err := r.Scan(&id, &at)
		ids, active = append(ids, id), append(active, at)
		return err
	}, no, limit)
	if err != nil {
		return err
	}
	if len(ids) > 0 {
		if err := exec(ctx, tx, lockActive, ids); err != nil {
			return err
		}
		if err := exec(ctx, tx, saveActive, ids, active); err != nil {
			return err
		}
		if err := exec(ctx, tx, deleteStreamsOf, no, ids); err != nil {
			return err
		}
	}
	return exec(ctx, tx, deleteTopicEmpty, no)
}

const (
	expirePending = `WITH due AS MATERIALIZED (SELECT segment_id FROM segments WHERE state = 1 AND created_at <= (SELECT now_ms()) - $1::bigint
			ORDER BY created_at, segment_id LIMIT $2 FOR UPDATE SKIP LOCKED)
		UPDATE segments AS s SET state = 3, state_at = (SELECT now_ms()) FROM due WHERE s.segment_id = due.segment_id RETURNING 1`
	forgetDeleted = `WITH due AS MATERIALIZED (SELECT segment_id FROM segments WHERE state = 4 AND state_at <= (SELECT now_ms()) - $1::bigint
			ORDER BY state_at, segment_id LIMIT $2 FOR UPDATE SKIP LOCKED)
		DELETE FROM segments AS s USING due WHERE s.segment_id = due.segment_id RETURNING 1`
	markDeleted = `WITH due AS MATERIALIZED (SELECT segment_id FROM segments WHERE segment_id = ANY ($1) AND state = 3 ORDER BY segment_id FOR UPDATE)
		UPDATE segments AS s SET state = 4, state_at = (SELECT now_ms()) FROM due WHERE s.segment_id = due.segment_id RETURNING 1`
	listGarbage = `SELECT segment_id, object_key FROM segments WHERE state = 3 AND segment_id > $1 AND state_at <= (SELECT now_ms()) - $2::bigint
		ORDER BY segment_id LIMIT $3`
)

// step runs one statement of upkeep and counts its rows.
func (s *Store) step(ctx context.Context, op, statement string, limit int, args ...any) (int, error) {
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return 0, err
	}
	n := 0
	err := s.write(ctx, op, func(ctx context.Context, tx pgx.Tx) error {
		n = 0
		return query(ctx, tx, statement, func(pgx.Rows) error { n++; return nil }, args...)
	})
	return given(&n, err)
}

// ExpireReservations implements ports.Upkeep.
func (s *Store) ExpireReservations(ctx context.Context, grace time.Duration, limit int) (int, error) {
	return s.step(ctx, "expire reservations", expirePending, limit, grace.Milliseconds(), limit)
}

// ForgetDeleted implements ports.Upkeep.
func (s *Store) ForgetDeleted(ctx context.Context, age time.Duration, limit int) (int, error) {
	return s.step(ctx, "forget deleted segments", forgetDeleted, limit, age.Milliseconds(), limit)
}

// MarkDeleted implements ports.Upkeep.
func (s *Store) MarkDeleted(ctx context.Context, ids []domain.SegmentID) error {
	_, err := s.step(ctx, "mark segments deleted", markDeleted, max(1, len(ids)), uuids(ids))
	return err
}

// Garbage implements ports.Upkeep.
func (s *Store) Garbage(ctx context.Context, grace time.Duration, after domain.SegmentID, limit int) ([]ports.SegmentRef, error) {
	const op = "list garbage"
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return nil, err
	}
	var refs []ports.SegmentRef
	err := s.read(ctx, op, func(c *pgxpool.Conn) error {
		refs = []ports.SegmentRef{}
		return query(ctx, c, listGarbage, func(r pgx.Rows) error {
			var id [16]byte
			var ref ports.SegmentRef
			err := r.Scan(&id, &ref.Key)
			ref.ID = id
			refs = append(refs, ref)
			return err
		}, [16]byte(after), grace.Milliseconds(), limit)
	})
	return given(&refs, err)
}

func uuids(ids []domain.SegmentID) [][16]byte {
	all := make([][16]byte, len(ids))
	for i, id := range ids {
		all[i] = id
	}
	return all
}
