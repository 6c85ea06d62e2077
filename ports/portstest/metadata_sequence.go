package portstest

import (
	"math"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
)

var sequenceCases = []metadataCase{
	{"a producer's batches follow each other", batchesFollow},
	{"a repeated batch gets its first offset and is not stored again", repeatGetsFirstOffset},
	{"a repeat inside one segment too", repeatInOneSegment},
	{"a repeat is known by its sequences, whatever its bytes", repeatWithOtherBytes},
	{"each of the last five batches is remembered with its offset", windowIsFive},
	{"an older repeat is known as stored, its offset is not", olderIsForgotten},
	{"a batch after a gap is refused and may come later", gapIsRefused},
	{"the first batch must have sequence 0", firstIsZero},
	{"a batch that overlaps the newest is refused", overlapIsRefused},
	{"partitions have their own sequences", partitionsHaveTheirOwn},
	{"producers have their own sequences", producersHaveTheirOwn},
	{"sequences go on at 0 after 2^31-1", sequencesWrap},
	{"a batch may begin before the wrap and end after it", batchAcrossWrap},
	{"a newer session begins at 0 again", newerSessionBeginsAtZero},
	{"an older session is fenced, its repeats too", olderSessionIsFenced},
	{"a session nobody registered is refused", unknownSessionIsRefused},
	{"a newer epoch than the registered is refused", futureEpochIsRefused},
	{"batches without a producer are stored as often as they come", noProducerNeverRepeats},
	{"a lost gap is not closed by another partition's batch", gapsAreByPartition},
}

func sequenceAt(n int32) domain.Sequence { return domain.Sequence(n) }

func atNowhere() commit.PartitionKey { return commit.PartitionKey{Topic: domain.TopicID{0xff}} }

func batchesFollow(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.outcomes(m.append(sequenced(s, key, 0, 3), sequenced(s, key, 3, 1)), accepted(0), accepted(3))
	m.outcomes(m.append(sequenced(s, key, 4, 2)), accepted(4))
	m.bounds(key, 0, 6)
}

func repeatGetsFirstOffset(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.append(plain(key, 7))
	m.outcomes(m.append(sequenced(s, key, 0, 3)), accepted(7))
	m.append(plain(key, 7))
	for range 3 {
		m.outcomes(m.append(sequenced(s, key, 0, 3)), duplicate(7))
	}
	m.bounds(key, 0, 17)
}

func repeatInOneSegment(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	b := sequenced(s, key, 0, 3)
	m.outcomes(m.append(b, b, sequenced(s, key, 3, 1), b), accepted(0), duplicate(0), accepted(3), duplicate(0))
	m.bounds(key, 0, 4)
	m.extents(key, run{0, 2}, run{3, 3})
}

func repeatWithOtherBytes(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	b := sequenced(s, key, 0, 3)
	m.outcomes(m.append(b), accepted(0))
	b.Length, b.MaxTimestamp = 5*batchLength, 99_999
	m.outcomes(m.append(b), duplicate(0))
	m.bytes(key, batchLength)
	m.extentAt(key, 99_999)
}

func windowIsFive(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	for i := range int32(8) {
		m.outcomes(m.append(sequenced(s, key, sequenceAt(2*i), 2)), accepted(domain.Offset(2*i)))
		for back := range min(i+1, sequence.Window) {
			first := 2 * (i - back)
			m.outcomes(m.append(sequenced(s, key, sequenceAt(first), 2)), duplicate(domain.Offset(first)))
		}
	}
	m.bounds(key, 0, 16)
}

func olderIsForgotten(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	for i := range int32(6) {
		m.append(sequenced(s, key, sequenceAt(2*i), 2))
	}
	forgotten := refused(commit.DuplicateForgotten)
	m.outcomes(m.append(sequenced(s, key, 0, 2)), forgotten)
	m.outcomes(m.append(sequenced(s, key, 2, 2)), duplicate(2))
	m.outcomes(m.append(sequenced(s, key, 2, 1)), forgotten)
	m.bounds(key, 0, 12)
}

func gapIsRefused(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.outcomes(m.append(sequenced(s, key, 0, 2)), accepted(0))
	m.outcomes(m.append(sequenced(s, key, 3, 2)), refused(commit.OutOfOrder))
	m.outcomes(m.append(sequenced(s, key, 2, 1)), accepted(2))
	m.outcomes(m.append(sequenced(s, key, 3, 2)), accepted(3))
}

func firstIsZero(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	for _, first := range []domain.Sequence{1, 5, math.MaxInt32} {
		m.outcomes(m.append(sequenced(s, key, first, 1)), refused(commit.OutOfOrder))
	}
	m.outcomes(m.append(sequenced(s, key, 0, 1)), accepted(0))
}

func overlapIsRefused(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.append(sequenced(s, key, 0, 4))
	no := refused(commit.OutOfOrder)
	m.outcomes(m.append(sequenced(s, key, 0, 5), sequenced(s, key, 3, 2), sequenced(s, key, 2, 30)), no, no, no)
	m.bounds(key, 0, 4)
}

