package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
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
	mutantReplaceUnchecked           = mutant.ID("memory-replace-takes-what-was-trimmed")
	mutantExpireAnyState   mutant.ID = "memory-expiry-takes-committed-segments"
)

// upkeep begins a step that takes at most limit rows. It needs the lock.
func (m *Metadata) upkeep(ctx context.Context, op string, limit int) error {
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return err
	}
	return m.begin(ctx, op)
}

// Retain implements ports.Upkeep.
func (m *Metadata) Retain(ctx context.Context, key commit.PartitionKey, limit int) (ports.Removed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.upkeep(ctx, fmt.Sprintf("retain topic %s partition %d", key.Topic, key.Partition), limit); err != nil {
		return ports.Removed{}, err
	}
	p, err := m.partition(key)
	if err != nil {
		return ports.Removed{}, err
	}
	all := m.extents[key]
	n, bytes := commit.Retained(m.topics[key.Topic].Retention, all[:min(len(all), limit)], p.Bytes, m.now().UnixMilli())
	if n > 0 {
		m.trim(key, p, all[n-1].Last+1)
	}
	return ports.Removed{Extents: n, Bytes: bytes, LogStart: p.LogStart, More: n == limit}, nil
}

// PurgeTopics implements ports.Upkeep.
func (m *Metadata) PurgeTopics(ctx context.Context, limit int) (ports.Removed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var removed ports.Removed
	if err := m.upkeep(ctx, "purge deleted topics", limit); err != nil {
		return removed, err
	}
	for _, key := range m.extentKeys() {
		if m.topics[key.Topic] != nil {
			continue
		}
		all := m.extents[key]
		n := min(len(all), limit-removed.Extents)
		m.release(all[:n])
		for _, e := range all[:n] {
			removed.Bytes += e.Length
		}
		removed.Extents += n
		if m.extents[key] = all[n:]; n == len(all) {
			delete(m.extents, key)
		}
	}
	removed.More = removed.Extents == limit
	return removed, nil
}

// extentKeys returns the partitions that have extents, in order. It needs the
// lock.
func (m *Metadata) extentKeys() []commit.PartitionKey {
	return slices.SortedFunc(maps.Keys(m.extents), ComparePartitions)
}

// segmentIDs returns the ids after the given one, in order, whose rows pass. It
// needs the lock.
func (m *Metadata) segmentIDs(after domain.SegmentID, limit int, pass func(*segmentRow) bool) []domain.SegmentID {
	var ids []domain.SegmentID
	for id, row := range m.segments {
		if bytes.Compare(id[:], after[:]) > 0 && pass(row) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b domain.SegmentID) int { return bytes.Compare(a[:], b[:]) })
	return ids[:min(len(ids), limit)]
}

// ExpireReservations implements ports.Upkeep.
func (m *Metadata) ExpireReservations(ctx context.Context, grace time.Duration, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.upkeep(ctx, "expire reservations", limit); err != nil {
		return 0, err
	}
	now := m.now()
	ids := m.segmentIDs(domain.SegmentID{}, limit, func(r *segmentRow) bool {
		pending := r.state == ports.SegmentPending || mutant.On(mutantExpireAnyState) && r.state == ports.SegmentCommitted
		return pending && now.Sub(r.createdAt) >= grace
	})
	for _, id := range ids {
		m.segments[id].become(ports.SegmentDeleting, now)
	}
	return len(ids), nil
}

// Garbage implements ports.Upkeep.
func (m *Metadata) Garbage(ctx context.Context, grace time.Duration, after domain.SegmentID, limit int) ([]ports.SegmentRef, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.upkeep(ctx, "list garbage", limit); err != nil {
		return nil, err
	}
	now := m.now()
	ids := m.segmentIDs(after, limit, func(r *segmentRow) bool {
		return r.state == ports.SegmentDeleting && now.Sub(r.stateAt) >= grace
	})
	refs := make([]ports.SegmentRef, len(ids))
	for i, id := range ids {
		refs[i] = ports.SegmentRef{ID: id, Key: segment.Key(id)}
	}
	return refs, nil
}

// MarkDeleted implements ports.Upkeep.
func (m *Metadata) MarkDeleted(ctx context.Context, ids []domain.SegmentID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.upkeep(ctx, "mark segments deleted", max(1, len(ids))); err != nil {
		return err
	}
	now := m.now()
	for _, id := range ids {
		if row := m.segments[id]; row != nil && row.state == ports.SegmentDeleting {
			row.become(ports.SegmentDeleted, now)
		}
	}
	return nil
}

// ForgetDeleted implements ports.Upkeep.
func (m *Metadata) ForgetDeleted(ctx context.Context, age time.Duration, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.upkeep(ctx, "forget deleted segments", limit); err != nil {
		return 0, err
	}
	now := m.now()
	ids := m.segmentIDs(domain.SegmentID{}, limit, func(r *segmentRow) bool {
		return r.state == ports.SegmentDeleted && now.Sub(r.stateAt) >= age
	})
	for _, id := range ids {
		delete(m.segments, id)
	}
	return len(ids), nil
}

