package portstest

import (
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var purgeCases = []metadataCase{
	{"a deleted topic's extents stay until they are purged", deleteLeavesExtents},
	{"a step purges its limit, over partitions and topics, and counts the bytes", purgeByLimit},
	{"a purge of nothing does nothing", purgeNothing},
	{"a purge leaves every other topic, also one of the same name", purgeLeavesOthers},
	{"segments become garbage with their last extent", purgeFreesSegments},
	{"a deleted topic may be purged at any time, and its commits answered", purgeBetweenCommits},
}

var garbageCases = []metadataCase{
	{"reservations that were never committed become garbage", expireReserved},
	{"a commit of an expired reservation is refused for ever, and others are not", expiredCommitRefused},
	{"a committed segment never expires, whatever holds it", expireSparesCommitted},
	{"expiry takes its limit", expireByLimit},
	{"nothing expires within its grace", expireWithinGrace},
	{"garbage is listed by id, page by page, and stays as it is", garbagePages},
	{"garbage is not listed within its grace", garbageWithinGrace},
	{"only garbage is marked deleted", markOnlyGarbage},
	{"marking again changes nothing", markAgain},
	{"marking nothing is no error", markNothing},
	{"what is marked deleted still answers replays", markedAnswersReplays},
	{"what is forgotten is refused", forgottenIsRefused},
	{"only deleted segments are forgotten", forgetOnlyDeleted},
	{"forgetting takes its limit", forgetByLimit},
}

// garbageTimeCases need time to pass.
var garbageTimeCases = []metadataCase{
	{"a reservation expires after its grace, on the store's clock", expireAfterGrace},
	{"garbage is listed after its grace, which begins with the last live extent", garbageAfterGrace},
	{"deleted segments are forgotten at their age, which begins with the deletion", forgetAfterAge},
	{"an extent knows when it was committed", committedAtIsKept},
	{"a segment knows when it was reserved and when it came into its state", stateTimes},
}

func deleteLeavesExtents(m *metadataUnderTest) {
	key := m.threeExtents()
	all := m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
	m.delete(key.Topic)
	if got := m.everyExtent(10); !slices.Equal(got, all) {
		m.Fatalf("extents after the deletion are %+v, want %+v", got, all)
	}
	m.garbage(10)
	for _, e := range all {
		m.state(e.Segment, ports.SegmentCommitted, 1)
	}
	again := m.partition("orders")
	m.extents(again)
	m.purge(10, ports.Removed{Extents: 3, Bytes: 600})
	m.garbage(10, all[0].Segment, all[1].Segment, all[2].Segment)
	if got := m.everyExtent(10); len(got) != 0 {
		m.Fatalf("extents after the purge are %+v", got)
	}
}

func purgeByLimit(m *metadataUnderTest) {
	a, b := m.topic("a", 3), m.topic("b", 1)
	for range 4 {
		m.append(plain(at(a, 0), 1), plain(at(a, 2), 1), plain(at(b, 0), 1))
	}
	m.delete(a.ID)
	m.delete(b.ID)
	m.purge(5, ports.Removed{Extents: 5, Bytes: 500, More: true})
	m.consistent()
	m.purge(1, ports.Removed{Extents: 1, Bytes: 100, More: true})
	m.purge(6, ports.Removed{Extents: 6, Bytes: 600, More: true})
	m.purge(5, ports.Removed{})
	m.purge(5, ports.Removed{})
}

func purgeNothing(m *metadataUnderTest) {
	m.purge(10, ports.Removed{})
	key := m.threeExtents()
	m.purge(10, ports.Removed{})
	empty := m.partition("empty")
	m.delete(empty.Topic)
	m.purge(10, ports.Removed{})
	m.extents(key, run{0, 9}, run{10, 19}, run{20, 29})
}

func purgeLeavesOthers(m *metadataUnderTest) {
	before, old, after := m.partition("before"), m.partition("orders"), m.partition("after")
	m.append(plain(before, 1), plain(old, 2), plain(after, 3))
	m.delete(old.Topic)
	again := m.partition("orders")
	m.append(plain(again, 4), plain(before, 1))
	m.purge(10, ports.Removed{Extents: 1, Bytes: 100})
	m.extents(before, run{0, 0}, run{1, 1})
	m.extents(after, run{0, 2})
	m.extents(again, run{0, 3})
	m.unknown(old.Topic)
	m.outcomes(m.append(plain(old, 1), plain(again, 1)), refused(commit.NoPartition), accepted(4))
}

func purgeFreesSegments(m *metadataUnderTest) {
	a, b, keep := m.partition("a"), m.partition("b"), m.partition("keep")
	alone, both, shared := m.segment(plain(a, 1)), m.segment(plain(a, 1), plain(b, 1)), m.segment(plain(a, 1), plain(keep, 1))
	for _, seg := range []commit.Segment{alone, both, shared} {
		m.commit(seg)
	}
	m.delete(a.Topic)
	m.purge(2, ports.Removed{Extents: 2, Bytes: 200, More: true})
	m.state(alone.ID, ports.SegmentDeleting, 0)
	m.state(both.ID, ports.SegmentCommitted, 1)
	m.state(shared.ID, ports.SegmentCommitted, 2)
	m.delete(b.Topic)
	m.purge(10, ports.Removed{Extents: 2, Bytes: 200})
	m.garbage(10, alone.ID, both.ID)
	m.state(shared.ID, ports.SegmentCommitted, 1)
}

func purgeBetweenCommits(m *metadataUnderTest) {
	key, keep := m.partition("orders"), m.partition("keep")
	s := m.session("")
	seg := m.segment(sequenced(s, key, 0, 2), sequenced(s, keep, 0, 1))
	m.outcomes(m.commit(seg), accepted(0), accepted(0))
	m.append(sequenced(s, key, 2, 1))
	m.delete(key.Topic)
	for _, want := range []ports.Removed{{Extents: 1, Bytes: 100, More: true}, {Extents: 1, Bytes: 100, More: true}, {}, {}} {
		m.purge(1, want)
		m.outcomes(m.append(sequenced(s, key, 3, 1)), refused(commit.NoPartition))
		m.outcomes(m.commit(seg), accepted(0), accepted(0))
	}
	m.outcomes(m.append(sequenced(s, keep, 0, 1), sequenced(s, keep, 1, 1)), duplicate(0), accepted(1))
}

func (m *metadataUnderTest) expire(grace time.Duration, limit, want int) {
	m.Helper()
	got, err := m.ExpireReservations(m.Context(), grace, limit)
	m.ok(err)
	if got != want {
		m.Fatalf("%d reservations expired, want %d", got, want)
	}
}

func (m *metadataUnderTest) forget(age time.Duration, limit, want int) {
	m.Helper()
	got, err := m.ForgetDeleted(m.Context(), age, limit)
	m.ok(err)
	if got != want {
		m.Fatalf("%d segments were forgotten, want %d", got, want)
	}
}

func expireReserved(m *metadataUnderTest) {
	a, b := m.reserve(), m.reserve()
	m.state(a, ports.SegmentPending, 0)
	m.garbage(10)
	m.expire(0, 10, 2)
	m.garbage(10, a, b)
	m.state(a, ports.SegmentDeleting, 0)
	m.expire(0, 10, 0)
}

func expiredCommitRefused(m *metadataUnderTest) {
	key := m.partition("orders")
	late := m.segment(plain(key, 2))
	m.expire(0, 10, 1)
	for range 2 {
		m.refusedCommit(late)
	}
	m.bounds(key, 0, 0)
	m.outcomes(m.append(plain(key, 1)), accepted(0))
	m.ok(m.MarkDeleted(m.Context(), []domain.SegmentID{late.ID}))
	m.refusedCommit(late)
	m.forget(0, 10, 1)
	m.refusedCommit(late)
	m.bounds(key, 0, 1)
}

func expireSparesCommitted(m *metadataUnderTest) {
	key := m.partition("orders")
	live, dead := m.segment(plain(key, 2)), m.segment()
	m.commit(live)
	m.commit(dead)
	compacted := m.compaction(m.extents(key, run{0, 1}))
	m.replace(compacted, 1)
	m.append(plain(key, 1))
	m.expire(0, 10, 0)
	m.state(compacted.ID, ports.SegmentCommitted, 1)
	m.outcomes(m.commit(live), accepted(0))
	m.extents(key, run{0, 1}, run{2, 2})
}

func expireByLimit(m *metadataUnderTest) {
	_, err := m.Reserve(m.Context(), 5)
	m.ok(err)
	for _, want := range []int{2, 2, 1, 0} {
		m.expire(0, 2, want)
	}
}

func expireWithinGrace(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 2))
	m.expire(time.Hour, 10, 0)
	m.expire(1<<62, 10, 0)
	m.outcomes(m.commit(seg), accepted(0))
}

