package portstest

import (
	"math"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var producerCases = []metadataCase{
	{"sessions without a name have ids of their own and epoch 0", unnamedSessionsDiffer},
	{"a name keeps its id and its epoch rises", namedEpochsRise},
	{"names have ids of their own", namesHaveTheirOwn},
	{"bad names are refused", badProducerNames},
	{"after epoch 32767 a name gets a new id, and the old one is refused", epochsRunOut},
}

var abandonCases = []metadataCase{
	{"an abandoned batch that is not stored never will be, and the next may follow", abandonedNeverStored},
	{"an abandoned batch that is stored keeps its offset", abandonedIsStored},
	{"abandoning again gives the same answer", abandonAgain},
	{"the first batch of a session may be abandoned", abandonFirst},
	{"a batch too far back is not settled", abandonForgotten},
	{"a batch after a gap is not settled", abandonAfterGap},
	{"an older session abandons nothing", abandonFenced},
	{"an unknown producer abandons nothing", abandonUnknown},
	{"nothing is abandoned on a partition that is not there", abandonNowhere},
	{"abandoned sequences wrap like others", abandonWraps},
	{"an abandoned batch changes no offset and no bytes", abandonChangesNoOffset},
}

var expiryCases = []metadataCase{
	{"a session lasts 24 hours after its last accepted batch", sessionLasts},
	{"a session that never sent lasts 24 hours", silentSessionLasts},
	{"refused batches and repeats do not prolong a session", refusedDoNotProlong},
	{"a name outlives its sessions: its epoch goes on rising", nameOutlivesSessions},
	{"an expired session abandons nothing", expiredAbandonsNothing},
	{"one session's end is not another's", othersLive},
}

func unnamedSessionsDiffer(m *metadataUnderTest) {
	seen := make(map[domain.ProducerID]bool)
	for range 20 {
		s := m.session("")
		if seen[s.ID] || s.ID < 0 || s.Epoch != 0 {
			m.Fatalf("session %+v: want a new id, 0 or above, and epoch 0", s)
		}
		seen[s.ID] = true
	}
}

func namedEpochsRise(m *metadataUnderTest) {
	first := m.session("billing")
	for i := range domain.Epoch(20) {
		if s := m.session("billing"); s.ID != first.ID || s.Epoch != first.Epoch+1+i {
			m.Fatalf("session after %+v and %d others is %+v", first, i, s)
		}
	}
}

func namesHaveTheirOwn(m *metadataUnderTest) {
	a, b, c, none := m.session("billing"), m.session("Billing"), m.session("billing2"), m.session("")
	ids := map[domain.ProducerID]bool{a.ID: true, b.ID: true, c.ID: true, none.ID: true}
	if len(ids) != 4 {
		m.Fatalf("sessions %v %v %v %v share ids", a, b, c, none)
	}
	if s := m.session("Billing"); s.ID != b.ID || s.Epoch != b.Epoch+1 {
		m.Fatalf("second session is %+v after %+v", s, b)
	}
}

func badProducerNames(m *metadataUnderTest) {
	for _, name := range []string{".", "..", "a/b", "../x", "%2e%2e", "a\x00", "a\n", "\xff", strings.Repeat("a", 250), " "} {
		_, err := m.RegisterProducer(m.Context(), name)
		m.is(err, domain.ErrInvalidName)
		m.definite(err)
	}
}

func epochsRunOut(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("billing")
	old := s
	if raise := m.suite.raiseEpoch; raise != nil {
		raise(m.T, m.MetadataStore, "billing", math.MaxInt16-3)
		old.Epoch = math.MaxInt16 - 3
	}
	for old.Epoch < math.MaxInt16 {
		s = m.session("billing")
		if s.ID != old.ID || s.Epoch != old.Epoch+1 {
			m.Fatalf("session after %+v is %+v", old, s)
		}
		old = s
	}
	m.outcomes(m.append(sequenced(old, key, 0, 2)), accepted(0))
	s = m.session("billing")
	if s.ID == old.ID || s.Epoch != 0 {
		m.Fatalf("session after %+v is %+v, want a new id and epoch 0", old, s)
	}
	m.outcomes(m.append(sequenced(old, key, 2, 1), sequenced(old, key, 0, 2)),
		refused(commit.UnknownProducer), refused(commit.UnknownProducer))
	m.outcomes(m.append(sequenced(s, key, 0, 1)), accepted(2))
	if next := m.session("billing"); next.ID != s.ID || next.Epoch != 1 {
		m.Fatalf("session after %+v is %+v", s, next)
	}
}

func abandonedNeverStored(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.append(sequenced(s, key, 0, 2))
	lost := sequenced(s, key, 2, 3)
	m.outcomes([]commit.Outcome{m.abandon(lost)}, commit.Outcome{Status: commit.Accepted, Base: -1})
	late := m.append(lost)[0]
	if late.Status == commit.Accepted || late.Status == commit.Duplicate {
		m.Fatalf("an abandoned batch was answered %v", late)
	}
	m.outcomes(m.append(sequenced(s, key, 5, 1)), accepted(2))
	late = m.append(lost)[0]
	if late.Status == commit.Accepted || late.Status == commit.Duplicate {
		m.Fatalf("an abandoned batch was answered %v", late)
	}
	m.bounds(key, 0, 3)
}

func abandonedIsStored(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.append(sequenced(s, key, 0, 2), sequenced(s, key, 2, 3))
	m.outcomes([]commit.Outcome{m.abandon(sequenced(s, key, 2, 3)), m.abandon(sequenced(s, key, 0, 2))}, duplicate(2), duplicate(0))
	m.outcomes(m.append(sequenced(s, key, 5, 1)), accepted(5))
}

func abandonAgain(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.append(sequenced(s, key, 0, 2))
	for range 3 {
		m.outcomes([]commit.Outcome{m.abandon(sequenced(s, key, 2, 3))}, refused(commit.Accepted))
		m.outcomes([]commit.Outcome{m.abandon(sequenced(s, key, 0, 2))}, duplicate(0))
	}
	m.outcomes(m.append(sequenced(s, key, 5, 1)), accepted(2))
}

func abandonFirst(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	for range 2 {
		m.outcomes([]commit.Outcome{m.abandon(sequenced(s, key, 0, 2))}, refused(commit.Accepted))
	}
	m.outcomes(m.append(sequenced(s, key, 0, 2), sequenced(s, key, 2, 1)), refused(commit.DuplicateForgotten), accepted(0))
}

func abandonForgotten(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	for i := range int32(7) {
		m.append(sequenced(s, key, sequenceAt(i), 1))
	}
	m.outcomes([]commit.Outcome{m.abandon(sequenced(s, key, 0, 1))}, refused(commit.DuplicateForgotten))
	m.outcomes(m.append(sequenced(s, key, 7, 1)), accepted(7))
}

func abandonAfterGap(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.outcomes([]commit.Outcome{m.abandon(sequenced(s, key, 3, 1))}, refused(commit.OutOfOrder))
	m.outcomes(m.append(sequenced(s, key, 0, 1)), accepted(0))
	m.outcomes([]commit.Outcome{m.abandon(sequenced(s, key, 3, 1))}, refused(commit.OutOfOrder))
	m.outcomes(m.append(sequenced(s, key, 1, 1)), accepted(1))
}

func abandonFenced(m *metadataUnderTest) {
	key := m.partition("orders")
	old := m.session("billing")
	m.append(sequenced(old, key, 0, 1))
	s := m.session("billing")
	m.outcomes([]commit.Outcome{m.abandon(sequenced(old, key, 1, 1))}, refused(commit.Fenced))
	m.outcomes(m.append(sequenced(s, key, 0, 1)), accepted(1))
}

func abandonUnknown(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	future := s
	future.Epoch++
	for _, stranger := range []ports.ProducerSession{{ID: s.ID + 1000}, future, {ID: commit.NoProducer}} {
		m.outcomes([]commit.Outcome{m.abandon(sequenced(stranger, key, 0, 1))}, refused(commit.UnknownProducer))
	}
	m.outcomes(m.append(sequenced(s, key, 0, 1)), accepted(0))
}

func abandonNowhere(m *metadataUnderTest) {
	t := m.topic("orders", 1)
	s := m.session("")
	for _, key := range []commit.PartitionKey{at(t, 1), at(t, -1), atNowhere()} {
		m.outcomes([]commit.Outcome{m.abandon(sequenced(s, key, 0, 1))}, refused(commit.NoPartition))
	}
	m.delete(t.ID)
	m.outcomes([]commit.Outcome{m.abandon(sequenced(s, at(t, 0), 0, 1))}, refused(commit.NoPartition))
}

func abandonWraps(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	next := m.toWrap(s, key, 2)
	across := sequenced(s, key, math.MaxInt32-1, 4)
	for range 2 {
		m.outcomes([]commit.Outcome{m.abandon(across)}, refused(commit.Accepted))
	}
	m.outcomes(m.append(across, sequenced(s, key, 2, 1)), refused(commit.DuplicateForgotten), accepted(next))
}

func abandonChangesNoOffset(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.append(sequenced(s, key, 0, 2))
	m.abandon(sequenced(s, key, 2, 30))
	m.bounds(key, 0, 2)
	m.bytes(key, batchLength)
	m.extents(key, run{0, 1})
}

func (m *metadataUnderTest) pass(d time.Duration) {
	m.Helper()
	m.suite.advance(m.T, m.MetadataStore, d)
}

const (
	almostADay = ports.ProducerExpiry - time.Minute
	twoMinutes = 2 * time.Minute
)

func sessionLasts(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	for i := range int32(3) {
		m.pass(almostADay)
		m.outcomes(m.append(sequenced(s, key, sequenceAt(i), 1)), accepted(domain.Offset(i)))
	}
	m.pass(almostADay)
	m.outcomes(m.append(sequenced(s, key, 1, 1)), duplicate(1))
	m.pass(twoMinutes)
	gone := refused(commit.UnknownProducer)
	m.outcomes(m.append(sequenced(s, key, 3, 1), sequenced(s, key, 2, 1), sequenced(s, key, 0, 1)), gone, gone, gone)
	m.session("")
	m.outcomes(m.append(sequenced(s, key, 3, 1)), gone)
	m.bounds(key, 0, 3)
}

func silentSessionLasts(m *metadataUnderTest) {
	key := m.partition("orders")
	early, late := m.session(""), m.session("")
	m.pass(almostADay)
	m.outcomes(m.append(sequenced(early, key, 0, 1)), accepted(0))
	m.pass(twoMinutes)
	m.outcomes(m.append(sequenced(early, key, 1, 1), sequenced(late, key, 0, 1)), accepted(1), refused(commit.UnknownProducer))
}

func refusedDoNotProlong(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.append(sequenced(s, key, 0, 1))
	m.pass(almostADay)
	m.outcomes(m.append(sequenced(s, key, 0, 1), sequenced(s, key, 5, 1)), duplicate(0), refused(commit.OutOfOrder))
	m.pass(twoMinutes)
	m.outcomes(m.append(sequenced(s, key, 1, 1)), refused(commit.UnknownProducer))
}

func nameOutlivesSessions(m *metadataUnderTest) {
	key := m.partition("orders")
	old := m.session("billing")
	m.append(sequenced(old, key, 0, 2))
	m.pass(10 * ports.ProducerExpiry)
	m.session("") // a chance to clean up
	m.outcomes(m.append(sequenced(old, key, 2, 1)), refused(commit.UnknownProducer))
	s := m.session("billing")
	if s.ID != old.ID || s.Epoch != old.Epoch+1 {
		m.Fatalf("session after the expired %+v is %+v", old, s)
	}
	m.outcomes(m.append(sequenced(old, key, 2, 1), sequenced(s, key, 0, 1)), refused(commit.Fenced), accepted(2))
	m.pass(10 * ports.ProducerExpiry)
	m.session("") // a chance to clean up
	// Both have expired, and still the older is fenced: told that it merely
	// expired, it would register the name and fence its successor.
	m.outcomes(m.append(sequenced(old, key, 2, 1), sequenced(s, key, 1, 1)), refused(commit.Fenced), refused(commit.UnknownProducer))
}

func expiredAbandonsNothing(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	m.append(sequenced(s, key, 0, 2))
	m.pass(almostADay + twoMinutes)
	m.outcomes([]commit.Outcome{m.abandon(sequenced(s, key, 2, 1)), m.abandon(sequenced(s, key, 0, 2))},
		refused(commit.UnknownProducer), refused(commit.UnknownProducer))
}

func othersLive(m *metadataUnderTest) {
	key := m.partition("orders")
	quiet, busy := m.session("quiet"), m.session("busy")
	m.append(sequenced(quiet, key, 0, 1), sequenced(busy, key, 0, 1))
	m.pass(almostADay)
	m.outcomes(m.append(sequenced(busy, key, 1, 1)), accepted(2))
	m.pass(twoMinutes)
	m.session("")
	m.outcomes(m.append(sequenced(quiet, key, 1, 1), sequenced(busy, key, 2, 1), sequenced(busy, key, 0, 1)),
		refused(commit.UnknownProducer), accepted(3), duplicate(1))
}
