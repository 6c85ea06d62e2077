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
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// The states of a segment, as they are stored: those of ports.SegmentState.
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
	"INSERT INTO segments (segment_id, object_key, state, created_at, state_at) VALUES ", "(?, ?, 1, ?, ?)", "")

// insertReservation notes the numbers that the next ?2 segments will have.
var insertReservation = query{`INSERT INTO reservations (created_at, first_no, last_no)
	SELECT ?1, coalesce(max(segment_no), 0) + 1, coalesce(max(segment_no), 0) + ?2 FROM segments`}

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
		args = append(args, id[:], refs[i].Key, now.UnixMilli(), now.UnixMilli())
	}
	err := s.writeThen(ctx, op, func(c *conn) error {
		if err := c.exec(&insertReservation, now.UnixMilli(), int64(n)); err != nil {
			return err
		}
		return c.execBulk(insertSegments, args)
	}, func() {})
	return given(refs, err)
}

var updateStart = query{"UPDATE partitions SET log_start = ?, bytes = ?, row_crc32c = ? WHERE partition_key = ?"}

// cutOff drops the extents, which are the partition's oldest, and raises its
// log start to the offset start.
func (c *conn) cutOff(pk int64, p *commit.Partition, gone []extentRow, start domain.Offset, now int64) error {
	if err := c.dropExtents(gone, now); err != nil {
		return err
	}
	p.LogStart, p.Bytes = start, p.Bytes-lengthOf(gone)
	return c.exec(&updateStart, int64(p.LogStart), p.Bytes, sumOfPartition(*p), pk)
}

// extentsBelow returns the oldest extents of a partition that end before the
// offset to, at most ports.MaxUpkeep.
func (c *conn) extentsBelow(topic domain.TopicID, pk int64, to domain.Offset) ([]extentRow, error) {
	rows, err := c.extentRows(&extentsBetween, topic, pk, int64(0), int64(to), int64(ports.MaxUpkeep))
	// All that begin before it, and the last of them may hold it.
	for len(rows) > 0 && rows[len(rows)-1].Last >= to {
		rows = rows[:len(rows)-1]
	}
	return rows, err
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
		for now := s.now().UnixMilli(); ; {
			gone, err := c.extentsBelow(key.Topic, pk, to)
			if err == nil {
				err = c.cutOff(pk, &p, gone, start, now)
			}
			if err != nil || len(gone) < ports.MaxUpkeep {
				return err
			}
		}
	})
	return given(start, err)
}
