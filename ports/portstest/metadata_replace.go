package portstest

import (
	"math"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var replaceCases = []metadataCase{
	{"readers are sent to the copy instead of what it replaces", replaceSwaps},
	{"offsets, bytes and what comes next stay as they were", replaceChangesNoOffset},
	{"replaced segments become garbage with their last extent", replaceFreesSegments},
	{"copies of several partitions and topics stand in one segment", replaceManyPartitions},
	{"copies may leave out what lies between them", replaceWithHoles},
	{"what the rows say counts, not what the caller read", replaceTakesTheRows},
	{"a copy of which something was trimmed is not taken, the others are", replacePartlyTrimmed},
	{"a trim within the first extent does not spoil a copy", replaceTrimmedWithin},
	{"a segment whose copies all came too late becomes garbage", replaceTooLate},
	{"of two compactions of the same extents the first counts", replaceTwice},
	{"what overlaps another compaction is not taken", replaceOverlapping},
	{"a compacted extent may be compacted again", replaceAgain},
	{"the same call again gets the first count", replaceReplay},
	{"also after what it made was trimmed, deleted or compacted again", replaceReplayLate},
	{"a segment that is not pending is refused", replaceOfOthersRefused},
	{"a commit of a compacted segment is refused for ever, and others are not", commitOfReplacedRefused},
	{"compactions that cannot be meant are refused", badCompactions},
	{"a deleted topic's extents are not taken", replaceDeletedTopic},
	{"extents that never were are not taken", replaceInvented},
	{"a trim within a compacted extent keeps it", trimWithinReplaced},
	{"time finds a compacted extent by its newest record", replaceByTime},
	{"a compaction of many extents is one step", replaceManyExtents},
}

func replaceSwaps(m *metadataUnderTest) {
	key := m.threeExtents()
	old := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	c := m.compaction(old[:2])
	m.replace(c, 1)
	got := m.extents(key, run{0, 19}, run{20, 29})
	want := ports.ExtentRef{ObjectKey: m.row(c.ID).Key, Extent: commit.Extent{
		Topic: key.Topic, Partition: key.Partition, Base: 0, Last: 19, Segment: c.ID,
		Position: segmentHeader, Length: 300, Batches: 2, MaxTimestamp: 2000,
		CommittedAt: max(old[0].CommittedAt, old[1].CommittedAt),
	}}
	if got[0] != want || got[1] != old[2] {
		m.Fatalf("extents are %+v, want %+v and %+v", got, want, old[2])
	}
	for from, base := range map[domain.Offset]domain.Offset{0: 0, 9: 0, 10: 0, 19: 0, 20: 20} {
		if e := m.plan(key, from, 1).Extents; len(e) != 1 || e[0].Base != base {
			m.Fatalf("plan from %d has extents %v", from, runs(e))
		}
	}
	r := m.row(c.ID)
	if r.State != ports.SegmentCommitted || r.Size != c.Size || r.CRC32C != c.CRC32C || r.Live != 1 {
		m.Fatalf("the compacted segment is %+v", r)
	}
}

func replaceChangesNoOffset(m *metadataUnderTest) {
	key := m.threeExtents()
	s := m.session("")
	m.outcomes(m.append(sequenced(s, key, 0, 2)), accepted(30))
	before, err := m.DescribePartitions(m.Context(), key.Topic)
	m.ok(err)
	m.replace(m.compaction(m.extents(key, run{0, 9}, run{10, 19}, run{20, 29}, run{30, 31})), 1)
	after, err := m.DescribePartitions(m.Context(), key.Topic)
	m.ok(err)
	if !slices.Equal(before, after) {
		m.Fatalf("partition was %+v and is %+v", before, after)
	}
	m.outcomes(m.append(sequenced(s, key, 0, 2), sequenced(s, key, 2, 1)), duplicate(30), accepted(32))
	m.extents(key, run{0, 31}, run{32, 32})
}

func replaceFreesSegments(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	alone, shared := m.segment(plain(at(t, 0), 1)), m.segment(plain(at(t, 0), 1), plain(at(t, 1), 1), plain(at(t, 0), 1))
	m.outcomes(m.commit(alone), accepted(0))
	m.outcomes(m.commit(shared), accepted(1), accepted(0), accepted(2))
	e := m.extents(at(t, 0), run{0, 0}, run{1, 1}, run{2, 2})
	first := m.compaction(e[:2])
	m.replace(first, 1)
	m.state(alone.ID, ports.SegmentDeleting, 0)
	m.state(shared.ID, ports.SegmentCommitted, 2)
	second := m.compaction(e[2:], m.extents(at(t, 1), run{0, 0}))
	m.replace(second, 2)
	m.garbage(10, alone.ID, shared.ID)
	m.state(first.ID, ports.SegmentCommitted, 1)
	m.state(second.ID, ports.SegmentCommitted, 2)
	m.outcomes(m.commit(shared), accepted(1), accepted(0), accepted(2))
}

func replaceManyPartitions(m *metadataUnderTest) {
	a, b := m.topic("a", 3), m.topic("b", 1)
	keys := []commit.PartitionKey{at(b, 0), at(a, 2), at(a, 0)}
	for range 3 {
		m.append(plain(keys[0], 2), plain(keys[1], 3), plain(keys[2], 4))
	}
	var groups [][]ports.ExtentRef
	for i, key := range keys {
		n := domain.Offset(i + 2)
		groups = append(groups, m.extents(key, run{0, n - 1}, run{n, 2*n - 1}, run{2 * n, 3*n - 1})[:2])
	}
	c := m.compaction(groups...)
	m.replace(c, 3)
	for i, key := range keys {
		n := domain.Offset(i + 2)
		e := m.extents(key, run{0, 2*n - 1}, run{2 * n, 3*n - 1})[0]
		if e.Segment != c.ID || e.Position != c.Copies[i].Position || e.Length != 200 || e.Batches != 2 {
			m.Fatalf("extent is %+v", e)
		}
	}
	m.state(c.ID, ports.SegmentCommitted, 3)
}

func replaceWithHoles(m *metadataUnderTest) {
	key := m.partition("orders")
	m.tenExtents(key)
	e := m.plan(key, 0, 1<<20).Extents
	m.replace(m.compaction(e[:3], e[5:7], e[9:]), 3)
	m.extents(key, run{0, 5}, run{6, 7}, run{8, 9}, run{10, 13}, run{14, 15}, run{16, 17}, run{18, 19})
}

func replaceTakesTheRows(m *metadataUnderTest) {
	key := m.threeExtents()
	old := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	read := slices.Clone(old)
	for i := range read {
		read[i].MaxTimestamp, read[i].CommittedAt, read[i].ObjectKey = math.MaxInt64, math.MaxInt64, "elsewhere"
	}
	m.replace(m.compaction(read[:2]), 1)
	e := m.extents(key, run{0, 19}, run{20, 29})[0]
	if e.MaxTimestamp != 2000 || e.CommittedAt != max(old[0].CommittedAt, old[1].CommittedAt) {
		m.Fatalf("extent is %+v, made of %+v", e, old[:2])
	}
}

func replacePartlyTrimmed(m *metadataUnderTest) {
	key, other := m.threeExtents(), m.partition("other")
	m.append(plain(other, 1))
	m.append(plain(other, 1))
	e, o := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29}), m.extents(other, run{0, 0}, run{1, 1})
	c := m.compaction(e[:2], o)
	m.trim(key, 10, 10)
	m.replace(c, 1)
	m.extents(key, run{10, 19}, run{20, 29})
	m.bytes(key, 500)
	m.extents(other, run{0, 1})
	m.state(c.ID, ports.SegmentCommitted, 1)
	m.state(e[1].Segment, ports.SegmentCommitted, 1)
	m.garbage(10, e[0].Segment, o[0].Segment, o[1].Segment)
}

