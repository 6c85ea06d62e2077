package portstest

import (
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// sharedCases hold for stores that several processes use at the same time.
var sharedCases = []metadataCase{
	{"each sees what the other has changed, at once", sharedChangesShow},
	{"a segment reserved through one is committed through the other", sharedReserve},
	{"a replay through the other gets the first outcomes", sharedReplay},
	{"a batch repeated through the other is a duplicate", sharedRepeat},
	{"a session opened through one fences through the other", sharedFence},
	{"a topic deleted through one is refused by the other", sharedDelete},
	{"racing commits through both get dense offsets", sharedRace},
	{"racing commits of one segment through both get one answer", sharedReplayRace},
	{"racing sessions of one name through both get epochs of their own", sharedSessions},
	{"a commit through one wakes the subscribers of the other in time", sharedWake},
	{"one closed does not stop the other", sharedClose},
}

// other is a second store value on the same data.
func (m *metadataUnderTest) other() *metadataUnderTest {
	m.Helper()
	return &metadataUnderTest{T: m.T, MetadataStore: m.suite.share(m.T, m.MetadataStore), suite: m.suite}
}

func sharedChangesShow(m *metadataUnderTest) {
	o := m.other()
	if o.ClusterID() != m.ClusterID() {
		m.Fatal("one cluster has two ids")
	}
	for i := range domain.Offset(5) {
		a, b := m, o
		if i%2 == 1 {
			a, b = o, m
		}
		t := a.topic("orders", 1)
		found, err := b.Topic(b.Context(), "orders")
		b.ok(err)
		b.sameTopic(found, t)
		a.outcomes(a.append(plain(at(t, 0), 2)), accepted(0))
		b.extents(at(t, 0), run{0, 1})
		b.outcomes(b.append(plain(at(t, 0), 1)), accepted(2))
		a.extents(at(t, 0), run{0, 1}, run{2, 2})
		a.trim(at(t, 0), 2, 2)
		b.bounds(at(t, 0), 2, 3)
		b.delete(t.ID)
		a.unknown(t.ID)
	}
}

func sharedReserve(m *metadataUnderTest) {
	o := m.other()
	key := m.partition("orders")
	o.outcomes(o.commit(m.segment(plain(key, 2))), accepted(0))
	m.outcomes(m.commit(o.segment(plain(key, 2))), accepted(2))
}

func sharedReplay(m *metadataUnderTest) {
	o := m.other()
	key := m.partition("orders")
	s := m.session("")
	seg := m.segment(sequenced(s, key, 0, 2), plain(key, 1))
	for _, store := range []*metadataUnderTest{m, o, m, o} {
		store.outcomes(store.commit(seg), accepted(0), accepted(2))
	}
	m.bounds(key, 0, 3)
}

func sharedRepeat(m *metadataUnderTest) {
	o := m.other()
	key := m.partition("orders")
	s := m.session("")
	for i := range int32(4) {
		a, b := m, o
		if i%2 == 1 {
			a, b = o, m
		}
		batch := sequenced(s, key, sequenceAt(i), 1)
		a.outcomes(a.append(batch), accepted(domain.Offset(i)))
		b.outcomes(b.append(batch), duplicate(domain.Offset(i)))
		b.outcomes([]commit.Outcome{b.abandon(batch)}, duplicate(domain.Offset(i)))
	}
}

func sharedFence(m *metadataUnderTest) {
	o := m.other()
	key := m.partition("orders")
	old := m.session("billing")
	m.outcomes(m.append(sequenced(old, key, 0, 1)), accepted(0))
	s := o.session("billing")
	if s.ID != old.ID || s.Epoch != old.Epoch+1 {
		m.Fatalf("session after %+v is %+v", old, s)
	}
	m.outcomes(m.append(sequenced(old, key, 1, 1), sequenced(s, key, 0, 1)), refused(commit.Fenced), accepted(1))
}

func sharedDelete(m *metadataUnderTest) {
	o := m.other()
	key := m.partition("orders")
	m.outcomes(m.append(plain(key, 1)), accepted(0))
	o.delete(key.Topic)
	again := o.partition("orders")
	m.outcomes(m.append(plain(key, 1), plain(again, 1)), refused(commit.NoPartition), accepted(0))
}

// sides are m and another store on the same data, taken in turn by racers.
func (m *metadataUnderTest) sides() func(i int) *metadataUnderTest {
	both := []*metadataUnderTest{m, m.other()}
	return func(i int) *metadataUnderTest { return both[i%2] }
}

func sharedRace(m *metadataUnderTest) {
	side := m.sides()
	key := m.partition("orders")
	const times = 5
	var sum atomic.Int64
	race(func(i int) {
		for range times {
			for _, o := range side(i).try(plain(key, 1)) {
				sum.Add(int64(o.Base))
			}
		}
	})
	const n = times * racers
	m.bounds(key, 0, n)
	if want := int64(n * (n - 1) / 2); sum.Load() != want {
		m.Fatalf("the offsets given out add up to %d, want %d", sum.Load(), want)
	}
	want := make([]run, n)
	for i := range want {
		want[i] = run{domain.Offset(i), domain.Offset(i)}
	}
	m.extents(key, want...)
}

func sharedReplayRace(m *metadataUnderTest) {
	side := m.sides()
	key := m.partition("orders")
	seg := m.segment(plain(key, 3))
	var answers [racers][]commit.Outcome
	race(func(i int) { answers[i] = side(i).tryCommit(seg) })
	for _, a := range answers {
		m.outcomes(a, accepted(0))
	}
	m.bounds(key, 0, 3)
}

func sharedSessions(m *metadataUnderTest) {
	side := m.sides()
	var epochs [racers]atomic.Int64
	race(func(i int) {
		s, err := again(func() (ports.ProducerSession, error) {
			return side(i).RegisterProducer(m.Context(), "billing")
		})
		if err != nil || s.Epoch < 0 || int(s.Epoch) >= racers {
			m.Errorf("session is %+v: %v", s, err)
			return
		}
		epochs[s.Epoch].Add(1)
	})
	for epoch := range epochs {
		if n := epochs[epoch].Load(); n != 1 {
			m.Errorf("epoch %d was given out %d times", epoch, n)
		}
	}
}

// sharedWake allows far more than the 50 ms of the contract for a busy machine,
// and takes the best of several commits for the bound itself.
func sharedWake(m *metadataUnderTest) {
	o := m.other()
	key := m.partition("orders")
	w := newWakeUps()
	defer o.Subscribe(w.wake)()
	best := time.Hour
	for n := range domain.Offset(10) {
		m.append(plain(key, 1))
		began := time.Now()
		m.woken(w)
		for o.plan(key, 0, 0).HighWatermark != n+1 {
			m.woken(w)
		}
		best = min(best, time.Since(began))
	}
	if best > 50*time.Millisecond {
		m.Errorf("the quickest of ten wake-ups took %s, want at most 50ms", best)
	}
}

func sharedClose(m *metadataUnderTest) {
	o := m.other()
	key := m.partition("orders")
	o.append(plain(key, 1))
	m.ok(o.Close())
	m.outcomes(m.append(plain(key, 1)), accepted(1))
}
