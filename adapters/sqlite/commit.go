package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// Planted bugs, see package mutant.
const (
	mutantReplayDecides    mutant.ID = "sqlite-replay-decides-again"
	mutantStateNotKept     mutant.ID = "sqlite-sequences-not-written"
	mutantWakeForgotten    mutant.ID = "sqlite-commit-wakes-nobody"
	mutantExpiryLate       mutant.ID = "sqlite-session-never-expires"
	mutantTrimKeepsSegment mutant.ID = "sqlite-trim-keeps-segments-live"
	mutantMemoKept         mutant.ID = "sqlite-rows-remembered-beyond-other-writes"
	mutantVersionIgnored   mutant.ID = "sqlite-commits-of-other-processes-ignored"
)

var errNotPending = errors.New("not reserved here, or given up as garbage")

// Commit implements ports.Log. Whatever it is given, it takes a few statements.
func (s *Store) Commit(ctx context.Context, segments []commit.Segment) ([]ports.CommitResult, error) {
	op := commitOp(segments)
	work := commitWork{op: op, segments: segments, now: s.now().UnixMilli()}
	err := s.writeThen(ctx, op, work.do, func() {
		work.conn.memo = work.view.memo
		if work.grew && !mutant.On(mutantWakeForgotten) {
			s.wakes.All()
		}
	})
	return given(work.results, err)
}

func commitOp(segments []commit.Segment) string {
	if len(segments) == 1 {
		return fmt.Sprintf("commit segment %s", segments[0].ID)
	}
	return fmt.Sprintf("commit %d segments", len(segments))
}

// commitWork is one Commit inside its transaction.
type commitWork struct {
	op       string
	segments []commit.Segment
	now      int64

	conn    *conn
	rows    map[domain.SegmentID]*segmentRow
	view    view
	decided []*segmentRow // in this transaction
	extents []driver.Value
	results []ports.CommitResult
	grew    bool // a high watermark rose
}

type segmentRow struct {
	no       int64
	state    int64
	live     int64
	size     int64
	crc32c   uint32
	settled  bool // a commit has judged it
	replaced bool // it was committed by Replace
	outcomes []commit.Outcome
}

// refused says that the segment can never be committed by a commit.
func (r *segmentRow) refused() bool { return r.replaced || r.state >= stateDeleting && !r.settled }

func (w *commitWork) do(c *conn) error {
	w.conn = c
	m, err := c.recall()
	if err != nil {
		return err
	}
	if err := w.loadSegments(c); err != nil {
		return err
	}
	if err := w.view.load(c, m, w.pending(), w.now); err != nil {
		return err
	}
	w.decide()
	return w.store(c)
}

var segmentsByID = newBulk(
	"SELECT segment_id, segment_no, state, outcomes, replaced IS NOT NULL FROM segments WHERE segment_id IN (", "?", ")")

func (w *commitWork) loadSegments(c *conn) error {
	w.rows = make(map[domain.SegmentID]*segmentRow, len(w.segments))
	ids := make([]driver.Value, len(w.segments))
	for i := range w.segments {
		ids[i] = w.segments[i].ID[:]
	}
	return c.queryBulk(segmentsByID, func(r *row) error {
		seg := &segmentRow{no: r.int(1), state: r.int(2), settled: !r.null(3), replaced: r.int(4) != 0}
		w.rows[domain.SegmentID(r.uuid(0))] = seg
		if !seg.settled || mutant.On(mutantReplayDecides) {
			seg.settled = false
			return nil
		}
		var err error
		seg.outcomes, err = unpackOutcomes(r.blob(3))
		return err
	}, ids)
}

// pending returns the segments that have yet to be judged.
func (w *commitWork) pending() []commit.Segment {
	pending := make([]commit.Segment, 0, len(w.segments))
	for _, seg := range w.segments {
		if row := w.rows[seg.ID]; row != nil && !row.refused() && !row.settled {
			pending = append(pending, seg)
		}
	}
	return pending
}

func (w *commitWork) decide() {
	w.results = make([]ports.CommitResult, len(w.segments))
	for i, seg := range w.segments {
		row := w.rows[seg.ID]
		switch {
		case row == nil || row.refused():
			w.results[i].Err = ports.MetadataError(fmt.Sprintf("commit segment %s", seg.ID), ports.Definite, errNotPending)
			continue
		case !row.settled:
			w.judge(row, seg)
		}
		w.results[i].Outcomes = row.outcomes
	}
}

func (w *commitWork) judge(row *segmentRow, seg commit.Segment) {
	d := commit.Decide(&w.view.View, seg)
	w.view.touch(seg, d.Outcomes)
	w.extents = slices.Grow(w.extents, len(d.Extents)*insertExtents.width)
	for _, e := range d.Extents {
		key := w.view.keys[commit.PartitionKey{Topic: e.Topic, Partition: e.Partition}]
		w.extents = insertArgs(w.extents, key, row.no, e)
	}
	row.settled, row.outcomes, row.state = true, d.Outcomes, stateCommitted
	row.size, row.crc32c, row.live = seg.Size, seg.CRC32C, int64(len(d.Extents))
	if row.live == 0 {
		row.state = stateDeleting
	}
	w.grew = w.grew || row.live > 0
	w.decided = append(w.decided, row)
}

var (
	// A transaction whose statement failed is rolled back, so SQLite need not save,
	// for ABORT, each page before the statement changes it. (REPLACE, and the update of a
	// conflict, cannot do without where a column is NOT NULL.)
	insertExtents = newBulk(`INSERT OR FAIL INTO extents (partition_key, base_offset, last_offset, segment_no,
		position, length, batches, max_timestamp, committed_at, row_crc32c) VALUES `, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", "")
	settleSegments = newBulk("WITH v(no, state, at, size, crc, live, outcomes) AS (VALUES ", "(?, ?, ?, ?, ?, ?, ?)",
		`) UPDATE segments SET state = v.state, state_at = v.at, size_bytes = v.size, crc32c = v.crc,
		live_extents = v.live, outcomes = v.outcomes FROM v WHERE segment_no = v.no`)
	// A replay writes, so that its own sync covers the first commit.
	replaySegments = newBulk("UPDATE segments SET replays = replays + 1 WHERE segment_no IN (", "?", ")")
)

func (w *commitWork) store(c *conn) error {
	if err := c.execBulk(insertExtents, w.extents); err != nil {
		return err
	}
	if err := w.view.store(c, w.now); err != nil {
		return err
	}
	settled := make([]driver.Value, 0, len(w.decided)*settleSegments.width)
	fresh := make(map[int64]bool, len(w.decided))
	for _, row := range w.decided {
		fresh[row.no] = true
		settled = append(settled, row.no, row.state, w.now, row.size, int64(row.crc32c), row.live, packOutcomes(row.outcomes))
	}
	if err := c.execBulk(settleSegments, settled); err != nil {
		return err
	}
	var replayed []driver.Value
	for _, seg := range w.segments {
		if row := w.rows[seg.ID]; row != nil && row.settled && !fresh[row.no] {
			replayed = append(replayed, row.no)
		}
	}
	return c.queryBulk(replaySegments, func(*row) error { return nil }, replayed)
}
