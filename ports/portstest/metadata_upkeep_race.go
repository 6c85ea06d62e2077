package portstest

import (
	"math/rand/v2"
	"sync/atomic"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// upkeepRaceCases run with one store, and where stores can be shared with two.
var upkeepRaceCases = []metadataCase{
	{"compactions, trims and commits at the same time lose and double nothing", func(m *metadataUnderTest) { racingReplaces(m, m.alone()) }},
	{"racing compactions of the same extents take them once", func(m *metadataUnderTest) { racingSameReplace(m, m.alone()) }},
	{"one compaction called at the same time gets one answer", func(m *metadataUnderTest) { racingReplayedReplace(m, m.alone()) }},
	{"a reservation is committed or expires, never both", func(m *metadataUnderTest) { racingExpiry(m, m.alone()) }},
	{"racing purges take each extent once", func(m *metadataUnderTest) { racingPurges(m, m.alone()) }},
}

var upkeepSharedCases = []metadataCase{
	{"compactions, trims and commits through both lose and double nothing", func(m *metadataUnderTest) { racingReplaces(m, m.sides()) }},
	{"racing compactions through both take the same extents once", func(m *metadataUnderTest) { racingSameReplace(m, m.sides()) }},
	{"one compaction through both gets one answer", func(m *metadataUnderTest) { racingReplayedReplace(m, m.sides()) }},
	{"a reservation of one that the other expires is committed or expires, never both", func(m *metadataUnderTest) { racingExpiry(m, m.sides()) }},
	{"racing purges through both take each extent once", func(m *metadataUnderTest) { racingPurges(m, m.sides()) }},
}

// alone gives m to every racer.
func (m *metadataUnderTest) alone() func(int) *metadataUnderTest {
	return func(int) *metadataUnderTest { return m }
}

// racingReplaces has, on two partitions, three racers that append, three that
// compact what they find, one that trims and one that reads.
func racingReplaces(m *metadataUnderTest, side func(int) *metadataUnderTest) {
	const rounds = 25
	t := m.topic("orders", 2)
	m.append(plain(at(t, 0), 1), plain(at(t, 1), 1))
	var records [2]atomic.Int64
	var held atomic.Int64
	race(func(i int) {
		s := side(i)
		random := rand.New(rand.NewPCG(7, uint64(i)))
		for n := range rounds {
			p := domain.PartitionID(random.IntN(2))
			switch {
			case i < 3:
				for _, o := range s.try(plain(at(t, p), int32(n%3+1)), plain(at(t, 1-p), 1)) {
					if o.Status != commit.Accepted {
						s.Errorf("batch was answered %v", o)
					}
				}
				records[p].Add(int64(n%3 + 1))
				records[1-p].Add(1)
			case i < 6:
				held.Add(int64(s.tryCompact(random, at(t, 0), at(t, 1))))
			case i == 6:
				s.tryTrim(at(t, p), random)
			default:
				s.gapless(at(t, p))
			}
		}
	})
	for p := range domain.PartitionID(2) {
		if high := m.plan(at(t, p), 0, 0).HighWatermark; int64(high) != records[p].Load()+1 {
			m.Fatalf("the high watermark of partition %d is %d, %d records were appended", p, high, records[p].Load()+1)
		}
		m.gapless(at(t, p))
	}
	m.consistent()
	// What the race left is one compaction away from one extent a partition.
	for p := range domain.PartitionID(2) {
		if all := m.plan(at(t, p), m.plan(at(t, p), 0, 0).LogStart, 1<<40).Extents; len(all) > 0 {
			m.replace(m.compaction(all), 1)
		}
	}
	m.Logf("%d copies held", held.Load())
}

// planned returns the partition's extents, from any goroutine.
func (m *metadataUnderTest) planned(key commit.PartitionKey) (ports.Plan, bool) {
	var from domain.Offset
	for range 100 {
		plans, err := again(func() ([]ports.Plan, error) {
			return m.Plan(m.Context(), []ports.PlanRequest{{PartitionKey: key, From: from, MaxBytes: 1 << 40}})
		})
		if err != nil || plans[0].Err != nil {
			m.Errorf("plan: %v, %v", err, plans)
			return ports.Plan{}, false
		}
		if p := plans[0]; from >= p.LogStart {
			return p, true
		}
		from = plans[0].LogStart
	}
	m.Error("the log start never stands still")
	return ports.Plan{}, false
}

// gapless demands that a read from the log start finds every offset once.
func (m *metadataUnderTest) gapless(key commit.PartitionKey) {
	p, ok := m.planned(key)
	if !ok || len(p.Extents) == 0 {
		return
	}
	next := p.Extents[0].Base
	for _, e := range p.Extents {
		if e.Base != next {
			m.Errorf("plan %v has a gap", runs(p.Extents))
		}
		next = e.Last + 1
	}
	if next != p.HighWatermark || p.Extents[0].Base > p.LogStart {
		m.Errorf("plan %v does not reach from %d to %d", runs(p.Extents), p.LogStart, p.HighWatermark)
	}
}

// tryCompact compacts a random run of extents of each of the partitions, from
// any goroutine, and returns how many copies held.
func (m *metadataUnderTest) tryCompact(random *rand.Rand, keys ...commit.PartitionKey) int {
	var groups [][]ports.ExtentRef
	for _, key := range keys {
		p, ok := m.planned(key)
		if !ok || len(p.Extents) == 0 {
			continue
		}
		first := random.IntN(len(p.Extents))
		groups = append(groups, p.Extents[first:first+1+random.IntN(len(p.Extents)-first)])
	}
	if len(groups) == 0 {
		return 0
	}
	refs, err := again(func() ([]ports.SegmentRef, error) { return m.Reserve(m.Context(), 1) })
	if err != nil {
		m.Errorf("reserve: %v", err)
		return 0
	}
	return m.tryReplace(compactionInto(refs[0].ID, groups...))
}

func (m *metadataUnderTest) tryReplace(c commit.Compaction) int {
	held, err := again(func() (int, error) { return m.Replace(m.Context(), c) })
	if err != nil || held < 0 || held > len(c.Copies) {
		m.Errorf("%d of %d copies held: %v", held, len(c.Copies), err)
	}
	return held
}

// tryTrim raises the log start by a few offsets, from any goroutine.
func (m *metadataUnderTest) tryTrim(key commit.PartitionKey, random *rand.Rand) {
	p, ok := m.planned(key)
	if !ok {
		return
	}
	to := min(p.LogStart+domain.Offset(random.IntN(4)), p.HighWatermark)
	if _, err := again(func() (domain.Offset, error) { return m.Trim(m.Context(), key, to) }); err != nil {
		m.Errorf("trim to %d: %v", to, err)
	}
}

func racingSameReplace(m *metadataUnderTest, side func(int) *metadataUnderTest) {
	key := m.threeExtents()
	e := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	var all [racers]commit.Compaction
	for i := range all {
		all[i] = m.compaction(e)
	}
	var held [racers]int
	race(func(i int) { held[i] = side(i).tryReplace(all[i]) })
	sum := 0
	for i, n := range held {
		sum += n
		want := ports.SegmentDeleting
		if n == 1 {
			want = ports.SegmentCommitted
		}
		m.state(all[i].ID, want, n)
	}
	if sum != 1 {
		m.Fatalf("%d compactions hold the same extents", sum)
	}
	m.extents(key, run{0, 29})
}

func racingReplayedReplace(m *metadataUnderTest, side func(int) *metadataUnderTest) {
	key := m.threeExtents()
	e := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	c := m.compaction(e[:1], e[1:])
	m.trim(key, 10, 10)
	race(func(i int) {
		if held := side(i).tryReplace(c); held != 1 {
			m.Errorf("%d copies held, want 1", held)
		}
	})
	m.extents(key, run{10, 29})
}

func racingExpiry(m *metadataUnderTest, side func(int) *metadataUnderTest) {
	key := m.partition("orders")
	var segments [4 * racers]commit.Segment
	for i := range segments {
		segments[i] = m.segment(plain(key, 1))
	}
	var expired, committed, refusals atomic.Int64
	race(func(i int) {
		s := side(i)
		if i%4 == 3 {
			n, err := again(func() (int, error) { return s.ExpireReservations(s.Context(), 0, racers) })
			if err != nil {
				s.Errorf("expire: %v", err)
			}
			expired.Add(int64(n))
			return
		}
		for n := i; n < len(segments); n += racers {
			results, err := again(func() ([]ports.CommitResult, error) {
				return s.Commit(s.Context(), []commit.Segment{segments[n]})
			})
			switch {
			case err != nil:
				s.Errorf("commit: %v", err)
			case results[0].Err != nil:
				refusals.Add(1)
			default:
				committed.Add(1)
			}
		}
	})
	m.bounds(key, 0, domain.Offset(committed.Load()))
	if refusals.Load() > expired.Load() {
		m.Fatalf("%d commits were refused, %d reservations expired", refusals.Load(), expired.Load())
	}
}

func racingPurges(m *metadataUnderTest, side func(int) *metadataUnderTest) {
	t := m.topic("orders", 3)
	for range 20 {
		m.append(plain(at(t, 0), 1), plain(at(t, 1), 1), plain(at(t, 2), 1))
	}
	m.delete(t.ID)
	var extents, bytes atomic.Int64
	race(func(i int) {
		for {
			r, err := again(func() (ports.Removed, error) { return side(i).PurgeTopics(m.Context(), 4) })
			if err != nil {
				m.Errorf("purge: %v", err)
			}
			extents.Add(int64(r.Extents))
			bytes.Add(r.Bytes)
			if !r.More {
				return
			}
		}
	})
	if extents.Load() != 60 || bytes.Load() != 60*batchLength {
		m.Fatalf("%d extents of %d bytes were purged", extents.Load(), bytes.Load())
	}
	m.purge(10, ports.Removed{})
}
