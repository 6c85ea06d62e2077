package portstest

import (
	"errors"
	"math"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

var trimCases = []metadataCase{
	{"a trim raises the log start and drops what lies below", trimDropsBelow},
	{"a trim within an extent keeps the extent", trimWithin},
	{"a trim to the high watermark leaves nothing, and offsets go on", trimAll},
	{"a trim downwards changes nothing", trimDownwards},
	{"a trim outside the partition is refused with its bounds", trimOutside},
	{"a trim of one partition leaves the others in its segment", trimLeavesOthers},
	{"a trim does not forget what a producer sent", trimKeepsSequences},
	{"a trim of a partition that is not there is refused", trimNowhere},
	{"an empty partition is trimmed to 0", trimEmpty},
	{"topics that share segments are trimmed and deleted in any order", sharedSegments},
}

func (m *metadataUnderTest) trim(key commit.PartitionKey, to, want domain.Offset) {
	m.Helper()
	got, err := m.Trim(m.Context(), key, to)
	m.ok(err)
	if got != want {
		m.Fatalf("log start after a trim to %d is %d, want %d", to, got, want)
	}
	high := m.plan(key, 0, 0).HighWatermark
	m.bounds(key, want, high)
}

func (m *metadataUnderTest) bytes(key commit.PartitionKey, want int64) {
	m.Helper()
	states, err := m.DescribePartitions(m.Context(), key.Topic)
	m.ok(err)
	if got := states[key.Partition].Bytes; got != want {
		m.Fatalf("partition has %d bytes, want %d", got, want)
	}
}

func trimDropsBelow(m *metadataUnderTest) {
	key := m.threeExtents()
	m.bytes(key, 600)
	m.trim(key, 10, 10)
	m.extents(key, run{10, 19}, run{20, 29})
	m.bytes(key, 500)
	m.trim(key, 20, 20)
	m.extents(key, run{20, 29})
	m.bytes(key, 300)
}

func trimWithin(m *metadataUnderTest) {
	key := m.threeExtents()
	m.trim(key, 9, 9)
	m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	m.bytes(key, 600)
	m.trim(key, 29, 29)
	m.extents(key, run{20, 29})
	m.bytes(key, 300)
}

func trimAll(m *metadataUnderTest) {
	key := m.threeExtents()
	m.trim(key, 30, 30)
	m.extents(key)
	m.bytes(key, 0)
	m.outcomes(m.append(plain(key, 2)), accepted(30))
	m.extents(key, run{30, 31})
	m.bounds(key, 30, 32)
}

func trimDownwards(m *metadataUnderTest) {
	key := m.threeExtents()
	m.trim(key, 15, 15)
	for _, to := range []domain.Offset{15, 14, 9, 0} {
		m.trim(key, to, 15)
	}
	m.extents(key, run{10, 19}, run{20, 29})
}

func trimOutside(m *metadataUnderTest) {
	key := m.threeExtents()
	m.trim(key, 3, 3)
	for _, to := range []domain.Offset{31, math.MaxInt64, -1, math.MinInt64} {
		_, err := m.Trim(m.Context(), key, to)
		m.is(err, domain.ErrOutOfRange)
		m.definite(err)
		e := (*domain.OutOfRangeError)(nil)
		if !errors.As(err, &e) || e.LogStart != 3 || e.HighWatermark != 30 || e.Offset != to || e.Topic != "orders" {
			m.Fatalf("error %+v does not tell what was asked and what there is", e)
		}
	}
	m.bounds(key, 3, 30)
}

func trimLeavesOthers(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	m.append(plain(at(t, 0), 2), plain(at(t, 1), 3))
	m.trim(at(t, 0), 2, 2)
	m.extents(at(t, 0))
	m.extents(at(t, 1), run{0, 2})
}

func trimKeepsSequences(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.append(sequenced(s, key, 0, 2))
	m.trim(key, 2, 2)
	m.outcomes(m.append(sequenced(s, key, 0, 2), sequenced(s, key, 2, 1)), duplicate(0), accepted(2))
}

func trimNowhere(m *metadataUnderTest) {
	t := m.topic("orders", 1)
	for _, p := range []domain.PartitionID{1, -1, math.MaxInt32} {
		_, err := m.Trim(m.Context(), at(t, p), 0)
		m.is(err, domain.ErrInvalidPartition)
		m.definite(err)
		e := (*domain.InvalidPartitionError)(nil)
		if !errors.As(err, &e) || e.Topic != "orders" || e.Partition != p || e.Count != 1 {
			m.Fatalf("error %+v does not tell what was asked and what there is", e)
		}
	}
}

func trimEmpty(m *metadataUnderTest) {
	key := m.partition("orders")
	m.trim(key, 0, 0)
	m.outcomes(m.append(plain(key, 1)), accepted(0))
}

// sharedSegments ends with nothing live in any segment; what CheckWith sees
// must agree at every mix on the way.
func sharedSegments(m *metadataUnderTest) {
	a, b := m.topic("a", 2), m.topic("b", 1)
	for range 3 {
		m.append(plain(at(a, 0), 1), plain(at(a, 1), 1), plain(at(b, 0), 1), plain(at(a, 0), 1))
	}
	look := func() { m.Helper(); m.suite.check(m.T, m.MetadataStore) }
	m.trim(at(a, 0), 3, 3)
	look()
	m.delete(b.ID)
	look()
	m.trim(at(a, 1), 2, 2)
	look()
	m.extents(at(a, 0), run{3, 3}, run{4, 4}, run{5, 5})
	m.extents(at(a, 1), run{2, 2})
	m.delete(a.ID)
	look()
}
