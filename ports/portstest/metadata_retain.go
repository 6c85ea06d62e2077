package portstest

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var retainCases = []metadataCase{
	{"what the partition has too much of goes", retainByBytes},
	{"without a retention all stays", retainNothingSet},
	{"nothing goes after the first extent that must stay", retainStopsAtFirst},
	{"a step takes its limit and says that there may be more", retainByLimit},
	{"the log start is raised to what stays, also from within an extent", retainRaisesStart},
	{"segments without live extents become garbage, others do not", retainFreesSegments},
	{"other partitions of the topic stay", retainLeavesOthers},
	{"an empty partition keeps its log start", retainEmpty},
	{"retention goes on where a trim stopped", retainAfterTrim},
	{"an unknown topic or partition is refused", retainNowhere},
	{"a limit out of range is refused", upkeepLimits},
	{"partitions that retention is due for are found page by page", retentionDuePages},
}

// retainTimeCases need time to pass.
var retainTimeCases = []metadataCase{
	{"what was committed long enough ago goes", retainByAge},
	{"age counts from the commit, not from the records' timestamps", retainAgeIgnoresTimestamps},
	{"age and bytes remove what either removes", retainByBoth},
	{"age keeps its limit", retainAgeByLimit},
	{"a compacted extent is as young as the newest in it", retainAgeOfCompacted},
}

func retainByBytes(m *metadataUnderTest) {
	key := m.threeExtents() // 100, 200 and 300 bytes
	for _, c := range []struct {
		keep int64
		want ports.Removed
	}{
		{math.MaxInt64, ports.Removed{}},
		{600, ports.Removed{}},
		{501, ports.Removed{}},
		{500, ports.Removed{Extents: 1, Bytes: 100, LogStart: 10}},
		{301, ports.Removed{LogStart: 10}},
		{300, ports.Removed{Extents: 1, Bytes: 200, LogStart: 20}},
		{1, ports.Removed{LogStart: 20}},
	} {
		m.keepBytes(key, c.keep)
		m.retain(key, 100, c.want)
		m.retain(key, 100, ports.Removed{LogStart: c.want.LogStart})
		m.bounds(key, c.want.LogStart, 30)
	}
	m.extents(key, run{20, 29})
	m.bytes(key, 300)
	m.outcomes(m.append(plain(key, 1)), accepted(30))
}

func retainNothingSet(m *metadataUnderTest) {
	key := m.threeExtents()
	m.retain(key, ports.MaxUpkeep, ports.Removed{})
	m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
}

// retainStopsAtFirst has an extent of 300 bytes that must stay, and behind it
// one of 50 that alone could go.
func retainStopsAtFirst(m *metadataUnderTest) {
	key := m.partition("orders")
	for _, length := range []int32{100, 300, 50, 50} {
		b := plain(key, 1)
		b.Length = length
		m.append(b)
	}
	m.keepBytes(key, 250)
	m.retain(key, 10, ports.Removed{Extents: 1, Bytes: 100, LogStart: 1})
	m.retain(key, 10, ports.Removed{LogStart: 1})
	m.extents(key, run{1, 1}, run{2, 2}, run{3, 3})
}

func (m *metadataUnderTest) tenExtents(key commit.PartitionKey) {
	m.Helper()
	for range 10 {
		m.append(plain(key, 2))
	}
}

func retainByLimit(m *metadataUnderTest) {
	key := m.partition("orders")
	m.tenExtents(key)
	m.keepBytes(key, 1)
	m.retain(key, 4, ports.Removed{Extents: 4, Bytes: 400, LogStart: 8, More: true})
	m.bytes(key, 600)
	m.retain(key, 1, ports.Removed{Extents: 1, Bytes: 100, LogStart: 10, More: true})
	m.retain(key, 4, ports.Removed{Extents: 4, Bytes: 400, LogStart: 18, More: true})
	m.retain(key, 4, ports.Removed{LogStart: 18})
	m.extents(key, run{18, 19})
}

