package portstest

import (
	"math"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var planCases = []metadataCase{
	{"a plan begins with the extent that holds its offset", planBeginsWithin},
	{"no offset outside the partition has extents, and the bounds tell", planOutside},
	{"the first extent comes whatever its length", planFirstAlways},
	{"further extents come while they fit", planWithinBytes},
	{"no bytes give the bounds only", planBoundsOnly},
	{"requests are answered in order, each by itself", planAnswersEach},
	{"the same partition may be asked twice", planTwice},
	{"no requests give no plans", planNothing},
	{"a plan is not changed by later commits", planIsACopy},
	{"every offset of a long log is found", planFindsEveryOffset},
	{"time finds the first extent that is new enough", timeFindsExtent},
	{"time finds extents whose timestamps do not rise", timeMayFall},
	{"time finds nothing in an empty partition", timeInEmpty},
	{"time in a partition that is not there is an error", timeNowhere},
}

// threeExtents fills a new partition with the offsets 0-9, 10-19 and 20-29, in
// extents of 100, 200 and 300 bytes.
func (m *metadataUnderTest) threeExtents() commit.PartitionKey {
	m.Helper()
	key := m.partition("orders")
	for i := range int32(3) {
		b := plain(key, 10)
		b.Length = 100 * (i + 1)
		b.MaxTimestamp = int64(1000 * (i + 1))
		m.append(b)
	}
	return key
}

func planBeginsWithin(m *metadataUnderTest) {
	key := m.threeExtents()
	all := []run{{0, 9}, {10, 19}, {20, 29}}
	for from, want := range map[domain.Offset][]run{0: all, 5: all, 9: all, 10: all[1:], 19: all[1:], 20: all[2:], 29: all[2:]} {
		p := m.plan(key, from, 1<<20)
		if got := runs(p.Extents); !slices.Equal(got, want) {
			m.Fatalf("plan from %d has extents %v, want %v", from, got, want)
		}
	}
}

func planOutside(m *metadataUnderTest) {
	key := m.threeExtents()
	_, err := m.Trim(m.Context(), key, 15)
	m.ok(err)
	for _, from := range []domain.Offset{30, 31, math.MaxInt64, -1, math.MinInt64, 0, 9, 10, 14} {
		p := m.plan(key, from, 1<<20)
		if len(p.Extents) != 0 || p.LogStart != 15 || p.HighWatermark != 30 {
			m.Fatalf("plan from %d is %+v", from, p)
		}
	}
	if got := runs(m.plan(key, 15, 1<<20).Extents); !slices.Equal(got, []run{{10, 19}, {20, 29}}) {
		m.Fatalf("plan from the log start has extents %v", got)
	}
}

func planFirstAlways(m *metadataUnderTest) {
	key := m.threeExtents()
	for _, maxBytes := range []int64{1, 50, 99, 100, 299} {
		if got := runs(m.plan(key, 0, maxBytes).Extents); !slices.Equal(got, []run{{0, 9}}) {
			m.Fatalf("plan of %d bytes has extents %v", maxBytes, got)
		}
	}
}

func planWithinBytes(m *metadataUnderTest) {
	key := m.threeExtents()
	for maxBytes, want := range map[int64]int{300: 2, 599: 2, 600: 3, 601: 3, math.MaxInt64: 3} {
		if got := m.plan(key, 3, maxBytes).Extents; len(got) != want {
			m.Fatalf("plan of %d bytes has extents %v, want %d", maxBytes, runs(got), want)
		}
	}
}

func planBoundsOnly(m *metadataUnderTest) {
	key := m.threeExtents()
	p := m.plan(key, 0, 0)
	if len(p.Extents) != 0 || p.LogStart != 0 || p.HighWatermark != 30 {
		m.Fatalf("plan is %+v, want the bounds only", p)
	}
}

func planAnswersEach(m *metadataUnderTest) {
	key := m.threeExtents()
	other := m.topic("other", 2)
	m.append(plain(at(other, 1), 4))
	gone := m.partition("gone")
	m.delete(gone.Topic)
	plans, err := m.Plan(m.Context(), []ports.PlanRequest{
		{PartitionKey: at(other, 1), From: 0, MaxBytes: 1},
		{PartitionKey: gone, MaxBytes: 1},
		{PartitionKey: at(other, 2), MaxBytes: 1},
		{PartitionKey: key, From: 12, MaxBytes: 1},
		{PartitionKey: at(other, -1), MaxBytes: 1},
		{PartitionKey: at(other, 0), MaxBytes: 1},
	})
	m.ok(err)
	for i, want := range [][]run{{{0, 3}}, nil, nil, {{10, 19}}, nil, nil} {
		if got := runs(plans[i].Extents); !slices.Equal(got, want) {
			m.Fatalf("plan %d has extents %v, want %v", i, got, want)
		}
	}
	m.is(plans[1].Err, domain.ErrTopicNotFound)
	m.is(plans[2].Err, domain.ErrInvalidPartition)
	m.is(plans[4].Err, domain.ErrInvalidPartition)
	for _, i := range []int{0, 3, 5} {
		m.ok(plans[i].Err)
	}
	if plans[0].HighWatermark != 4 || plans[3].HighWatermark != 30 || plans[5].HighWatermark != 0 {
		m.Fatalf("plans are %+v", plans)
	}
}

func planTwice(m *metadataUnderTest) {
	key := m.threeExtents()
	plans, err := m.Plan(m.Context(), []ports.PlanRequest{
		{PartitionKey: key, From: 20, MaxBytes: 1}, {PartitionKey: key, From: 0, MaxBytes: 1},
	})
	m.ok(err)
	if plans[0].Extents[0].Base != 20 || plans[1].Extents[0].Base != 0 {
		m.Fatalf("plans are %+v", plans)
	}
}

func planNothing(m *metadataUnderTest) {
	plans, err := m.Plan(m.Context(), nil)
	m.ok(err)
	if len(plans) != 0 {
		m.Fatalf("plans are %+v", plans)
	}
}

func planIsACopy(m *metadataUnderTest) {
	key := m.threeExtents()
	p := m.plan(key, 0, 1<<20)
	want := slices.Clone(p.Extents)
	_, err := m.Trim(m.Context(), key, 30)
	m.ok(err)
	for range 10 {
		m.append(plain(key, 1))
	}
	if !slices.Equal(p.Extents, want) {
		m.Fatalf("plan was %v and is %v", want, p.Extents)
	}
	p = m.plan(key, 30, 1<<20)
	p.Extents[0].Base = 7
	m.extents(key, run{30, 30}, run{31, 31}, run{32, 32}, run{33, 33}, run{34, 34}, run{35, 35}, run{36, 36}, run{37, 37}, run{38, 38}, run{39, 39})
}

func planFindsEveryOffset(m *metadataUnderTest) {
	key := m.partition("orders")
	var segments []commit.Segment
	for i := range int32(60) {
		segments = append(segments, m.segment(plain(key, i%7+1)))
	}
	_, err := m.Commit(m.Context(), segments)
	m.ok(err)
	high := m.plan(key, 0, 0).HighWatermark
	for o := range high {
		p := m.plan(key, o, 1)
		if len(p.Extents) != 1 || p.Extents[0].Base > o || p.Extents[0].Last < o {
			m.Fatalf("plan from %d has extents %v", o, runs(p.Extents))
		}
	}
}

func (m *metadataUnderTest) extentAt(key commit.PartitionKey, timestamp int64, want ...domain.Offset) {
	m.Helper()
	e, found, err := m.ExtentAt(m.Context(), key, timestamp)
	m.ok(err)
	if found != (len(want) == 1) {
		m.Fatalf("extent at time %d: found is %v (%+v), want %v", timestamp, found, e, want)
	}
	if found && e != m.plan(key, want[0], 1).Extents[0] {
		m.Fatalf("extent at time %d is %+v, want the one at offset %d", timestamp, e, want[0])
	}
}

func timeFindsExtent(m *metadataUnderTest) {
	key := m.threeExtents()
	for ts, want := range map[int64]domain.Offset{math.MinInt64: 0, 0: 0, 1000: 0, 1001: 10, 2000: 10, 2001: 20, 3000: 20} {
		m.extentAt(key, ts, want)
	}
	m.extentAt(key, 3001)
	m.extentAt(key, math.MaxInt64)
	_, err := m.Trim(m.Context(), key, 12)
	m.ok(err)
	m.extentAt(key, 0, 12)
	_, err = m.Trim(m.Context(), key, 20)
	m.ok(err)
	m.extentAt(key, 0, 20)
}

func timeMayFall(m *metadataUnderTest) {
	key := m.partition("orders")
	for _, ts := range []int64{50, -10, 100, 70, 100, 200} {
		b := plain(key, 1)
		b.MaxTimestamp = ts
		m.append(b)
	}
	for ts, want := range map[int64]domain.Offset{-20: 0, 50: 0, 51: 2, 71: 2, 100: 2, 101: 5} {
		m.extentAt(key, ts, want)
	}
	_, err := m.Trim(m.Context(), key, 3)
	m.ok(err)
	m.extentAt(key, -20, 3)
	m.extentAt(key, 71, 4)
}

func timeInEmpty(m *metadataUnderTest) { m.extentAt(m.partition("orders"), math.MinInt64) }

func timeNowhere(m *metadataUnderTest) {
	t := m.topic("orders", 1)
	for _, p := range []domain.PartitionID{1, -1} {
		_, _, err := m.ExtentAt(m.Context(), at(t, p), 0)
		m.is(err, domain.ErrInvalidPartition)
		m.definite(err)
	}
	_, _, err := m.ExtentAt(m.Context(), atNowhere(), 0)
	m.is(err, domain.ErrTopicNotFound)
}
