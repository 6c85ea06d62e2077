package portstest

import (
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var inspectionCases = []metadataCase{
	{"an empty store has nothing to show", inspectNothing},
	{"all extents come in order, in pages of any size", inspectExtents},
	{"a page begins after its place, whether there is an extent or not", inspectFromAnywhere},
	{"extents of deleted topics come with the others", inspectDeletedTopics},
	{"all segments come by id, in pages of any size", inspectSegments},
	{"a segment's row tells what its commit said", inspectRow},
	{"rows are found by id, and what has none is left out", inspectByID},
	{"a plan has at most as many extents as asked for", planMaxExtents},
}

func inspectNothing(m *metadataUnderTest) {
	m.partition("empty")
	if e, s := m.everyExtent(10), m.everySegment(10); len(e) != 0 || len(s) != 0 {
		m.Fatalf("there are the extents %+v and the segments %+v", e, s)
	}
}

// spread fills some partitions of some topics, and returns all extents in order.
func (m *metadataUnderTest) spread() []ports.ExtentRef {
	m.Helper()
	var all []ports.ExtentRef
	for _, name := range []string{"c", "a", "b", "empty", "d"} {
		t := m.topic(name, 12)
		if name == "empty" {
			continue
		}
		for range 3 {
			m.append(plain(at(t, 11), 1), plain(at(t, 0), 2), plain(at(t, 2), 3))
		}
		for _, p := range []domain.PartitionID{0, 2, 11} {
			all = append(all, m.plan(at(t, p), 0, 1<<20).Extents...)
		}
	}
	slices.SortFunc(all, func(a, b ports.ExtentRef) int { return comparePlaces(ports.PlaceOf(a.Extent), ports.PlaceOf(b.Extent)) })
	return all
}

func inspectExtents(m *metadataUnderTest) {
	all := m.spread()
	for _, limit := range []int{1, 2, 3, 5, 8, 9, 10, len(all), len(all) + 1, ports.MaxUpkeep} {
		if got := m.everyExtent(limit); !slices.Equal(got, all) {
			m.Fatalf("in pages of %d the extents are %+v, want %+v", limit, got, all)
		}
	}
}

func inspectFromAnywhere(m *metadataUnderTest) {
	all := m.spread()
	places := []ports.ExtentPlace{
		ports.FirstExtent,
		{PartitionKey: commit.PartitionKey{Topic: domain.TopicID{0xff, 0xff}}, Base: 0},
		{PartitionKey: commit.PartitionKey{Topic: all[0].Topic, Partition: -1}, Base: 5},
	}
	for _, e := range all {
		for _, by := range []domain.Offset{-1, 0, 1, 1000} {
			p := ports.PlaceOf(e.Extent)
			p.Base += by
			places = append(places, p)
		}
		next := ports.PlaceOf(e.Extent)
		next.Partition++
		next.Base = -1
		places = append(places, next)
	}
	for _, after := range places {
		want := slices.DeleteFunc(slices.Clone(all), func(e ports.ExtentRef) bool { return comparePlaces(ports.PlaceOf(e.Extent), after) <= 0 })
		want = want[:min(len(want), 4)]
		got, err := m.Extents(m.Context(), after, 4)
		m.ok(err)
		if !slices.Equal(got, want) {
			m.Fatalf("after %+v come %+v, want %+v", after, got, want)
		}
	}
}

func inspectDeletedTopics(m *metadataUnderTest) {
	all := m.spread()
	for _, name := range []string{"a", "d", "empty"} {
		t, err := m.Topic(m.Context(), name)
		m.ok(err)
		m.delete(t.ID)
		for _, limit := range []int{4, 100} {
			if got := m.everyExtent(limit); !slices.Equal(got, all) {
				m.Fatalf("without topic %s the extents are %+v, want %+v", name, got, all)
			}
		}
	}
	m.purge(10, ports.Removed{Extents: 10, Bytes: 10 * batchLength, More: true})
	if got := m.everyExtent(7); len(got) != len(all)-10 {
		m.Fatalf("%d extents are left of %d", len(got), len(all))
	}
}

func inspectSegments(m *metadataUnderTest) {
	key := m.partition("orders")
	var ids []domain.SegmentID
	for i := range 9 {
		seg := m.segment(plain(key, 1))
		ids = append(ids, seg.ID)
		if i%3 > 0 {
			m.commit(seg)
		}
	}
	m.trim(key, 2, 2)
	m.ok(m.MarkDeleted(m.Context(), ids[:2]))
	slices.SortFunc(ids, compareSegments)
	for _, limit := range []int{1, 2, 3, 4, 9, 10, ports.MaxUpkeep} {
		var got []domain.SegmentID
		for _, r := range m.everySegment(limit) {
			got = append(got, r.ID)
		}
		if !slices.Equal(got, ids) {
			m.Fatalf("in pages of %d the segments are %v, want %v", limit, got, ids)
		}
	}
}

func inspectRow(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	refs, err := m.Reserve(m.Context(), 1)
	m.ok(err)
	want := ports.SegmentRow{SegmentRef: refs[0], State: ports.SegmentPending}
	look := func() {
		m.Helper()
		got := m.row(refs[0].ID)
		if got.CreatedAt.IsZero() || got.StateAt.Before(got.CreatedAt) {
			m.Fatalf("the row has the times %s and %s", got.CreatedAt, got.StateAt)
		}
		want.CreatedAt, want.StateAt = got.CreatedAt, got.StateAt
		if got != want {
			m.Fatalf("the row is %+v, want %+v", got, want)
		}
		if all := m.everySegment(10); len(all) != 1 || !all[0].CreatedAt.Equal(got.CreatedAt) || all[0].State != got.State {
			m.Fatalf("the rows are %+v, want %+v", all, got)
		}
	}
	look()
	seg := segmentOf(refs[0].ID, plain(at(t, 0), 1), plain(at(t, 1), 1))
	m.commit(seg)
	want.State, want.Size, want.CRC32C, want.Live = ports.SegmentCommitted, seg.Size, seg.CRC32C, 2
	look()
	m.trim(at(t, 0), 1, 1)
	want.Live = 1
	look()
	m.trim(at(t, 1), 1, 1)
	want.State, want.Live = ports.SegmentDeleting, 0
	look()
	m.ok(m.MarkDeleted(m.Context(), []domain.SegmentID{refs[0].ID}))
	want.State = ports.SegmentDeleted
	look()
}

func inspectByID(m *metadataUnderTest) {
	refs, err := m.Reserve(m.Context(), 300)
	m.ok(err)
	ids := []domain.SegmentID{{1}, {2}}
	want := make(map[domain.SegmentID]string)
	for i := 0; i < len(refs); i += 2 {
		ids = append(ids, refs[i].ID)
		want[refs[i].ID] = refs[i].Key
	}
	rows, err := m.SegmentsByID(m.Context(), ids)
	m.ok(err)
	if len(rows) != len(want) {
		m.Fatalf("%d rows for %d ids", len(rows), len(want))
	}
	for _, r := range rows {
		if want[r.ID] != r.Key || r.Key == "" {
			m.Fatalf("row %+v was not asked for, or not once", r)
		}
		delete(want, r.ID)
	}
}

func planMaxExtents(m *metadataUnderTest) {
	key := m.partition("orders")
	m.tenExtents(key)
	for asked, want := range map[int]int{0: 10, 1: 1, 3: 3, 10: 10, 11: 10, ports.MaxExtents + 1: 10, -1: 10} {
		plans, err := m.Plan(m.Context(), []ports.PlanRequest{
			{PartitionKey: key, From: 1, MaxBytes: 1 << 20, MaxExtents: asked},
			{PartitionKey: key, From: 0, MaxBytes: 2 * batchLength, MaxExtents: asked},
			{PartitionKey: key, From: 0, MaxExtents: asked},
		})
		m.ok(err)
		for i, n := range []int{want, min(want, 2), 0} {
			if got := plans[i].Extents; len(got) != n || n > 0 && got[0].Base != 0 {
				m.Fatalf("plan %d of %d extents has %v", i, asked, runs(got))
			}
		}
	}
}