func retainRaisesStart(m *metadataUnderTest) {
	key := m.threeExtents()
	m.trim(key, 5, 5)
	m.keepBytes(key, 600)
	m.retain(key, 10, ports.Removed{LogStart: 5})
	m.keepBytes(key, 500)
	m.retain(key, 10, ports.Removed{Extents: 1, Bytes: 100, LogStart: 10})
	m.bounds(key, 10, 30)
	if got := m.plan(key, 9, 1000).Extents; len(got) != 0 {
		m.Fatalf("what retention removed is planned: %v", runs(got))
	}
}

func retainFreesSegments(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	alone := m.segment(plain(at(t, 0), 1))
	shared := m.segment(plain(at(t, 0), 1), plain(at(t, 1), 1))
	twice := m.segment(plain(at(t, 0), 1), plain(at(t, 1), 1), plain(at(t, 0), 1))
	last := m.segment(plain(at(t, 0), 1))
	for _, seg := range []commit.Segment{alone, shared, twice, last} {
		m.commit(seg)
	}
	m.keepBytes(at(t, 0), 1)
	m.retain(at(t, 0), 2, ports.Removed{Extents: 2, Bytes: 200, LogStart: 2, More: true})
	m.state(alone.ID, ports.SegmentDeleting, 0)
	m.state(shared.ID, ports.SegmentCommitted, 1)
	m.state(twice.ID, ports.SegmentCommitted, 3)
	m.retain(at(t, 0), 10, ports.Removed{Extents: 2, Bytes: 200, LogStart: 4})
	m.state(twice.ID, ports.SegmentCommitted, 1)
	m.retain(at(t, 1), 10, ports.Removed{Extents: 1, Bytes: 100, LogStart: 1})
	m.garbage(10, alone.ID, shared.ID)
	m.outcomes(m.commit(alone), accepted(0))
	m.outcomes(m.commit(twice), accepted(2), accepted(1), accepted(3))
}

func retainLeavesOthers(m *metadataUnderTest) {
	t, other := m.topic("orders", 2), m.topic("other", 1)
	for range 3 {
		m.append(plain(at(t, 0), 1), plain(at(t, 1), 1), plain(at(other, 0), 1))
	}
	m.keepBytes(at(t, 0), 100)
	m.retain(at(t, 0), 10, ports.Removed{Extents: 2, Bytes: 200, LogStart: 2})
	m.extents(at(t, 0), run{2, 2})
	m.extents(at(t, 1), run{0, 0}, run{1, 1}, run{2, 2})
	m.retain(at(other, 0), 10, ports.Removed{})
}

func retainEmpty(m *metadataUnderTest) {
	key := m.threeExtents()
	m.keepBytes(key, 1)
	m.trim(key, 30, 30)
	m.retain(key, 10, ports.Removed{LogStart: 30})
	m.keepBytes(m.partition("empty"), 1)
	m.outcomes(m.append(plain(key, 1)), accepted(30))
}

func retainAfterTrim(m *metadataUnderTest) {
	key := m.partition("orders")
	m.tenExtents(key)
	m.trim(key, 6, 6)
	m.keepBytes(key, 500)
	m.retain(key, 10, ports.Removed{Extents: 2, Bytes: 200, LogStart: 10})
	m.trim(key, 15, 15)
	m.bytes(key, 300)
	m.retain(key, 10, ports.Removed{LogStart: 15})
}

func retainNowhere(m *metadataUnderTest) {
	t := m.topic("orders", 1)
	for _, p := range []domain.PartitionID{1, -1, math.MaxInt32} {
		_, err := m.Retain(m.Context(), at(t, p), 10)
		m.is(err, domain.ErrInvalidPartition)
		m.definite(err)
		e := (*domain.InvalidPartitionError)(nil)
		if !errors.As(err, &e) || e.Topic != "orders" || e.Partition != p || e.Count != 1 {
			m.Fatalf("error %+v does not tell what was asked and what there is", e)
		}
	}
	m.delete(t.ID)
	for _, key := range []commit.PartitionKey{at(t, 0), atNowhere()} {
		_, err := m.Retain(m.Context(), key, 10)
		m.is(err, domain.ErrTopicNotFound)
		m.definite(err)
	}
}

