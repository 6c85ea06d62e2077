package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"

	"github.com/streamhouse/streamhouse/ports"
)

// Planted bugs, see package mutant.
const (
	mutantReplayDecides  mutant.ID = "memory-replay-looked-up-not"
	mutantLiveMiscounted mutant.ID = "memory-live-count-not-lowered"
	mutantWakeForgotten  mutant.ID = "memory-commit-wakes-nobody"
)

const maxReserve = 1024

type segmentRow struct {
	state     ports.SegmentState
	createdAt time.Time
	stateAt   time.Time // when it came into its state
	size      int64
	crc32c    uint32
	// live counts the extents that refer to the segment.
	live int
	// settled says that a commit has judged the segment, and answered outcomes.
	settled  bool
	outcomes []commit.Outcome
	// replaced says that it was committed by Replace, and held that many copies.
	replaced bool
	held     int
}

func (r *segmentRow) become(s ports.SegmentState, now time.Time) { r.state, r.stateAt = s, now }

// Reserve implements ports.Log.
func (m *Metadata) Reserve(ctx context.Context, n int) ([]ports.SegmentRef, error) {
	op := fmt.Sprintf("reserve %d segments", n)
	if n < 1 || n > maxReserve {
		return nil, ports.MetadataError(op, ports.Definite, fmt.Errorf("want 1 to %d", maxReserve))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, op); err != nil {
		return nil, err
	}
	refs := make([]ports.SegmentRef, n)
	now := m.now()
	for i := range refs {
		id := domain.SegmentID(m.newID())
		m.segments[id] = &segmentRow{state: ports.SegmentPending, createdAt: now, stateAt: now}
		refs[i] = ports.SegmentRef{ID: id, Key: segment.Key(id)}
	}
	return refs, nil
}

// Commit implements ports.Log.
func (m *Metadata) Commit(ctx context.Context, segments []commit.Segment) ([]ports.CommitResult, error) {
	results, grew, err := m.commit(ctx, segments)
	if grew && !mutant.On(mutantWakeForgotten) {
		m.wakes.All()
	}
	return results, err
}

func (m *Metadata) commit(ctx context.Context, segments []commit.Segment) (results []ports.CommitResult, grew bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, fmt.Sprintf("commit %d segments", len(segments))); err != nil {
		return nil, false, err
	}
	results = make([]ports.CommitResult, len(segments))
	for i, seg := range segments {
		row := m.segments[seg.ID]
		switch {
		case row != nil && row.settled && !row.replaced && !mutant.On(mutantReplayDecides):
			results[i].Outcomes = slices.Clone(row.outcomes)
		case row != nil && (row.state == ports.SegmentPending || row.settled && !row.replaced):
			results[i].Outcomes = slices.Clone(m.judge(row, seg))
			grew = grew || row.live > 0
		default:
			op := fmt.Sprintf("commit segment %s", seg.ID)
			results[i].Err = ports.MetadataError(op, ports.Definite, errNotPending)
		}
	}
	return results, grew, nil
}

var errNotPending = errors.New("not reserved here, or given up as garbage")

// judge decides on a pending segment and enters what is new in it into the log.
// It needs the lock.
func (m *Metadata) judge(row *segmentRow, seg commit.Segment) []commit.Outcome {
	now := m.now()
	m.rows.Now = now.UnixMilli()
	m.expireSessions(seg, now)
	d := commit.Decide(&m.rows, seg)
	for _, e := range d.Extents {
		key := commit.PartitionKey{Topic: e.Topic, Partition: e.Partition}
		m.extents[key] = append(m.extents[key], e)
	}
	for i, b := range seg.Batches {
		if s := m.sessions[b.Producer]; s != nil && d.Outcomes[i].Status == commit.Accepted {
			s.activeAt = now
		}
	}
	row.settled, row.outcomes = true, d.Outcomes
	row.commit(seg.Size, seg.CRC32C, len(d.Extents), now)
	return d.Outcomes
}

