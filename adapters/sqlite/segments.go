package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"fmt"
	"math"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// The states of a segment, as they are stored.
const (
	statePending   = 1
	stateCommitted = 2
	stateDeleting  = 3
)

const (
	maxReserve = 1024
	maxOffset  = math.MaxInt64
)

var insertSegments = newBulk(
	"INSERT INTO segments (segment_id, object_key, state, created_at) VALUES ", "(?, ?, 1, ?)", "")

// newID makes an identifier that sorts by time.
func newID(now time.Time) domain.UUID {
	var random [10]byte
	rand.Read(random[:])
	return domain.NewUUIDv7(now, random)
}

// Reserve implements ports.Log.
func (s *Store) Reserve(ctx context.Context, n int) ([]ports.SegmentRef, error) {
	op := fmt.Sprintf("reserve %d segments", n)
	if n < 1 || n > maxReserve {
		return nil, ports.MetadataError(op, ports.Definite, fmt.Errorf("want 1 to %d", maxReserve))
	}
	now := s.now()
	refs := make([]ports.SegmentRef, n)
	args := make([]driver.Value, 0, n*insertSegments.width)
	for i := range refs {
		id := domain.SegmentID(newID(now))
		refs[i] = ports.SegmentRef{ID: id, Key: segment.Key(id)}
		args = append(args, id[:], refs[i].Key, now.UnixMilli())
	}
	err := s.write(ctx, op, func(c *conn) error { return c.execBulk(insertSegments, args) })
	return given(refs, err)
}

var (
	// The extents of the partitions ?1 to ?2 that end before the offset ?3.
	releaseSegments = query{`UPDATE segments SET
			live_extents = live_extents - gone.n,
			state = CASE WHEN live_extents = gone.n THEN 3 ELSE state END
		FROM (SELECT segment_no AS no, count(*) AS n FROM extents
			WHERE partition_key BETWEEN ?1 AND ?2 AND last_offset < ?3 GROUP BY segment_no) AS gone
		WHERE segment_no = gone.no`}
	releasedBytes = query{`SELECT coalesce(sum(length), 0) FROM extents
		WHERE partition_key BETWEEN ?1 AND ?2 AND last_offset < ?3`}
	deleteExtents = query{"DELETE FROM extents WHERE partition_key BETWEEN ?1 AND ?2 AND last_offset < ?3"}
	updateStart   = query{"UPDATE partitions SET log_start = ?, bytes = ?, row_crc32c = ? WHERE partition_key = ?"}
)

// dropExtents deletes the extents of the partitions first to last that end
// before the offset to, lets go of their segments, and returns how many bytes they held.
func (c *conn) dropExtents(first, last int64, to domain.Offset) (bytes int64, err error) {
	args := []driver.Value{first, last, int64(to)}
	err = c.query(&releasedBytes, func(r *row) error {
		bytes = r.int(0)
		return nil
	}, args...)
	if err != nil {
		return 0, err
	}
	if !mutant.On(mutantTrimKeepsSegment) {
		if err := c.exec(&releaseSegments, args...); err != nil {
			return 0, err
		}
	}
	return bytes, c.exec(&deleteExtents, args...)
}

// Trim implements ports.Log.
func (s *Store) Trim(ctx context.Context, key commit.PartitionKey, to domain.Offset) (domain.Offset, error) {
	var start domain.Offset
	err := s.write(ctx, fmt.Sprintf("trim topic %s partition %d", key.Topic, key.Partition), func(c *conn) error {
		t, p, err := c.partition(key)
		if err != nil {
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
		pk := partitionKey(t.no, key.Partition)
		bytes, err := c.dropExtents(pk, pk, to)
		if err != nil {
			return err
		}
		p.LogStart, p.Bytes = start, p.Bytes-bytes
		return c.exec(&updateStart, int64(p.LogStart), p.Bytes, sumOfPartition(p), pk)
	})
	return given(start, err)
}
