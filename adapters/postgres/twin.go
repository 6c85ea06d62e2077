package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// The twin of the function commit_segments: the same transaction in several round trips, decided
// by domain/commit. It is the reference that the function is tested against.

const (
	lockSegments = `SELECT segment_id, state, outcomes FROM segments WHERE segment_id = ANY ($1) ORDER BY segment_id FOR UPDATE`
	// A replay writes, so that its own durability covers the first commit.
	replaySegment = "UPDATE segments SET replays = replays + 1 WHERE segment_id = $1"
	settleSegment = `UPDATE segments SET state = $2, state_at = $3, size_bytes = $4, crc32c = $5, live_extents = $6, outcomes = $7
		WHERE segment_id = $1`
	insertExtent = `INSERT INTO extents (topic_no, partition, base_offset, last_offset, segment_id, position, length, batches, max_timestamp, committed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`
	updatePartition = "UPDATE partitions SET next_offset = $3, bytes = $4 WHERE topic_no = $1 AND partition = $2"
	storeStream     = `INSERT INTO producer_partitions (producer_id, topic_no, partition, accepted_at, epoch, last_sequence, recent)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (producer_id, topic_no, partition)
		DO UPDATE SET accepted_at = excluded.accepted_at, epoch = excluded.epoch, last_sequence = excluded.last_sequence, recent = excluded.recent`
	storeActive = `UPDATE producers SET active_at = $2 WHERE producer_id IN
		(SELECT producer_id FROM producers WHERE producer_id = ANY ($1) FOR NO KEY UPDATE SKIP LOCKED)`
)

// steps is a commit inside its transaction.
type steps struct {
	n       *numbered
	states  map[domain.SegmentID]int16
	answers [][]int64
	view    view
	writes  pgx.Batch
	grown   map[commit.PartitionKey]bool
	written map[commit.StreamKey]bool
}

func (s *Store) commitInSteps(ctx context.Context, op string, n *numbered, answers [][]int64) error {
	return s.write(ctx, op, func(ctx context.Context, tx pgx.Tx) error {
		w := steps{
			n: n, answers: answers, states: make(map[domain.SegmentID]int16),
			grown: make(map[commit.PartitionKey]bool), written: make(map[commit.StreamKey]bool),
		}
		clear(answers)
		if err := w.loadSegments(ctx, tx); err != nil {
			return err
		}
		if err := w.view.load(ctx, tx, n); err != nil {
			return err
		}
		w.decide()
		w.store()
		return tx.SendBatch(ctx, &w.writes).Close()
	})
}

func (w *steps) loadSegments(ctx context.Context, tx pgx.Tx) error {
	return query(ctx, tx, lockSegments, func(r pgx.Rows) error {
		var id [16]byte
		var state int16
		var packed *[]int64
		if err := r.Scan(&id, &state, &packed); err != nil {
			return err
		}
		w.states[id] = state
		if packed != nil {
			w.answers[w.n.segmentAt[id]] = append([]int64{}, *packed...)
		}
		return nil
	}, w.n.segmentIDs)
}

func (w *steps) decide() {
	for i, seg := range w.n.segments {
		switch {
		case w.answers[i] != nil:
			w.writes.Queue(replaySegment, [16]byte(seg.ID))
		case w.states[seg.ID] == statePending:
			d := commit.Decide(&w.view.View, seg)
			w.answers[i] = packOutcomes(d.Outcomes)
			w.settle(seg, d)
		}
	}
}

func (w *steps) settle(seg commit.Segment, d commit.Decision) {
	state := stateCommitted
	if len(d.Extents) == 0 {
		state = stateDeleting
	}
	w.writes.Queue(settleSegment, [16]byte(seg.ID), state, w.view.Now, seg.Size, int64(seg.CRC32C), len(d.Extents), packOutcomes(d.Outcomes))
	for _, e := range d.Extents {
		w.writes.Queue(insertExtent, w.view.topics[e.Topic], int32(e.Partition), int64(e.Base), int64(e.Last), [16]byte(seg.ID),
			e.Position, e.Length, e.Batches, e.MaxTimestamp, e.CommittedAt)
	}
	for i, b := range seg.Batches {
		if d.Outcomes[i].Status == commit.Accepted {
			w.grown[b.Key()] = true
			w.written[b.Stream()] = b.Producer != commit.NoProducer
		}
	}
}

func (w *steps) store() {
	for k := range w.grown {
		p := w.view.Partitions[k]
		w.writes.Queue(updatePartition, w.view.topics[k.Topic], int32(k.Partition), int64(p.NextOffset), p.Bytes)
	}
	var active []int64
	for k, sequenced := range w.written {
		if !sequenced {
			continue
		}
		state := w.view.Streams[k]
		w.writes.Queue(storeStream, int64(k.Producer), w.view.topics[k.Topic], int32(k.Partition), w.view.Now,
			int16(state.Epoch), int32(state.Last), packRecent(state))
		for _, id := range w.view.stale {
			if id == int64(k.Producer) {
				active = append(active, id)
			}
		}
	}
	if len(active) > 0 {
		w.writes.Queue(storeActive, active, w.view.Now)
	}
}