func garbagePages(m *metadataUnderTest) {
	ids := m.spoilt(7)
	m.reserve()
	m.append(plain(m.partition("orders"), 1))
	for _, limit := range []int{1, 3, 7, 10, ports.MaxUpkeep} {
		m.garbage(limit, ids...)
	}
	page, err := m.Garbage(m.Context(), 0, ids[2], 2)
	m.ok(err)
	if len(page) != 2 || page[0].ID != ids[3] || page[1].ID != ids[4] {
		m.Fatalf("the garbage after %s is %v", ids[2], page)
	}
	for _, id := range ids {
		m.state(id, ports.SegmentDeleting, 0)
	}
}

func garbageWithinGrace(m *metadataUnderTest) {
	m.spoilt(3)
	page, err := m.Garbage(m.Context(), time.Hour, domain.SegmentID{}, 10)
	m.ok(err)
	if len(page) != 0 {
		m.Fatalf("garbage of less than an hour is %v", page)
	}
}

func markOnlyGarbage(m *metadataUnderTest) {
	key := m.partition("orders")
	pending, committed, garbage := m.segment(plain(key, 1)), m.segment(plain(key, 1)), m.spoilt(3)
	m.commit(committed)
	unknown := domain.SegmentID{9, 9}
	m.ok(m.MarkDeleted(m.Context(), []domain.SegmentID{pending.ID, garbage[0], committed.ID, unknown, garbage[2]}))
	m.state(pending.ID, ports.SegmentPending, 0)
	m.state(committed.ID, ports.SegmentCommitted, 1)
	m.state(garbage[0], ports.SegmentDeleted, 0)
	m.state(garbage[2], ports.SegmentDeleted, 0)
	m.garbage(10, garbage[1])
	m.gone(unknown)
	m.outcomes(m.commit(pending), accepted(1))
}