func replaceTrimmedWithin(m *metadataUnderTest) {
	key := m.threeExtents()
	c := m.compaction(m.extents(key, run{0, 9}, run{10, 19}, run{20, 29}))
	m.trim(key, 7, 7)
	m.replace(c, 1)
	m.extents(key, run{0, 29})
	m.bounds(key, 7, 30)
	m.bytes(key, 600)
}

func replaceTooLate(m *metadataUnderTest) {
	key := m.threeExtents()
	c := m.compaction(m.extents(key, run{0, 9}, run{10, 19}, run{20, 29}))
	m.trim(key, 30, 30)
	m.replace(c, 0)
	m.extents(key)
	m.state(c.ID, ports.SegmentDeleting, 0)
	m.replace(c, 0)
}

func replaceTwice(m *metadataUnderTest) {
	key := m.threeExtents()
	e := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	first, second := m.compaction(e), m.compaction(e)
	m.replace(first, 1)
	m.replace(second, 0)
	m.state(first.ID, ports.SegmentCommitted, 1)
	m.state(second.ID, ports.SegmentDeleting, 0)
	if got := m.extents(key, run{0, 29})[0]; got.Segment != first.ID {
		m.Fatalf("extent is %+v", got)
	}
}

func replaceOverlapping(m *metadataUnderTest) {
	key := m.partition("orders")
	m.tenExtents(key)
	e := m.plan(key, 0, 1<<20).Extents
	late := []commit.Compaction{m.compaction(e[:3]), m.compaction(e[5:7]), m.compaction(e[1:9]), m.compaction(e[3:4]), m.compaction(e[2:6])}
	m.replace(m.compaction(e[2:6]), 1)
	for _, c := range late {
		m.replace(c, 0)
		m.state(c.ID, ports.SegmentDeleting, 0)
	}
	m.extents(key, run{0, 1}, run{2, 3}, run{4, 11}, run{12, 13}, run{14, 15}, run{16, 17}, run{18, 19})
	m.replace(m.compaction(e[:2], e[6:]), 2)
	m.extents(key, run{0, 3}, run{4, 11}, run{12, 19})
}