var errNotForReplace = errors.New("not reserved here, given up as garbage, or committed otherwise")

// Replace implements ports.Upkeep.
func (m *Metadata) Replace(ctx context.Context, c commit.Compaction) (int, error) {
	op := fmt.Sprintf("compact into segment %s", c.ID)
	if err := c.Validate(); err != nil {
		return 0, ports.MetadataError(op, ports.Definite, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, op); err != nil {
		return 0, err
	}
	row := m.segments[c.ID]
	switch {
	case row != nil && row.replaced:
		return row.held, nil
	case row == nil || row.state != ports.SegmentPending:
		return 0, ports.MetadataError(op, ports.Definite, errNotForReplace)
	}
	held := 0
	for _, cp := range c.Copies {
		if m.replace(c.ID, cp) {
			held++
		}
	}
	row.replaced, row.held = true, held
	row.commit(c.Size, c.CRC32C, held, m.now())
	return held, nil
}

// replace puts the copy's extent where its originals are, if they still are. It
// needs the lock.
func (m *Metadata) replace(id domain.SegmentID, cp commit.Copy) bool {
	key := cp.Of[0].Key()
	if m.rows.Partitions[key] == nil {
		return false // the topic is deleted, and its extents are on their way out
	}
	all := m.extents[key]
	first := sort.Search(len(all), func(i int) bool { return all[i].Base >= cp.Of[0].Base })
	end := sort.Search(len(all), func(i int) bool { return all[i].Base > cp.Of[len(cp.Of)-1].Last })
	old := slices.Clone(all[first:end])
	switch {
	case cp.Holds(old):
		cp.Of = old // times are the rows', not what the caller read
	case !mutant.On(mutantReplaceUnchecked) || len(old) == 0:
		return false
	}
	m.extents[key] = slices.Concat(all[:first], []commit.Extent{cp.Extent(id)}, all[end:])
	m.release(old)
	return true
}

// Extents implements ports.Inspection.
func (m *Metadata) Extents(ctx context.Context, after ports.ExtentPlace, limit int) ([]ports.ExtentRef, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.upkeep(ctx, "list extents", limit); err != nil {
		return nil, err
	}
	var found []commit.Extent
	for _, key := range m.extentKeys() {
		all := m.extents[key]
		switch c := ComparePartitions(key, after.PartitionKey); {
		case c < 0:
			continue
		case c == 0:
			all = all[sort.Search(len(all), func(i int) bool { return all[i].Base > after.Base }):]
		}
		if found = append(found, all[:min(len(all), limit-len(found))]...); len(found) == limit {
			break
		}
	}
	return refs(found), nil
}

// Segments implements ports.Inspection.
func (m *Metadata) Segments(ctx context.Context, after domain.SegmentID, limit int) ([]ports.SegmentRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.upkeep(ctx, "list segments", limit); err != nil {
		return nil, err
	}
	return m.rowsOf(m.segmentIDs(after, limit, func(*segmentRow) bool { return true })), nil
}

// RetentionDue implements ports.Inspection.
func (m *Metadata) RetentionDue(ctx context.Context, after commit.PartitionKey, limit int) ([]commit.PartitionKey, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.upkeep(ctx, "find partitions that retention is due for", limit); err != nil {
		return nil, err
	}
	due, now := []commit.PartitionKey{}, m.now().UnixMilli()
	for _, key := range m.extentKeys() {
		t, all := m.topics[key.Topic], m.extents[key]
		if t == nil || len(all) == 0 || ComparePartitions(key, after) <= 0 {
			continue
		}
		if n, _ := commit.Retained(t.Retention, all[:1], m.rows.Partitions[key].Bytes, now); n > 0 {
			due = append(due, key)
		}
	}
	return due[:min(len(due), limit)], nil
}

// SegmentsByID implements ports.Inspection.
func (m *Metadata) SegmentsByID(ctx context.Context, ids []domain.SegmentID) ([]ports.SegmentRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.upkeep(ctx, "find segments", max(1, len(ids))); err != nil {
		return nil, err
	}
	return m.rowsOf(ids), nil
}

// rowsOf returns the rows of the ids that have one. It needs the lock.
func (m *Metadata) rowsOf(ids []domain.SegmentID) []ports.SegmentRow {
	rows := make([]ports.SegmentRow, 0, len(ids))
	for _, id := range ids {
		if r := m.segments[id]; r != nil {
			rows = append(rows, ports.SegmentRow{
				SegmentRef: ports.SegmentRef{ID: id, Key: segment.Key(id)}, State: r.state,
				Size: r.size, CRC32C: r.crc32c, Live: r.live, CreatedAt: r.createdAt, StateAt: r.stateAt,
			})
		}
	}
	return rows
}
