package portstest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// badLimits are refused by every step of upkeep and every page of inspection.
var badLimits = []int{0, -1, ports.MaxUpkeep + 1}

// keepBytes makes key's topic keep that many bytes of each partition.
func (m *metadataUnderTest) keepBytes(key commit.PartitionKey, bytes int64) {
	m.Helper()
	_, err := m.SetRetention(m.Context(), key.Topic, domain.Retention{Bytes: bytes})
	m.ok(err)
}

func (m *metadataUnderTest) retain(key commit.PartitionKey, limit int, want ports.Removed) {
	m.Helper()
	got, err := m.Retain(m.Context(), key, limit)
	m.ok(err)
	if got != want {
		m.Fatalf("retention removed %+v, want %+v", got, want)
	}
}

func (m *metadataUnderTest) purge(limit int, want ports.Removed) {
	m.Helper()
	got, err := m.PurgeTopics(m.Context(), limit)
	m.ok(err)
	if got != want {
		m.Fatalf("purge removed %+v, want %+v", got, want)
	}
}

// row returns what is known of the segment, which must have a row.
func (m *metadataUnderTest) row(id domain.SegmentID) ports.SegmentRow {
	m.Helper()
	rows, err := m.SegmentsByID(m.Context(), []domain.SegmentID{id})
	m.ok(err)
	if len(rows) != 1 || rows[0].ID != id {
		m.Fatalf("segment %s has the rows %+v", id, rows)
	}
	return rows[0]
}

// state demands a segment's state and how many extents refer to it.
func (m *metadataUnderTest) state(id domain.SegmentID, want ports.SegmentState, live int) {
	m.Helper()
	if r := m.row(id); r.State != want || r.Live != live {
		m.Fatalf("segment %s is %s with %d live extents, want %s with %d", id, r.State, r.Live, want, live)
	}
}

// gone demands that nothing is known of the segment.
func (m *metadataUnderTest) gone(id domain.SegmentID) {
	m.Helper()
	rows, err := m.SegmentsByID(m.Context(), []domain.SegmentID{id})
	m.ok(err)
	if len(rows) != 0 {
		m.Fatalf("segment %s still has the row %+v", id, rows[0])
	}
}

// refusedCommit demands that the segment is refused for ever, with no effect on
// another in the same call.
func (m *metadataUnderTest) refusedCommit(seg commit.Segment) {
	m.Helper()
	results, err := m.Commit(m.Context(), []commit.Segment{seg, m.segment()})
	m.ok(err)
	m.definite(results[0].Err)
	m.is(results[0].Err, domain.ErrMetadata)
	if results[0].Outcomes != nil {
		m.Fatalf("a refused segment has the outcomes %v", results[0].Outcomes)
	}
	m.ok(results[1].Err)
}

// spoilt makes n segments that are SegmentDeleting, and returns them in order.
func (m *metadataUnderTest) spoilt(n int) []domain.SegmentID {
	m.Helper()
	ids := make([]domain.SegmentID, n)
	for i := range ids {
		seg := m.segment()
		m.commit(seg)
		ids[i] = seg.ID
	}
	slices.SortFunc(ids, compareSegments)
	return ids
}

// deleted makes n segments that are SegmentDeleted.
func (m *metadataUnderTest) deleted(n int) []domain.SegmentID {
	m.Helper()
	ids := m.spoilt(n)
	m.ok(m.MarkDeleted(m.Context(), ids))
	return ids
}

// garbage demands the segments that have been garbage for no time at all, read
// in pages of limit.
func (m *metadataUnderTest) garbage(limit int, want ...domain.SegmentID) {
	m.Helper()
	var got []domain.SegmentID
	for after := (domain.SegmentID{}); ; after = got[len(got)-1] {
		page, err := m.Garbage(m.Context(), 0, after, limit)
		m.ok(err)
		if len(page) > limit {
			m.Fatalf("a page of %d has %d segments", limit, len(page))
		}
		for _, r := range page {
			if r.Key != m.row(r.ID).Key {
				m.Fatalf("segment %s has the key %q, want %q", r.ID, r.Key, m.row(r.ID).Key)
			}
			got = append(got, r.ID)
		}
		if len(page) < limit {
			break
		}
	}
	want = slices.Clone(want)
	slices.SortFunc(want, compareSegments)
	if !slices.Equal(got, want) {
		m.Fatalf("garbage is %v, want %v", got, want)
	}
}

func compareSegments(a, b domain.SegmentID) int { return bytes.Compare(a[:], b[:]) }

func comparePlaces(a, b ports.ExtentPlace) int {
	return cmp.Or(bytes.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Base, b.Base))
}

// copyOf is the copy of extents that stands at position.
func copyOf(position int64, extents ...ports.ExtentRef) commit.Copy {
	c := commit.Copy{Position: position}
	for _, e := range extents {
		c.Of = append(c.Of, e.Extent)
	}
	return c
}

// compaction reserves a segment and puts a copy of each group of extents into it,
// one after the other.
func (m *metadataUnderTest) compaction(groups ...[]ports.ExtentRef) commit.Compaction {
	m.Helper()
	return compactionInto(m.reserve(), groups...)
}