func replaceAgain(m *metadataUnderTest) {
	key := m.partition("orders")
	m.tenExtents(key)
	e := m.plan(key, 0, 1<<20).Extents
	c := m.compaction(e[:5], e[5:])
	m.replace(c, 2)
	again := m.compaction(m.extents(key, run{0, 9}, run{10, 19}))
	m.replace(again, 1)
	if got := m.extents(key, run{0, 19})[0]; got.Batches != 10 || got.Length != 1000 || got.Segment != again.ID {
		m.Fatalf("extent is %+v", got)
	}
	m.state(c.ID, ports.SegmentDeleting, 0)
	m.replace(m.compaction(m.extents(key, run{0, 19})), 1) // one extent, moved
	m.state(again.ID, ports.SegmentDeleting, 0)
}

func replaceReplay(m *metadataUnderTest) {
	key := m.partition("orders")
	m.tenExtents(key)
	e := m.plan(key, 0, 1<<20).Extents
	c := m.compaction(e[:3], e[3:6], e[6:])
	m.trim(key, 2, 2)
	for range 3 {
		m.replace(c, 2)
	}
	m.state(c.ID, ports.SegmentCommitted, 2)
	m.extents(key, run{2, 3}, run{4, 5}, run{6, 11}, run{12, 19})
}

func replaceReplayLate(m *metadataUnderTest) {
	key := m.partition("orders")
	m.tenExtents(key)
	e := m.plan(key, 0, 1<<20).Extents
	c := m.compaction(e[:3], e[3:6], e[6:])
	m.replace(c, 3)
	m.trim(key, 7, 7)
	m.replace(c, 3)
	m.replace(m.compaction(m.extents(key, run{6, 11}, run{12, 19})), 1)
	m.state(c.ID, ports.SegmentDeleting, 0)
	m.replace(c, 3)
	m.ok(m.MarkDeleted(m.Context(), []domain.SegmentID{c.ID}))
	m.replace(c, 3)
	m.delete(key.Topic)
	m.replace(c, 3)
	m.forget(0, 10, 1)
	m.refusedReplace(c)
}

func replaceOfOthersRefused(m *metadataUnderTest) {
	key := m.threeExtents()
	e := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	expired := m.reserve()
	m.expire(0, 10, 1)
	dead := m.segment()
	m.commit(dead)
	deleted := m.deleted(1)[0]
	for name, id := range map[string]domain.SegmentID{
		"unknown": {9}, "committed": e[2].Segment, "expired": expired, "committed with nothing live": dead.ID, "deleted": deleted,
	} {
		m.Logf("a segment that is %s", name)
		m.refusedReplace(compactionInto(id, e[:2]))
	}
	m.state(e[2].Segment, ports.SegmentCommitted, 1)
	m.state(expired, ports.SegmentDeleting, 0)
}

func commitOfReplacedRefused(m *metadataUnderTest) {
	key := m.threeExtents()
	e := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	held, late := m.compaction(e), m.compaction(e)
	m.replace(held, 1)
	m.replace(late, 0)
	for _, c := range []commit.Compaction{held, late} {
		m.refusedCommit(segmentOf(c.ID, plain(key, 1)))
	}
	m.bounds(key, 0, 30)
	m.replace(held, 1)
	m.replace(late, 0)
}

