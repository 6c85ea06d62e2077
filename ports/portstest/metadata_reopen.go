package portstest

import (
	"math"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// reopenCases hold for stores that outlive their process.
var reopenCases = []metadataCase{
	{"topics, records and the cluster id are there again", reopenKeepsAll},
	{"a committed segment gets its first outcomes", reopenKeepsOutcomes},
	{"a reserved segment can be committed", reopenKeepsReserved},
	{"producers are remembered with their batches", reopenKeepsProducers},
	{"names go on with the next epoch", reopenKeepsEpochs},
	{"abandoned batches stay abandoned", reopenKeepsAbandoned},
	{"trimmed and deleted stays so", reopenKeepsDeletions},
	{"ids are not used again", reopenKeepsIDs},
}

// reopen closes the store and opens what it holds.
func (m *metadataUnderTest) reopen() {
	m.Helper()
	m.ok(m.Close())
	m.MetadataStore = m.suite.reopen(m.T, m.MetadataStore)
}

func reopenKeepsAll(m *metadataUnderTest) {
	id := m.ClusterID()
	key := m.threeExtents()
	before := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	_, err := m.SetRetention(m.Context(), key.Topic, domain.Retention{Bytes: math.MaxInt64, Age: math.MaxInt64})
	m.ok(err)
	t, err := m.WidenTopic(m.Context(), key.Topic, 3)
	m.ok(err)
	for range 2 {
		m.reopen()
		if m.ClusterID() != id {
			m.Fatal("the cluster id has changed")
		}
		found, err := m.Topic(m.Context(), "orders")
		m.ok(err)
		m.sameTopic(found, t)
		for i, e := range m.extents(key, run{0, 9}, run{10, 19}, run{20, 29}) {
			if e != before[i] {
				m.Fatalf("extent was %+v and is %+v", before[i], e)
			}
		}
		m.bytes(key, 600)
	}
}

func reopenKeepsOutcomes(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	seg := m.segment(sequenced(s, key, 0, 2), sequenced(s, key, 0, 2), sequenced(s, key, 9, 1))
	dead := m.segment(sequenced(s, key, 0, 2))
	want := []commit.Outcome{accepted(0), duplicate(0), refused(commit.OutOfOrder)}
	m.outcomes(m.commit(seg), want...)
	m.outcomes(m.commit(dead), duplicate(0))
	m.reopen()
	m.outcomes(m.commit(seg), want...)
	m.outcomes(m.commit(dead), duplicate(0))
	m.outcomes(m.append(plain(key, 1)), accepted(2))
}

func reopenKeepsReserved(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 2))
	m.reopen()
	m.outcomes(m.commit(seg), accepted(0))
}

func reopenKeepsProducers(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	for i := range int32(7) {
		m.append(sequenced(s, key, sequenceAt(i), 1))
	}
	m.reopen()
	for i := range int32(5) {
		m.outcomes(m.append(sequenced(s, key, sequenceAt(2+i), 1)), duplicate(domain.Offset(2+i)))
	}
	m.outcomes(m.append(sequenced(s, key, 1, 1), sequenced(s, key, 8, 1), sequenced(s, key, 7, 1)),
		refused(commit.DuplicateForgotten), refused(commit.OutOfOrder), accepted(7))
}

func reopenKeepsEpochs(m *metadataUnderTest) {
	key := m.partition("orders")
	old := m.session("billing")
	m.append(sequenced(old, key, 0, 1))
	m.reopen()
	s := m.session("billing")
	if s.ID != old.ID || s.Epoch != old.Epoch+1 {
		m.Fatalf("session after %+v is %+v", old, s)
	}
	m.reopen()
	m.outcomes(m.append(sequenced(old, key, 1, 1), sequenced(s, key, 0, 1)), refused(commit.Fenced), accepted(1))
}

func reopenKeepsAbandoned(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.append(sequenced(s, key, 0, 1))
	m.abandon(sequenced(s, key, 1, 3))
	m.reopen()
	m.outcomes([]commit.Outcome{m.abandon(sequenced(s, key, 1, 3))}, refused(commit.Accepted))
	m.outcomes(m.append(sequenced(s, key, 1, 3), sequenced(s, key, 4, 1)), refused(commit.DuplicateForgotten), accepted(1))
}

func reopenKeepsDeletions(m *metadataUnderTest) {
	key := m.threeExtents()
	gone := m.partition("gone")
	m.append(plain(gone, 1))
	m.delete(gone.Topic)
	m.trim(key, 15, 15)
	m.reopen()
	m.unknown(gone.Topic)
	m.bounds(key, 15, 30)
	m.extents(key, run{10, 19}, run{20, 29})
	m.outcomes(m.append(plain(gone, 1), plain(key, 1)), refused(commit.NoPartition), accepted(30))
}

func reopenKeepsIDs(m *metadataUnderTest) {
	producers := make(map[domain.ProducerID]bool)
	segments := make(map[domain.SegmentID]bool)
	topics := make(map[domain.TopicID]bool)
	const times = 3
	for range times {
		producers[m.session("").ID] = true
		segments[m.reserve()] = true
		key := m.partition("orders")
		topics[key.Topic] = true
		m.delete(key.Topic)
		m.reopen()
	}
	if len(producers) != times || len(segments) != times || len(topics) != times {
		m.Fatalf("%d opens gave %d producers, %d segments, %d topics", times, len(producers), len(segments), len(topics))
	}
}

// upkeepReopenCases are those of reopenCases about what upkeep leaves.
var upkeepReopenCases = []metadataCase{
	{"deleted topics wait for their purge, segments for their collection", reopenKeepsGarbage},
	{"a compaction is there again, and gets its first count", reopenKeepsReplaced},
}

func reopenKeepsGarbage(m *metadataUnderTest) {
	key := m.threeExtents()
	m.delete(key.Topic)
	m.purge(1, ports.Removed{Extents: 1, Bytes: 100, More: true})
	garbage, deleted, pending := m.spoilt(1), m.deleted(1), m.reserve()
	before, segments := m.everyExtent(10), m.everySegment(10)
	m.reopen()
	if got := m.everyExtent(10); !slices.Equal(got, before) || len(got) != 2 {
		m.Fatalf("extents were %+v and are %+v", before, got)
	}
	for i, r := range m.everySegment(10) {
		if was := segments[i]; r.ID != was.ID || r.State != was.State || r.Live != was.Live || !r.StateAt.Equal(was.StateAt) {
			m.Fatalf("segment was %+v and is %+v", was, r)
		}
	}
	m.state(garbage[0], ports.SegmentDeleting, 0)
	m.state(deleted[0], ports.SegmentDeleted, 0)
	m.state(pending, ports.SegmentPending, 0)
	m.purge(10, ports.Removed{Extents: 2, Bytes: 500})
}

func reopenKeepsReplaced(m *metadataUnderTest) {
	key := m.threeExtents()
	e := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	c := m.compaction(e[:1], e[1:])
	m.trim(key, 10, 10)
	m.replace(c, 1)
	m.reopen()
	m.extents(key, run{10, 29})
	m.replace(c, 1)
	m.refusedCommit(segmentOf(c.ID, plain(key, 1)))
	m.outcomes(m.append(plain(key, 1)), accepted(30))
}