func markAgain(m *metadataUnderTest) {
	ids := m.deleted(2)
	before := m.row(ids[0])
	for range 2 {
		m.ok(m.MarkDeleted(m.Context(), ids))
	}
	if after := m.row(ids[0]); !after.StateAt.Equal(before.StateAt) || after.State != before.State {
		m.Fatalf("the segment was %+v and is %+v", before, after)
	}
	m.garbage(10)
}

func markNothing(m *metadataUnderTest) {
	m.ok(m.MarkDeleted(m.Context(), nil))
	rows, err := m.SegmentsByID(m.Context(), nil)
	m.ok(err)
	if len(rows) != 0 {
		m.Fatalf("no ids have the rows %+v", rows)
	}
}

func markedAnswersReplays(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	first, again, trimmed := m.segment(sequenced(s, key, 0, 2)), m.segment(sequenced(s, key, 0, 2)), m.segment(plain(key, 3))
	m.outcomes(m.commit(first), accepted(0))
	m.outcomes(m.commit(again), duplicate(0))
	m.outcomes(m.commit(trimmed), accepted(2))
	m.trim(key, 5, 5)
	m.garbage(10, first.ID, again.ID, trimmed.ID)
	m.ok(m.MarkDeleted(m.Context(), []domain.SegmentID{first.ID, again.ID, trimmed.ID}))
	for range 2 {
		m.outcomes(m.commit(first), accepted(0))
		m.outcomes(m.commit(again), duplicate(0))
		m.outcomes(m.commit(trimmed), accepted(2))
		m.state(trimmed.ID, ports.SegmentDeleted, 0)
	}
	m.outcomes(m.append(sequenced(s, key, 0, 2), sequenced(s, key, 2, 1)), duplicate(0), accepted(5))
}

func forgottenIsRefused(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	seg := m.segment(sequenced(s, key, 0, 2))
	m.outcomes(m.commit(seg), accepted(0))
	m.trim(key, 2, 2)
	m.ok(m.MarkDeleted(m.Context(), []domain.SegmentID{seg.ID}))
	m.forget(time.Hour, 10, 0)
	m.outcomes(m.commit(seg), accepted(0))
	m.forget(0, 10, 1)
	m.gone(seg.ID)
	m.refusedCommit(seg)
	m.outcomes(m.append(sequenced(s, key, 0, 2), sequenced(s, key, 2, 1)), duplicate(0), accepted(2))
}

func forgetOnlyDeleted(m *metadataUnderTest) {
	key := m.partition("orders")
	pending, committed, garbage := m.segment(plain(key, 1)), m.segment(plain(key, 1)), m.spoilt(1)
	m.commit(committed)
	m.forget(0, 10, 0)
	deleted := m.deleted(2)
	m.forget(0, 10, 2)
	for _, id := range deleted {
		m.gone(id)
	}
	m.state(garbage[0], ports.SegmentDeleting, 0)
	m.outcomes(m.commit(committed), accepted(0))
	m.outcomes(m.commit(pending), accepted(1))
}