func badCompactions(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	for range 4 {
		m.append(plain(at(t, 0), 2), plain(at(t, 1), 2))
	}
	all := []run{{0, 1}, {2, 3}, {4, 5}, {6, 7}}
	e, o := m.extents(at(t, 0), all...), m.extents(at(t, 1), all...)
	id := m.reserve()
	change := func(f func(c *commit.Compaction)) commit.Compaction {
		c := compactionInto(id, e[:2], o[:2])
		f(&c)
		return c
	}
	for name, c := range map[string]commit.Compaction{
		"nothing":                {ID: id, Size: 100},
		"a copy of nothing":      change(func(c *commit.Compaction) { c.Copies[1].Of = nil }),
		"a gap":                  compactionInto(id, []ports.ExtentRef{e[0], e[2]}),
		"the wrong order":        compactionInto(id, []ports.ExtentRef{e[1], e[0]}),
		"two partitions":         compactionInto(id, []ports.ExtentRef{e[0], o[1]}),
		"an extent twice":        compactionInto(id, e[:2], e[1:3]),
		"offsets that fall":      compactionInto(id, e[2:], e[:2]),
		"copies that overlap":    change(func(c *commit.Compaction) { c.Copies[1].Position-- }),
		"a negative position":    change(func(c *commit.Compaction) { c.Copies[0].Position = -1 }),
		"a copy that sticks out": change(func(c *commit.Compaction) { c.Size-- }),
		"an extent of itself":    change(func(c *commit.Compaction) { c.Copies[0].Of[1].Segment = id }),
		"an empty extent":        change(func(c *commit.Compaction) { c.Copies[0].Of[0].Length = 0 }),
		"an extent backwards":    change(func(c *commit.Compaction) { c.Copies[0].Of[0].Last = -1 }),
	} {
		m.Logf("a compaction with %s", name)
		m.refusedReplace(c)
	}
	m.state(id, ports.SegmentPending, 0)
	m.replace(compactionInto(id, e[:2], o[:2]), 2)
}

func replaceDeletedTopic(m *metadataUnderTest) {
	key, gone := m.threeExtents(), m.partition("gone")
	seg := m.segment(plain(gone, 1))
	m.commit(seg)
	c := m.compaction(m.extents(gone, run{0, 0}), m.extents(key, run{0, 9}, run{10, 19}, run{20, 29}))
	alone := m.compaction(m.extents(gone, run{0, 0}))
	m.delete(gone.Topic)
	m.replace(c, 1)
	m.replace(alone, 0)
	m.extents(key, run{0, 29})
	m.state(seg.ID, ports.SegmentCommitted, 1)
	m.purge(10, ports.Removed{Extents: 1, Bytes: 100})
	m.state(seg.ID, ports.SegmentDeleting, 0)
	m.state(c.ID, ports.SegmentCommitted, 1)
	m.state(alone.ID, ports.SegmentDeleting, 0)
}

func replaceInvented(m *metadataUnderTest) {
	key := m.threeExtents()
	e := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	for name, change := range map[string]func(e *commit.Extent){
		"another segment":      func(e *commit.Extent) { e.Segment = domain.SegmentID{9} },
		"another position":     func(e *commit.Extent) { e.Position++ },
		"another length":       func(e *commit.Extent) { e.Length-- },
		"other batches":        func(e *commit.Extent) { e.Batches++ },
		"an earlier end":       func(e *commit.Extent) { e.Last-- },
		"a later beginning":    func(e *commit.Extent) { e.Base++ },
		"a partition too many": func(e *commit.Extent) { e.Partition = 1 },
		"no such partition":    func(e *commit.Extent) { e.Partition = -1 },
		"an unknown topic":     func(e *commit.Extent) { e.Topic = domain.TopicID{9} },
	} {
		m.Logf("an extent with %s", name)
		claimed := e[1]
		change(&claimed.Extent)
		c := m.compaction([]ports.ExtentRef{claimed})
		m.replace(c, 0)
		m.state(c.ID, ports.SegmentDeleting, 0)
	}
	m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
}

func trimWithinReplaced(m *metadataUnderTest) {
	key := m.threeExtents()
	c := m.compaction(m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})[:2])
	m.replace(c, 1)
	m.trim(key, 15, 15)
	m.extents(key, run{0, 19}, run{20, 29})
	m.bytes(key, 600)
	m.trim(key, 20, 20)
	m.extents(key, run{20, 29})
	m.bytes(key, 300)
	m.state(c.ID, ports.SegmentDeleting, 0)
}

func replaceByTime(m *metadataUnderTest) {
	key := m.threeExtents()
	m.replace(m.compaction(m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})[:2]), 1)
	for ts, want := range map[int64]domain.Offset{0: 0, 1001: 0, 2000: 0, 2001: 20, 3000: 20} {
		m.extentAt(key, ts, want)
	}
	m.extentAt(key, 3001)
}

func replaceManyExtents(m *metadataUnderTest) {
	const partitions, rounds = 50, 20
	t := m.topic("orders", partitions)
	for range rounds {
		var batches []commit.Batch
		for p := range domain.PartitionID(partitions) {
			batches = append(batches, plain(at(t, p), 1))
		}
		m.append(batches...)
	}
	var groups [][]ports.ExtentRef
	for p := range domain.PartitionID(partitions) {
		groups = append(groups, m.plan(at(t, p), 0, 1<<20).Extents)
	}
	c := m.compaction(groups...)
	m.replace(c, partitions)
	m.state(c.ID, ports.SegmentCommitted, partitions)
	for p := range domain.PartitionID(partitions) {
		m.extents(at(t, p), run{0, rounds - 1})
	}
}
