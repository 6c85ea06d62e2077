package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var errNotForReplace = errors.New("not reserved here, given up as garbage, or committed otherwise")

// Replace implements ports.Upkeep.
func (s *Store) Replace(ctx context.Context, c commit.Compaction) (int, error) {
	op := fmt.Sprintf("compact into segment %s", c.ID)
	if err := c.Validate(); err != nil {
		return 0, ports.MetadataError(op, ports.Definite, err)
	}
	held := 0
	err := s.write(ctx, op, func(ctx context.Context, tx pgx.Tx) error {
		r := replacement{Compaction: c}
		state, before, err := r.lock(ctx, tx)
		switch {
		case err != nil:
			return err
		case before != nil:
			held = *before
			return nil
		case state != statePending:
			return ports.MetadataError(op, ports.Definite, errNotForReplace)
		}
		if err := r.load(ctx, tx); err != nil {
			return err
		}
		held, err = r.store(ctx, tx)
		return err
	})
	return given(&held, err)
}

// replacement is a Replace inside its transaction.
type replacement struct {
	commit.Compaction
	topics  map[domain.TopicID]int64
	exists  map[commit.PartitionKey]bool
	present [][]commit.Extent // by copy
}

const lockForReplace = "SELECT segment_id, state, held FROM segments WHERE segment_id = ANY ($1) ORDER BY segment_id FOR UPDATE"

// lock locks the segments, old and new, and returns how far the new one has
// come; 0 if it does not exist.
func (r *replacement) lock(ctx context.Context, tx pgx.Tx) (state int16, held *int, err error) {
	ids := []domain.SegmentID{r.ID}
	for _, c := range r.Copies {
		for _, e := range c.Of {
			ids = append(ids, e.Segment)
		}
	}
	slices.SortFunc(ids, func(a, b domain.SegmentID) int { return bytes.Compare(a[:], b[:]) })
	err = query(ctx, tx, lockForReplace, func(rows pgx.Rows) error {
		var id [16]byte
		var s int16
		var h *int
		err := rows.Scan(&id, &s, &h)
		if id == r.ID {
			state, held = s, h
		}
		return err
	}, uuids(slices.Compact(ids)))
	return state, held, err
}

const presentExtents = `SELECT u.ord, e.base_offset, e.last_offset, e.segment_id, e.position, e.length, e.batches, e.max_timestamp, e.committed_at
	FROM unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS u(topic_no, partition, base, last, ord)
	JOIN extents AS e ON e.topic_no = u.topic_no AND e.partition = u.partition AND e.base_offset BETWEEN u.base AND u.last
	ORDER BY u.ord, e.base_offset`

// load locks the partitions and reads what stands where the copies are to go.
func (r *replacement) load(ctx context.Context, tx pgx.Tx) error {
	r.topics, r.exists = make(map[domain.TopicID]int64), make(map[commit.PartitionKey]bool)
	keys := make([]commit.PartitionKey, len(r.Copies))
	for i, c := range r.Copies {
		keys[i] = c.Of[0].Key()
	}
	slices.SortFunc(keys, comparePartitions)
	v := view{topics: r.topics}
	v.Partitions = make(map[commit.PartitionKey]*commit.Partition)
	if err := r.findTopics(ctx, tx, keys); err != nil {
		return err
	}
	if err := v.loadPartitions(ctx, tx, slices.Compact(keys)); err != nil {
		return err
	}
	for k := range v.Partitions {
		r.exists[k] = true
	}
	n := len(r.Copies)
	topics, numbers, bases, lasts := make([]int64, n), make([]int32, n), make([]int64, n), make([]int64, n)
	for i, c := range r.Copies {
		e := c.Extent(r.ID)
		topics[i], numbers[i], bases[i], lasts[i] = r.topics[e.Topic], int32(e.Partition), int64(e.Base), int64(e.Last)
	}
	r.present = make([][]commit.Extent, n)
	return query(ctx, tx, presentExtents, func(rows pgx.Rows) error {
		var at int
		var id [16]byte
		var e commit.Extent
		err := rows.Scan(&at, &e.Base, &e.Last, &id, &e.Position, &e.Length, &e.Batches, &e.MaxTimestamp, &e.CommittedAt)
		key := r.Copies[at-1].Of[0].Key()
		e.Topic, e.Partition, e.Segment = key.Topic, key.Partition, id
		r.present[at-1] = append(r.present[at-1], e)
		return err
	}, topics, numbers, bases, lasts)
}