// upkeepLimits asks every call that has a limit.
func upkeepLimits(m *metadataUnderTest) {
	key := m.threeExtents()
	m.keepBytes(key, 1)
	ctx := m.Context()
	for _, limit := range badLimits {
		errs := make(map[string]error)
		_, errs["Retain"] = m.Retain(ctx, key, limit)
		_, errs["PurgeTopics"] = m.PurgeTopics(ctx, limit)
		_, errs["ExpireReservations"] = m.ExpireReservations(ctx, 0, limit)
		_, errs["Garbage"] = m.Garbage(ctx, 0, domain.SegmentID{}, limit)
		_, errs["ForgetDeleted"] = m.ForgetDeleted(ctx, 0, limit)
		_, errs["Extents"] = m.Extents(ctx, ports.FirstExtent, limit)
		_, errs["Segments"] = m.Segments(ctx, domain.SegmentID{}, limit)
		for call, err := range errs {
			if err == nil {
				m.Fatalf("%s takes a limit of %d", call, limit)
			}
			m.definite(err)
			m.is(err, domain.ErrMetadata)
		}
	}
	many := make([]domain.SegmentID, ports.MaxUpkeep+1)
	m.definite(m.MarkDeleted(ctx, many))
	_, err := m.SegmentsByID(ctx, many)
	m.definite(err)
	m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	m.retain(key, ports.MaxUpkeep, ports.Removed{Extents: 2, Bytes: 300, LogStart: 20})
}

func (m *metadataUnderTest) keepFor(key commit.PartitionKey, r domain.Retention) {
	m.Helper()
	_, err := m.SetRetention(m.Context(), key.Topic, r)
	m.ok(err)
}

// aged commits an extent of two records and 100 bytes, an hour apart, n times.
func (m *metadataUnderTest) aged(key commit.PartitionKey, n int) {
	m.Helper()
	for range n {
		m.append(plain(key, 2))
		m.pass(time.Hour)
	}
}

func retainByAge(m *metadataUnderTest) {
	key := m.partition("orders")
	m.aged(key, 4) // committed 4, 3, 2 and 1 hours ago
	for _, c := range []struct {
		keep time.Duration
		want ports.Removed
	}{
		{math.MaxInt64, ports.Removed{}},
		{4*time.Hour + time.Minute, ports.Removed{}},
		{4*time.Hour - time.Minute, ports.Removed{Extents: 1, Bytes: 100, LogStart: 2}},
		{90 * time.Minute, ports.Removed{Extents: 2, Bytes: 200, LogStart: 6}},
		{time.Minute, ports.Removed{Extents: 1, Bytes: 100, LogStart: 8}},
		{time.Minute, ports.Removed{LogStart: 8}},
	} {
		m.keepFor(key, domain.Retention{Age: c.keep})
		m.retain(key, 10, c.want)
	}
	m.extents(key)
	m.bytes(key, 0)
	m.outcomes(m.append(plain(key, 1)), accepted(8))
	m.retain(key, 10, ports.Removed{LogStart: 8})
	m.extents(key, run{8, 8})
}

func retainAgeIgnoresTimestamps(m *metadataUnderTest) {
	key := m.partition("orders")
	future, past := plain(key, 1), plain(key, 1)
	future.MaxTimestamp, past.MaxTimestamp = math.MaxInt64, math.MinInt64
	m.append(future)
	m.pass(2 * time.Hour)
	m.append(past)
	m.keepFor(key, domain.Retention{Age: time.Hour})
	m.retain(key, 10, ports.Removed{Extents: 1, Bytes: 100, LogStart: 1})
	m.extents(key, run{1, 1})
}