func forgetByLimit(m *metadataUnderTest) {
	m.deleted(5)
	for _, want := range []int{2, 2, 1, 0} {
		m.forget(0, 2, want)
	}
}

func expireAfterGrace(m *metadataUnderTest) {
	key := m.partition("orders")
	early := m.segment(plain(key, 1))
	m.pass(time.Hour)
	late := m.segment(plain(key, 1))
	m.expire(90*time.Minute, 10, 0)
	m.pass(45 * time.Minute)
	m.expire(90*time.Minute, 10, 1)
	m.refusedCommit(early)
	m.outcomes(m.commit(late), accepted(0))
	m.pass(10 * time.Hour)
	m.expire(90*time.Minute, 10, 0)
	m.extents(key, run{0, 0})
}

func garbageAfterGrace(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 1))
	m.commit(seg)
	m.pass(2 * time.Hour)
	m.trim(key, 1, 1)
	unused := m.reserve()
	m.pass(2 * time.Hour)
	m.expire(time.Hour, 10, 1)
	for _, c := range []struct {
		grace time.Duration
		want  []domain.SegmentID
	}{{3 * time.Hour, nil}, {time.Hour, []domain.SegmentID{seg.ID}}, {0, []domain.SegmentID{seg.ID, unused}}} {
		page, err := m.Garbage(m.Context(), c.grace, domain.SegmentID{}, 10)
		m.ok(err)
		var got []domain.SegmentID
		for _, r := range page {
			got = append(got, r.ID)
		}
		if !slices.Equal(got, c.want) {
			m.Fatalf("the garbage of %s and longer is %v, want %v", c.grace, got, c.want)
		}
	}
}

func forgetAfterAge(m *metadataUnderTest) {
	ids := m.spoilt(2)
	m.pass(3 * time.Hour)
	m.ok(m.MarkDeleted(m.Context(), ids[:1]))
	m.pass(time.Hour)
	m.ok(m.MarkDeleted(m.Context(), ids))
	m.forget(90*time.Minute, 10, 0)
	m.pass(time.Hour)
	m.forget(90*time.Minute, 10, 1)
	m.gone(ids[0])
	m.state(ids[1], ports.SegmentDeleted, 0)
}

// apart demands that b is d after a, but for the time that the calls take.
func (m *metadataUnderTest) apart(a, b time.Time, d time.Duration) {
	m.Helper()
	if got := b.Sub(a); got < d-time.Second || got > d+time.Minute {
		m.Fatalf("%s is %s after %s, want %s", b, got, a, d)
	}
}

func committedAtIsKept(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 1))
	m.pass(time.Hour)
	m.commit(seg)
	m.pass(2 * time.Hour)
	m.append(plain(key, 1))
	m.pass(time.Hour)
	m.outcomes(m.commit(seg), accepted(0)) // A replay makes nothing younger.
	e := m.extents(key, run{0, 0}, run{1, 1})
	m.apart(time.UnixMilli(e[0].CommittedAt), time.UnixMilli(e[1].CommittedAt), 2*time.Hour)
	m.apart(m.row(seg.ID).CreatedAt, time.UnixMilli(e[0].CommittedAt), time.Hour)
	byTime, found, err := m.ExtentAt(m.Context(), key, 0)
	m.ok(err)
	if !found || byTime != e[0] || m.everyExtent(10)[0] != e[0] {
		m.Fatalf("extent is planned as %+v, found by time as %+v and listed as %+v", e[0], byTime, m.everyExtent(10)[0])
	}
}

func stateTimes(m *metadataUnderTest) {
	key := m.partition("orders")
	seg := m.segment(plain(key, 1))
	created := m.row(seg.ID)
	m.apart(created.CreatedAt, created.StateAt, 0)
	states := []func(){
		func() { m.commit(seg) },
		func() { m.trim(key, 1, 1) },
		func() { m.ok(m.MarkDeleted(m.Context(), []domain.SegmentID{seg.ID})) },
	}
	for i, change := range states {
		m.pass(time.Hour)
		change()
		r := m.row(seg.ID)
		if r.State != ports.SegmentCommitted+ports.SegmentState(i) || !r.CreatedAt.Equal(created.CreatedAt) {
			m.Fatalf("after step %d the segment is %+v", i, r)
		}
		m.apart(r.CreatedAt, r.StateAt, time.Duration(i+1)*time.Hour)
	}
}
