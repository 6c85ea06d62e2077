package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// The states of a segment, as they are stored: those of ports.SegmentState.
const (
	statePending   = int16(ports.SegmentPending)
	stateCommitted = int16(ports.SegmentCommitted)
	stateDeleting  = int16(ports.SegmentDeleting)
)

const maxReserve = 1024

// newID makes an identifier that sorts by this machine's time. Nothing is decided by it.
func newID() domain.UUID {
	var random [10]byte
	rand.Read(random[:])
	return domain.NewUUIDv7(time.Now(), random)
}

const insertSegments = `INSERT INTO segments (segment_id, object_key, state, created_at, state_at)
	SELECT u.id, u.key, 1, n.now, n.now FROM unnest($1::uuid[], $2::text[]) AS u(id, key), (SELECT now_ms() AS now) AS n`

// Reserve implements ports.Log.
func (s *Store) Reserve(ctx context.Context, n int) ([]ports.SegmentRef, error) {
	op := fmt.Sprintf("reserve %d segments", n)
	if n < 1 || n > maxReserve {
		return nil, ports.MetadataError(op, ports.Definite, fmt.Errorf("want 1 to %d", maxReserve))
	}
	refs, ids, keys := make([]ports.SegmentRef, n), make([][16]byte, n), make([]string, n)
	for i := range refs {
		id := domain.SegmentID(newID())
		refs[i] = ports.SegmentRef{ID: id, Key: segment.Key(id)}
		ids[i], keys[i] = id, refs[i].Key
	}
	err := s.once(ctx, op, insertSegments, []any{ids, keys}, ignored, nothing)
	return given(&refs, err)
}

const (
	// The segments of the extents of a partition that end before $3, locked
	// before the partition, as every transaction does. An extent that is replaced between the two
	// leads to a segment that is not locked; at worst the server then ends a deadlock, and the transaction
	// is begun again.
	lockSegmentsBelow = `SELECT segment_id FROM segments WHERE segment_id IN (SELECT segment_id FROM extents
		WHERE topic_no = $1 AND partition = $2 AND base_offset < $3 AND last_offset < $3) ORDER BY segment_id FOR UPDATE`
	dropExtentsBelow = `WITH gone AS (DELETE FROM extents
			WHERE topic_no = $1 AND partition = $2 AND base_offset < $3 AND last_offset < $3 RETURNING segment_id, length),
		` + releaseGone
	// Lets go of the segments of the extents in gone.
	releaseGone = `freed AS (UPDATE segments AS s SET live_extents = live_extents - g.n,
			state = CASE WHEN live_extents = g.n THEN 3 ELSE state END,
			state_at = CASE WHEN live_extents = g.n THEN (SELECT now_ms()) ELSE state_at END
			FROM (SELECT segment_id, count(*) AS n FROM gone GROUP BY segment_id) AS g
			WHERE s.segment_id = g.segment_id RETURNING 1)
		SELECT count(*), coalesce(sum(length), 0)::bigint FROM gone`
	updateStart = "UPDATE partitions SET log_start = $3, bytes = $4 WHERE topic_no = $1 AND partition = $2"

	// For the planted bug only.
	mutantDropExtents = `WITH gone AS (DELETE FROM extents
			WHERE topic_no = $1 AND partition = $2 AND base_offset < $3 AND last_offset < $3 RETURNING length)
		SELECT count(*), coalesce(sum(length), 0)::bigint FROM gone`
)

// drop removes the extents of a locked partition that end before to, lets go of
// their segments, and raises the log start to to.
func drop(ctx context.Context, tx pgx.Tx, t topicRow, key commit.PartitionKey, p commit.Partition, to domain.Offset) (extents int, bytes int64, err error) {
	statement := dropExtentsBelow
	if mutant.On(mutantTrimKeepsSegment) {
		statement = mutantDropExtents
	}
	err = tx.QueryRow(ctx, statement, t.no, int32(key.Partition), int64(to)).Scan(&extents, &bytes)
	if err != nil {
		return 0, 0, err
	}
	return extents, bytes, exec(ctx, tx, updateStart, t.no, int32(key.Partition), int64(to), p.Bytes-bytes)
}

// Trim implements ports.Log.
func (s *Store) Trim(ctx context.Context, key commit.PartitionKey, to domain.Offset) (domain.Offset, error) {
	var start domain.Offset
	err := s.write(ctx, fmt.Sprintf("trim topic %s partition %d", key.Topic, key.Partition), func(ctx context.Context, tx pgx.Tx) error {
		t, p, err := partition(ctx, tx, key)
		if err != nil {
			return err
		}
		if to > p.LogStart && to <= p.NextOffset {
			if err := exec(ctx, tx, lockSegmentsBelow, t.no, int32(key.Partition), int64(to)); err != nil {
				return err
			}
		}
		if p, err = locked(ctx, tx, t, key); err != nil {
			return err
		}
		if to < 0 || to > p.NextOffset {
			return &domain.OutOfRangeError{
				Topic: t.Name, Partition: key.Partition,
				Offset: to, LogStart: p.LogStart, HighWatermark: p.NextOffset,
			}
		}
		start = max(to, p.LogStart)
		if start == p.LogStart {
			return nil
		}
		_, _, err = drop(ctx, tx, t, key, p, to)
		return err
	})
	return given(&start, err)
}