func compactionInto(id domain.SegmentID, groups ...[]ports.ExtentRef) commit.Compaction {
	c := commit.Compaction{ID: id, Size: segmentHeader, CRC32C: 0xc0ffee}
	for _, extents := range groups {
		c.Copies = append(c.Copies, copyOf(c.Size, extents...))
		c.Size += c.Copies[len(c.Copies)-1].Extent(id).Length
	}
	return c
}

// replace demands how many copies of c hold.
func (m *metadataUnderTest) replace(c commit.Compaction, want int) {
	m.Helper()
	got, err := m.Replace(m.Context(), c)
	m.ok(err)
	if got != want {
		m.Fatalf("%d copies hold, want %d", got, want)
	}
}

// refusedReplace demands that c is refused and changes nothing.
func (m *metadataUnderTest) refusedReplace(c commit.Compaction) {
	m.Helper()
	before := m.everyExtent(ports.MaxUpkeep)
	_, err := m.Replace(m.Context(), c)
	m.definite(err)
	m.is(err, domain.ErrMetadata)
	if after := m.everyExtent(ports.MaxUpkeep); !slices.Equal(before, after) {
		m.Fatalf("a refused compaction changed the extents from %+v to %+v", before, after)
	}
}

// everyExtent reads all extents in pages of limit.
func (m *metadataUnderTest) everyExtent(limit int) []ports.ExtentRef {
	m.Helper()
	all, err := everyExtent(m.Context(), m, limit)
	m.ok(err)
	return all
}

func everyExtent(ctx context.Context, s ports.Inspection, limit int) ([]ports.ExtentRef, error) {
	var all []ports.ExtentRef
	for after := ports.FirstExtent; ; after = ports.PlaceOf(all[len(all)-1].Extent) {
		page, err := s.Extents(ctx, after, limit)
		if err != nil {
			return nil, err
		}
		if all = append(all, page...); len(page) < limit {
			return all, nil
		}
	}
}

// everySegment reads the rows of all segments in pages of limit.
func (m *metadataUnderTest) everySegment(limit int) []ports.SegmentRow {
	m.Helper()
	all, err := everySegment(m.Context(), m, limit)
	m.ok(err)
	return all
}

func everySegment(ctx context.Context, s ports.Inspection, limit int) ([]ports.SegmentRow, error) {
	var all []ports.SegmentRow
	for after := (domain.SegmentID{}); ; after = all[len(all)-1].ID {
		page, err := s.Segments(ctx, after, limit)
		if err != nil {
			return nil, err
		}
		if all = append(all, page...); len(page) < limit {
			return all, nil
		}
	}
}

// consistent demands, of a store that is open, what must hold at any time.
func (m *metadataUnderTest) consistent() {
	m.Helper()
	if err := inconsistency(m.Context(), m.MetadataStore); err != nil && !errors.Is(err, domain.ErrClosed) {
		m.Fatal(err)
	}
}

// inconsistency tells the first thing that must hold at any time and does not: each segment's
// live count is that of the extents that refer to it and agrees with its state, extents follow
// each other, and those of a topic fill its partitions.
func inconsistency(ctx context.Context, s ports.MetadataStore) error {
	extents, err := everyExtent(ctx, s, ports.MaxUpkeep)
	if err != nil {
		return err
	}
	live := make(map[domain.SegmentID]int)
	parts := make(map[commit.PartitionKey][]ports.ExtentRef)
	for i, e := range extents {
		if i > 0 && comparePlaces(ports.PlaceOf(extents[i-1].Extent), ports.PlaceOf(e.Extent)) >= 0 {
			return fmt.Errorf("extent %+v comes after %+v", e, extents[i-1])
		}
		live[e.Segment]++
		parts[e.Key()] = append(parts[e.Key()], e)
	}
	segments, err := everySegment(ctx, s, ports.MaxUpkeep)
	if err != nil {
		return err
	}
	for _, r := range segments {
		if r.Live != live[r.ID] || (r.State == ports.SegmentCommitted) != (r.Live > 0) {
			return fmt.Errorf("segment %s is %s with %d live extents, %d refer to it", r.ID, r.State, r.Live, live[r.ID])
		}
		delete(live, r.ID)
	}
	if len(live) != 0 {
		return fmt.Errorf("extents refer to segments that have no row: %v", live)
	}
	return unfilled(ctx, s, parts)
}

// unfilled tells the first partition whose extents are not all that it holds.
func unfilled(ctx context.Context, s ports.MetadataStore, parts map[commit.PartitionKey][]ports.ExtentRef) error {
	topics, err := s.ListTopics(ctx)
	if err != nil {
		return err
	}
	for _, t := range topics {
		states, err := s.DescribePartitions(ctx, t.ID)
		if err != nil {
			return err
		}
		for _, p := range states {
			extents := parts[at(t, p.Partition)]
			if !fills(p, extents) {
				return fmt.Errorf("partition %+v of topic %s has the extents %v", p, t.Name, runs(extents))
			}
		}
	}
	return nil
}

// fills says that the extents are all that the partition holds.
func fills(p domain.PartitionState, extents []ports.ExtentRef) bool {
	next, sum := p.LogStart, int64(0)
	for i, e := range extents {
		if i == 0 && e.Base <= p.LogStart && p.LogStart <= e.Last {
			next = e.Base
		}
		if e.Base != next {
			return false
		}
		next, sum = e.Last+1, sum+e.Length
	}
	return next == p.HighWatermark && sum == p.Bytes
}