func (r *replacement) findTopics(ctx context.Context, tx pgx.Tx, keys []commit.PartitionKey) error {
	var ids [][16]byte
	for _, k := range keys {
		ids = append(ids, k.Topic)
	}
	return query(ctx, tx, topicNumbers, func(rows pgx.Rows) error {
		var id [16]byte
		var no int64
		err := rows.Scan(&id, &no)
		r.topics[id] = no
		return err
	}, slices.Compact(ids))
}

const (
	dropReplaced = `WITH gone AS (DELETE FROM extents AS e USING unnest($1::bigint[], $2::integer[], $3::bigint[]) AS u(topic_no, partition, base)
			WHERE e.topic_no = u.topic_no AND e.partition = u.partition AND e.base_offset = u.base RETURNING e.segment_id, e.length),
		` + releaseGone
	insertReplaced = `INSERT INTO extents (topic_no, partition, base_offset, last_offset, segment_id, position, length, batches, max_timestamp, committed_at)
		SELECT u.topic_no, u.partition, u.base, u.last, $1, u.position, u.length, u.batches, u.max_timestamp, u.committed_at
		FROM unnest($2::bigint[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::integer[], $9::bigint[], $10::bigint[])
			AS u(topic_no, partition, base, last, position, length, batches, max_timestamp, committed_at)`
	settleReplaced = `UPDATE segments SET state = $2, state_at = (SELECT now_ms()), size_bytes = $3, crc32c = $4, live_extents = $5, held = $5
		WHERE segment_id = $1`
)

// store puts the copies that hold in place of their originals.
func (r *replacement) store(ctx context.Context, tx pgx.Tx) (held int, err error) {
	var old, with extentArrays
	for i, c := range r.Copies {
		if !r.exists[c.Of[0].Key()] || !c.Holds(r.present[i]) {
			continue
		}
		held++
		c.Of = r.present[i] // times are the rows', not what the caller read
		for _, o := range c.Of {
			old.add(r.topics[o.Topic], o)
		}
		e := c.Extent(r.ID)
		with.add(r.topics[e.Topic], e)
	}
	state := stateDeleting
	if held > 0 {
		state = stateCommitted
		if err := exec(ctx, tx, dropReplaced, old.topics, old.numbers, old.bases); err != nil {
			return 0, err
		}
		err := exec(ctx, tx, insertReplaced, [16]byte(r.ID), with.topics, with.numbers, with.bases, with.lasts, with.positions,
			with.lengths, with.batches, with.timestamps, with.committed)
		if err != nil {
			return 0, err
		}
	}
	return held, exec(ctx, tx, settleReplaced, [16]byte(r.ID), state, r.Size, int64(r.CRC32C), held)
}

// extentArrays are the columns of extents.
type extentArrays struct {
	topics, bases, lasts, positions, lengths, timestamps, committed []int64
	numbers, batches                                                []int32
}

func (a *extentArrays) add(topic int64, e commit.Extent) {
	a.topics, a.numbers = append(a.topics, topic), append(a.numbers, int32(e.Partition))
	a.bases, a.lasts = append(a.bases, int64(e.Base)), append(a.lasts, int64(e.Last))
	a.positions, a.lengths = append(a.positions, e.Position), append(a.lengths, e.Length)
	a.batches, a.timestamps = append(a.batches, e.Batches), append(a.timestamps, e.MaxTimestamp)
	a.committed = append(a.committed, e.CommittedAt)
}
