package portstest

import (
	"github.com/streamhouse/streamhouse/domain/commit"
)

var replayCases = []metadataCase{
	{"a segment committed again gets its first outcomes", replayGivesFirstOutcomes},
	{"also after later commits, many of them", replayAfterLaterCommits},
	{"also after its topic was deleted", replayAfterDelete},
	{"also after its topic was deleted and created again", replayAfterRecreate},
	{"also after its records were trimmed", replayAfterTrim},
	{"also after its producer was fenced", replayAfterFence},
	{"also after the partition it lacked was added", replayAfterWiden},
	{"also if nothing in it was live", replayOfNothingLive},
	{"a segment twice in one call is judged once", replayInOneCall},
	{"a call of old and new segments answers each", replayBesideNew},
	{"outcomes given out are the caller's", outcomesAreTheCallers},
	{"a replay adds nothing", replayAddsNothing},
}

func replayGivesFirstOutcomes(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	seg := m.segment(
		sequenced(s, key, 0, 2), sequenced(s, key, 0, 2), sequenced(s, key, 9, 1), plain(key, 1), plain(atNowhere(), 1),
	)
	want := []commit.Outcome{accepted(0), duplicate(0), refused(commit.OutOfOrder), accepted(2), refused(commit.NoPartition)}
	for range 3 {
		m.outcomes(m.commit(seg), want...)
	}
	m.bounds(key, 0, 3)
}

func replayAfterLaterCommits(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	seg := m.segment(sequenced(s, key, 0, 1), plain(key, 1))
	m.outcomes(m.commit(seg), accepted(0), accepted(1))
	// More than the window of a producer remembers.
	for i := range int32(12) {
		m.append(sequenced(s, key, sequenceAt(1+i), 1), plain(key, 1))
	}
	m.outcomes(m.commit(seg), accepted(0), accepted(1))
	m.bounds(key, 0, 26)
}

func replayAfterDelete(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 2))
	m.outcomes(m.commit(seg), accepted(0))
	m.delete(key.Topic)
	m.outcomes(m.commit(seg), accepted(0))
}

func replayAfterRecreate(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 2))
	m.outcomes(m.commit(seg), accepted(0))
	m.delete(key.Topic)
	again := m.partition("orders")
	m.outcomes(m.commit(seg), accepted(0))
	m.bounds(again, 0, 0)
}

func replayAfterTrim(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 2))
	m.outcomes(m.commit(seg), accepted(0))
	_, err := m.Trim(m.Context(), key, 2)
	m.ok(err)
	m.outcomes(m.commit(seg), accepted(0))
	m.extents(key)
	m.bounds(key, 2, 2)
}

func replayAfterFence(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(sequenced(m.session("billing"), key, 0, 2))
	m.outcomes(m.commit(seg), accepted(0))
	m.session("billing")
	m.outcomes(m.commit(seg), accepted(0))
}

func replayAfterWiden(m *metadataUnderTest) {
	t := m.topic("orders", 1)
	seg := m.segment(plain(at(t, 1), 1))
	m.outcomes(m.commit(seg), refused(commit.NoPartition))
	_, err := m.WidenTopic(m.Context(), t.ID, 2)
	m.ok(err)
	m.outcomes(m.commit(seg), refused(commit.NoPartition))
	m.bounds(at(t, 1), 0, 0)
}

// A lost answer to a commit of duplicates must not turn into "not stored": the
// records are in the log.
func replayOfNothingLive(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.outcomes(m.append(sequenced(s, key, 0, 2)), accepted(0))
	seg := m.segment(sequenced(s, key, 0, 2))
	m.outcomes(m.commit(seg), duplicate(0))
	m.outcomes(m.commit(seg), duplicate(0))
	m.outcomes(m.append(sequenced(s, key, 2, 1)), accepted(2))
	m.outcomes(m.commit(seg), duplicate(0))
}

func replayInOneCall(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 2))
	results, err := m.Commit(m.Context(), []commit.Segment{seg, m.segment(plain(key, 1)), seg})
	m.ok(err)
	m.outcomes(results[0].Outcomes, accepted(0))
	m.outcomes(results[1].Outcomes, accepted(2))
	m.outcomes(results[2].Outcomes, accepted(0))
	m.bounds(key, 0, 3)
}

func replayBesideNew(m *metadataUnderTest) {
	key := m.partition("orders")
	old := m.segment(plain(key, 2))
	m.commit(old)
	results, err := m.Commit(m.Context(), []commit.Segment{m.segment(plain(key, 1)), old, m.segment(plain(key, 1))})
	m.ok(err)
	m.outcomes(results[0].Outcomes, accepted(2))
	m.outcomes(results[1].Outcomes, accepted(0))
	m.outcomes(results[2].Outcomes, accepted(3))
}

func outcomesAreTheCallers(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 2))
	for range 3 {
		got := m.commit(seg)
		m.outcomes(got, accepted(0))
		got[0] = refused(commit.Fenced)
	}
}

func replayAddsNothing(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 2))
	m.commit(seg)
	before, err := m.DescribePartitions(m.Context(), key.Topic)
	m.ok(err)
	m.commit(seg)
	after, err := m.DescribePartitions(m.Context(), key.Topic)
	m.ok(err)
	if before[0] != after[0] {
		m.Fatalf("partition was %+v and is %+v", before[0], after[0])
	}
	m.extents(key, run{0, 1})
}