func retainByBoth(m *metadataUnderTest) {
	key := m.partition("orders")
	m.aged(key, 5)
	m.keepFor(key, domain.Retention{Age: 210 * time.Minute, Bytes: 250})
	m.retain(key, 10, ports.Removed{Extents: 2, Bytes: 200, LogStart: 4}) // by age two, by bytes two
	m.keepFor(key, domain.Retention{Age: 10 * time.Hour, Bytes: 100})
	m.retain(key, 10, ports.Removed{Extents: 2, Bytes: 200, LogStart: 8}) // by bytes alone
	m.keepFor(key, domain.Retention{Age: time.Minute, Bytes: math.MaxInt64})
	m.retain(key, 10, ports.Removed{Extents: 1, Bytes: 100, LogStart: 10}) // by age alone
}

func retainAgeByLimit(m *metadataUnderTest) {
	key := m.partition("orders")
	m.aged(key, 5)
	m.keepFor(key, domain.Retention{Age: 90 * time.Minute})
	m.retain(key, 3, ports.Removed{Extents: 3, Bytes: 300, LogStart: 6, More: true})
	m.retain(key, 3, ports.Removed{Extents: 1, Bytes: 100, LogStart: 8})
	m.extents(key, run{8, 9})
}

func retainAgeOfCompacted(m *metadataUnderTest) {
	key := m.partition("orders")
	m.aged(key, 3) // committed 3, 2 and 1 hours ago
	all := m.extents(key, run{0, 1}, run{2, 3}, run{4, 5})
	m.replace(m.compaction(all[:2]), 1)
	m.keepFor(key, domain.Retention{Age: 150 * time.Minute})
	m.retain(key, 10, ports.Removed{})
	m.keepFor(key, domain.Retention{Age: 90 * time.Minute})
	m.retain(key, 10, ports.Removed{Extents: 1, Bytes: 200, LogStart: 4})
	m.extents(key, run{4, 5})
}

// retentionDuePages has two topics with too much in some partitions, one without
// a retention, and a deleted one.
func retentionDuePages(m *metadataUnderTest) {
	var want []commit.PartitionKey
	for _, name := range []string{"a", "b", "kept", "gone"} {
		t := m.topic(name, 4)
		for range 3 {
			m.append(plain(at(t, 0), 1), plain(at(t, 2), 1), plain(at(t, 3), 1))
		}
		if name == "kept" {
			continue
		}
		m.trim(at(t, 2), 3, 3)
		m.keepBytes(at(t, 0), 2*batchLength)
		if name == "gone" {
			m.delete(t.ID)
			continue
		}
		want = append(want, at(t, 0), at(t, 3))
	}
	slices.SortFunc(want, func(a, b commit.PartitionKey) int {
		return comparePlaces(ports.ExtentPlace{PartitionKey: a}, ports.ExtentPlace{PartitionKey: b})
	})
	for _, limit := range []int{1, 2, 3, 100} {
		var got []commit.PartitionKey
		for after := ports.FirstPartition; ; {
			page, err := m.RetentionDue(m.Context(), after, limit)
			m.ok(err)
			if got = append(got, page...); len(page) < limit {
				break
			}
			after = page[len(page)-1]
		}
		if !slices.Equal(got, want) {
			m.Fatalf("pages of %d give %v, want %v", limit, got, want)
		}
	}
	for _, key := range want {
		m.retain(key, 10, ports.Removed{Extents: 1, Bytes: batchLength, LogStart: 1})
	}
	due, err := m.RetentionDue(m.Context(), ports.FirstPartition, 10)
	m.ok(err)
	if len(due) != 0 {
		m.Fatalf("after it %v are due", due)
	}
	for _, limit := range badLimits {
		_, err := m.RetentionDue(m.Context(), ports.FirstPartition, limit)
		m.definite(err)
	}
}
