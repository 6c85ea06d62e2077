package portstest

import (
	"math"
	"slices"
	"strings"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var reserveCases = []metadataCase{
	{"every reserved segment has its own id and key", reservedSegmentsDiffer},
	{"as many are reserved as asked, up to 1024", reserveCounts},
	{"other counts are refused", badReserveCounts},
	{"a reserved segment shows to no reader", reservedIsInvisible},
}

var commitCases = []metadataCase{
	{"offsets are dense from 0", offsetsAreDense},
	{"each partition counts its own offsets", partitionsCountAlone},
	{"the bytes of a partition are those of its batches", bytesAreCounted},
	{"adjacent batches of a partition share one extent", adjacentBatchesShareExtent},
	{"batches with others between them do not share an extent", apartBatchesDoNot},
	{"a refused batch leaves no gap in the offsets", refusedLeavesNoGap},
	{"an extent knows its segment, place and newest timestamp", extentKnowsItsPlace},
	{"a partition that is not there refuses its batches only", missingPartitionRefusesAlone},
	{"a segment without batches is judged", emptySegmentIsJudged},
	{"no segments give no results", noSegmentsNoResults},
	{"several segments are judged in order", severalInOrder},
	{"an unknown segment is refused for ever and the others are not", unknownSegmentRefused},
	{"a segment of a thousand partitions is judged at once", manyPartitions},
	{"a batch of 2^31-1 records takes as many offsets", hugeBatch},
}

func reservedSegmentsDiffer(m *metadataUnderTest) {
	seen := make(map[domain.SegmentID]bool)
	keys := make(map[string]bool)
	for range 5 {
		refs, err := m.Reserve(m.Context(), 20)
		m.ok(err)
		for _, r := range refs {
			seen[r.ID], keys[r.Key] = true, true
			if domain.UUID(r.ID).IsZero() || !strings.HasSuffix(r.Key, "/"+r.ID.String()) {
				m.Fatalf("segment %s has the key %q", r.ID, r.Key)
			}
			m.ok(ports.CheckObjectKey(r.Key))
		}
	}
	if len(seen) != 100 || len(keys) != 100 {
		m.Fatalf("100 segments have %d ids and %d keys", len(seen), len(keys))
	}
}

func reserveCounts(m *metadataUnderTest) {
	for _, n := range []int{1, 2, 1024} {
		refs, err := m.Reserve(m.Context(), n)
		m.ok(err)
		if len(refs) != n {
			m.Fatalf("%d segments reserved, want %d", len(refs), n)
		}
	}
}

func badReserveCounts(m *metadataUnderTest) {
	for _, n := range []int{0, -1, 1025, math.MaxInt} {
		_, err := m.Reserve(m.Context(), n)
		m.definite(err)
		m.is(err, domain.ErrMetadata)
	}
}

func reservedIsInvisible(m *metadataUnderTest) {
	key := m.partition("orders")
	m.segment(plain(key, 1))
	m.bounds(key, 0, 0)
	m.extents(key)
	m.outcomes(m.append(plain(key, 1)), accepted(0))
}

func offsetsAreDense(m *metadataUnderTest) {
	key := m.partition("orders")
	m.outcomes(m.append(plain(key, 3)), accepted(0))
	m.outcomes(m.append(plain(key, 1), plain(key, 5)), accepted(3), accepted(4))
	m.outcomes(m.append(plain(key, 2)), accepted(9))
	m.bounds(key, 0, 11)
	m.extents(key, run{0, 2}, run{3, 8}, run{9, 10})
}

func partitionsCountAlone(m *metadataUnderTest) {
	a, b := m.topic("a", 2), m.topic("b", 2)
	m.outcomes(m.append(plain(at(a, 0), 3), plain(at(a, 1), 5), plain(at(b, 0), 7)), accepted(0), accepted(0), accepted(0))
	m.outcomes(m.append(plain(at(a, 0), 1), plain(at(a, 1), 1), plain(at(b, 0), 1)), accepted(3), accepted(5), accepted(7))
	m.bounds(at(b, 1), 0, 0)
}

func bytesAreCounted(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	long := plain(at(t, 0), 1)
	long.Length = math.MaxInt32
	m.append(plain(at(t, 0), 1), long, plain(at(t, 1), 1), plain(at(t, 7), 1))
	m.append(plain(at(t, 0), 1))
	states, err := m.DescribePartitions(m.Context(), t.ID)
	m.ok(err)
	want := []domain.PartitionState{
		{Partition: 0, HighWatermark: 3, Bytes: 2*batchLength + math.MaxInt32},
		{Partition: 1, HighWatermark: 1, Bytes: batchLength},
	}
	if !slices.Equal(states, want) {
		m.Fatalf("partitions are %+v, want %+v", states, want)
	}
}

func adjacentBatchesShareExtent(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	m.append(plain(at(t, 0), 1), plain(at(t, 0), 2), plain(at(t, 0), 3), plain(at(t, 1), 4))
	e := m.extents(at(t, 0), run{0, 5})[0]
	if e.Position != segmentHeader || e.Length != 3*batchLength || e.Batches != 3 {
		m.Fatalf("extent is %+v", e)
	}
	e = m.extents(at(t, 1), run{0, 3})[0]
	if e.Position != segmentHeader+3*batchLength || e.Length != batchLength || e.Batches != 1 {
		m.Fatalf("extent is %+v", e)
	}
}

func apartBatchesDoNot(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	m.append(plain(at(t, 0), 1), plain(at(t, 1), 2), plain(at(t, 0), 3))
	got := m.extents(at(t, 0), run{0, 0}, run{1, 3})
	if got[0].Position != segmentHeader || got[1].Position != segmentHeader+2*batchLength {
		m.Fatalf("extents are %+v", got)
	}
}

func refusedLeavesNoGap(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	got := m.append(plain(key, 1), sequenced(s, key, 9, 5), plain(key, 1))
	m.outcomes(got, accepted(0), refused(commit.OutOfOrder), accepted(1))
	extents := m.extents(key, run{0, 0}, run{1, 1})
	if extents[0].Length != batchLength || extents[1].Position != segmentHeader+2*batchLength {
		m.Fatalf("extents are %+v: one covers the refused batch", extents)
	}
}

func extentKnowsItsPlace(m *metadataUnderTest) {
	key := m.partition("orders")
	refs, err := m.Reserve(m.Context(), 1)
	m.ok(err)
	batches := []commit.Batch{plain(key, 1), plain(key, 2), plain(key, 3)}
	for i, ts := range []int64{math.MinInt64, 500, 400} {
		batches[i].MaxTimestamp = ts
	}
	batches[1].Length = 777
	m.commit(segmentOf(refs[0].ID, batches...))
	want := ports.ExtentRef{ObjectKey: refs[0].Key, Extent: commit.Extent{
		Topic: key.Topic, Partition: 0, Base: 0, Last: 5, Segment: refs[0].ID,
		Position: segmentHeader, Length: 777 + 2*batchLength, Batches: 3, MaxTimestamp: 500,
	}}
	got := m.extents(key, run{0, 5})[0]
	if want.CommittedAt = got.CommittedAt; got != want || got.CommittedAt <= 0 {
		m.Fatalf("extent is %+v, want %+v and when it was committed", got, want)
	}
}

func missingPartitionRefusesAlone(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	none := refused(commit.NoPartition)
	got := m.append(
		plain(at(t, 2), 1), plain(at(t, 0), 1), plain(at(t, -1), 1), plain(at(t, math.MaxInt32), 1),
		plain(commit.PartitionKey{Topic: domain.TopicID{9}}, 1), plain(at(t, 1), 1),
	)
	m.outcomes(got, none, accepted(0), none, none, none, accepted(0))
}

func emptySegmentIsJudged(m *metadataUnderTest) {
	seg := m.segment()
	m.outcomes(m.commit(seg))
	m.outcomes(m.commit(seg))
}

func noSegmentsNoResults(m *metadataUnderTest) {
	results, err := m.Commit(m.Context(), nil)
	m.ok(err)
	if len(results) != 0 {
		m.Fatalf("results are %v", results)
	}
}

func severalInOrder(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	// Reserved in the other order, so that no order but that of the call can win.
	third, second, first := m.reserve(), m.reserve(), m.reserve()
	results, err := m.Commit(m.Context(), []commit.Segment{
		segmentOf(first, sequenced(s, key, 0, 2), plain(key, 1)),
		segmentOf(second, sequenced(s, key, 2, 2)),
		segmentOf(third, sequenced(s, key, 4, 2), sequenced(s, key, 0, 2)),
	})
	m.ok(err)
	m.outcomes(results[0].Outcomes, accepted(0), accepted(2))
	m.outcomes(results[1].Outcomes, accepted(3))
	m.outcomes(results[2].Outcomes, accepted(5), duplicate(0))
	m.extents(key, run{0, 2}, run{3, 4}, run{5, 6})
}

func unknownSegmentRefused(m *metadataUnderTest) {
	key := m.partition("orders")
	segments := []commit.Segment{
		m.segment(plain(key, 1)), segmentOf(domain.SegmentID{1}, plain(key, 1)), m.segment(plain(key, 1)),
		segmentOf(domain.SegmentID{}, plain(key, 1)),
	}
	for range 2 {
		results, err := m.Commit(m.Context(), segments)
		m.ok(err)
		m.outcomes(results[0].Outcomes, accepted(0))
		m.outcomes(results[2].Outcomes, accepted(1))
		for _, r := range []ports.CommitResult{results[1], results[3]} {
			m.definite(r.Err)
			if r.Outcomes != nil {
				m.Fatalf("an unknown segment has the outcomes %v", r.Outcomes)
			}
		}
		m.bounds(key, 0, 2)
	}
}

func manyPartitions(m *metadataUnderTest) {
	t := m.topic("wide", 1000)
	var batches []commit.Batch
	var want []commit.Outcome
	for p := range domain.PartitionID(1000) {
		batches = append(batches, plain(at(t, p), int32(p)+1))
		want = append(want, accepted(0))
	}
	m.outcomes(m.append(batches...), want...)
	for i := range want {
		want[i] = accepted(domain.Offset(i) + 1)
	}
	m.outcomes(m.append(batches...), want...)
}

func hugeBatch(m *metadataUnderTest) {
	key := m.partition("orders")
	m.outcomes(m.append(plain(key, math.MaxInt32), plain(key, math.MaxInt32), plain(key, 1)),
		accepted(0), accepted(math.MaxInt32), accepted(2*math.MaxInt32))
	m.extents(key, run{0, 2 * math.MaxInt32})
}