func partitionsHaveTheirOwn(m *metadataUnderTest) {
	a, b := m.topic("a", 2), m.topic("b", 1)
	s := m.session("")
	keys := []commit.PartitionKey{at(a, 0), at(a, 1), at(b, 0)}
	for _, key := range keys {
		m.outcomes(m.append(sequenced(s, key, 0, 2)), accepted(0))
	}
	for _, key := range keys {
		m.outcomes(m.append(sequenced(s, key, 2, 1), sequenced(s, key, 0, 2)), accepted(2), duplicate(0))
	}
}

func producersHaveTheirOwn(m *metadataUnderTest) {
	key := m.partition("orders")
	a, b := m.session(""), m.session("")
	m.outcomes(m.append(sequenced(a, key, 0, 2), sequenced(b, key, 0, 2)), accepted(0), accepted(2))
	m.outcomes(m.append(sequenced(b, key, 0, 2), sequenced(a, key, 0, 2)), duplicate(2), duplicate(0))
	m.outcomes(m.append(sequenced(b, key, 2, 2), sequenced(a, key, 2, 2)), accepted(4), accepted(6))
}

// toWrap brings the session's next sequence on key to 2^31-left, with two
// batches.
func (m *metadataUnderTest) toWrap(s ports.ProducerSession, key commit.PartitionKey, left int32) (next domain.Offset) {
	m.Helper()
	const half = 1 << 30
	rest := half - left
	m.outcomes(m.append(sequenced(s, key, 0, half), sequenced(s, key, half, rest)), accepted(0), accepted(half))
	return half + domain.Offset(rest)
}

func sequencesWrap(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	next := m.toWrap(s, key, 1)
	m.outcomes(m.append(sequenced(s, key, 0, 1)), refused(commit.OutOfOrder))
	m.outcomes(m.append(sequenced(s, key, math.MaxInt32, 1)), accepted(next))
	m.outcomes(m.append(sequenced(s, key, 1, 1)), refused(commit.OutOfOrder))
	m.outcomes(m.append(sequenced(s, key, 0, 1)), accepted(next+1))
	m.outcomes(m.append(sequenced(s, key, math.MaxInt32, 1)), duplicate(next))
	m.outcomes(m.append(sequenced(s, key, 1, 2)), accepted(next+2))
	m.outcomes(m.append(sequenced(s, key, 0, 1)), duplicate(next+1))
}

func batchAcrossWrap(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	next := m.toWrap(s, key, 2)
	across := sequenced(s, key, math.MaxInt32-1, 5)
	m.outcomes(m.append(across), accepted(next))
	m.outcomes(m.append(across), duplicate(next))
	m.outcomes(m.append(sequenced(s, key, 2, 1)), refused(commit.DuplicateForgotten))
	m.outcomes(m.append(sequenced(s, key, 3, 1)), accepted(next+5))
	m.outcomes(m.append(across), duplicate(next))
}

func newerSessionBeginsAtZero(m *metadataUnderTest) {
	key := m.partition("orders")
	old := m.session("billing")
	m.append(sequenced(old, key, 0, 3))
	s := m.session("billing")
	m.outcomes(m.append(sequenced(s, key, 3, 1)), refused(commit.OutOfOrder))
	m.outcomes(m.append(sequenced(s, key, 0, 3)), accepted(3))
	m.outcomes(m.append(sequenced(s, key, 0, 3)), duplicate(3))
}

func olderSessionIsFenced(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	old := m.session("billing")
	m.append(sequenced(old, at(t, 0), 0, 3))
	s := m.session("billing")
	fenced := refused(commit.Fenced)
	// At once, before the new session has written anything; and on a partition
	// that neither has written.
	m.outcomes(m.append(sequenced(old, at(t, 0), 3, 1), sequenced(old, at(t, 0), 0, 3), sequenced(old, at(t, 1), 0, 1)), fenced, fenced, fenced)
	m.append(sequenced(s, at(t, 0), 0, 1))
	m.outcomes(m.append(sequenced(old, at(t, 0), 3, 1)), fenced)
	m.bounds(at(t, 0), 0, 4)
	m.bounds(at(t, 1), 0, 0)
}

func unknownSessionIsRefused(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	for _, id := range []domain.ProducerID{s.ID + 1000, 0x7fffffffffffffff, -2} {
		stranger := ports.ProducerSession{ID: id}
		m.outcomes(m.append(sequenced(stranger, key, 0, 1)), refused(commit.UnknownProducer))
	}
	m.bounds(key, 0, 0)
}

func futureEpochIsRefused(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("billing")
	future := s
	future.Epoch++
	m.outcomes(m.append(sequenced(future, key, 0, 1)), refused(commit.UnknownProducer))
	m.outcomes(m.append(sequenced(s, key, 0, 1)), accepted(0))
}

func noProducerNeverRepeats(m *metadataUnderTest) {
	key := m.partition("orders")
	b := plain(key, 2)
	m.outcomes(m.append(b, b), accepted(0), accepted(2))
	m.outcomes(m.append(b), accepted(4))
}

func gapsAreByPartition(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	s := m.session("")
	m.append(sequenced(s, at(t, 0), 0, 2))
	m.outcomes(m.append(sequenced(s, at(t, 1), 2, 2), sequenced(s, at(t, 0), 4, 1)), refused(commit.OutOfOrder), refused(commit.OutOfOrder))
}