// commit makes the row that of a segment with live extents, or of none.
func (r *segmentRow) commit(size int64, crc32c uint32, live int, now time.Time) {
	r.size, r.crc32c, r.live = size, crc32c, live
	r.become(ports.SegmentCommitted, now)
	if live == 0 {
		r.become(ports.SegmentDeleting, now)
	}
}

// release takes note that extents are gone. It needs the lock.
func (m *Metadata) release(extents []commit.Extent) {
	if mutant.On(mutantLiveMiscounted) {
		return
	}
	now := m.now()
	for _, e := range extents {
		row := m.segments[e.Segment]
		if row.live--; row.live == 0 {
			row.become(ports.SegmentDeleting, now)
		}
	}
}

// Plan implements ports.Log.
func (m *Metadata) Plan(ctx context.Context, requests []ports.PlanRequest) ([]ports.Plan, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.begin(ctx, "plan reads"); err != nil {
		return nil, err
	}
	plans := make([]ports.Plan, len(requests))
	for i, r := range requests {
		plans[i] = m.plan(r)
	}
	return plans, nil
}

func (m *Metadata) plan(r ports.PlanRequest) ports.Plan {
	p, err := m.partition(r.PartitionKey)
	if err != nil {
		return ports.Plan{Err: err}
	}
	plan := ports.Plan{LogStart: p.LogStart, HighWatermark: p.NextOffset}
	if r.MaxBytes > 0 && p.LogStart <= r.From && r.From < p.NextOffset {
		plan.Extents = refs(upTo(from(m.extents[r.PartitionKey], r.From), r))
	}
	return plan
}

// from returns the extents that hold the offset o and what follows.
func from(extents []commit.Extent, o domain.Offset) []commit.Extent {
	return extents[sort.Search(len(extents), func(i int) bool { return extents[i].Last >= o }):]
}

// upTo returns the first extent, and those after it that r has room for.
func upTo(extents []commit.Extent, r ports.PlanRequest) []commit.Extent {
	extents = extents[:min(len(extents), r.Extents())]
	var sum int64
	for i, e := range extents {
		if sum += e.Length; sum > r.MaxBytes && i > 0 {
			return extents[:i]
		}
	}
	return extents
}

func refs(extents []commit.Extent) []ports.ExtentRef {
	refs := make([]ports.ExtentRef, len(extents))
	for i, e := range extents {
		refs[i] = ports.ExtentRef{Extent: e, ObjectKey: segment.Key(e.Segment)}
	}
	return refs
}

// ExtentAt implements ports.Log.
func (m *Metadata) ExtentAt(ctx context.Context, key commit.PartitionKey, timestamp int64) (ports.ExtentRef, bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.begin(ctx, "find extent by time"); err != nil {
		return ports.ExtentRef{}, false, err
	}
	if _, err := m.partition(key); err != nil {
		return ports.ExtentRef{}, false, err
	}
	for _, e := range m.extents[key] {
		if e.MaxTimestamp >= timestamp {
			return ports.ExtentRef{Extent: e, ObjectKey: segment.Key(e.Segment)}, true, nil
		}
	}
	return ports.ExtentRef{}, false, nil
}

// Trim implements ports.Log.
func (m *Metadata) Trim(ctx context.Context, key commit.PartitionKey, to domain.Offset) (domain.Offset, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, fmt.Sprintf("trim topic %s partition %d", key.Topic, key.Partition)); err != nil {
		return 0, err
	}
	p, err := m.partition(key)
	if err != nil {
		return 0, err
	}
	if to < 0 || to > p.NextOffset {
		return 0, &domain.OutOfRangeError{
			Topic: m.topics[key.Topic].Name, Partition: key.Partition,
			Offset: to, LogStart: p.LogStart, HighWatermark: p.NextOffset,
		}
	}
	if to > p.LogStart {
		m.trim(key, p, to)
	}
	return p.LogStart, nil
}

func (m *Metadata) trim(key commit.PartitionKey, p *commit.Partition, to domain.Offset) {
	all := m.extents[key]
	kept := from(all, to)
	gone := all[:len(all)-len(kept)]
	for _, e := range gone {
		p.Bytes -= e.Length
	}
	m.release(gone)
	m.extents[key], p.LogStart = kept, to
}
