package verify_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/app/verify"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// TestRun_RaisesNoFalseAlarmWhateverHappensBetweenTwoCalls lets a few changes
// happen right before calls of verify that are drawn by a seed. In one partition, so that they meet.
func TestRun_RaisesNoFalseAlarmWhateverHappensBetweenTwoCalls(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	unsettled := 0
	for n := range 1000 {
		w := newWorld(t)
		topic := w.topic("orders", 2)
		for range 12 {
			w.commit(of(topic, 0, 1, 2), of(topic, 1, 1))
		}
		var story []string
		planned := map[int]int{}
		for at, i := 0, 0; i < 1+random.IntN(8); i++ {
			at += random.IntN(12)
			planned[at]++
		}
		calls := 0
		between := func(ctx context.Context, i *fault.Invocation) error {
			for range planned[calls] {
				story = append(story, fmt.Sprintf("before call %d, %s: %s", calls, i.Call, w.change(random, topic)))
			}
			calls++
			return i.Run(ctx)
		}
		o := verify.Options{Workers: 1, PageRows: 2 + random.IntN(4), MemoryExtents: 1 + random.IntN(30)}
		r, err := verify.Run(t.Context(), fault.NewMetadata(w.meta, between), fault.NewSegments(w.store, between), o)
		if err != nil || !r.OK() || r.Orphans.Count > 0 {
			t.Fatalf("round %d, %+v: %v\n%v\n%s", n, o, err, story, words(t, r))
		}
		unsettled += r.Unsettled
		w.clean()
	}
	if unsettled > 0 {
		t.Errorf("%d partitions were given up on", unsettled)
	}
}

// change makes one change to the log and says which.
func (w *world) change(random *rand.Rand, topic domain.Topic) string {
	key := commit.PartitionKey{Topic: topic.ID, Partition: domain.PartitionID(random.Int32N(2))}
	extents, err := w.meta.Extents(w.Context(), ports.ExtentPlace{PartitionKey: key, Base: -1}, 100)
	w.ok(err)
	for i, e := range extents {
		if e.Key() != key {
			extents = extents[:i]
			break
		}
	}
	switch random.IntN(5) {
	case 0:
		w.commit(of(topic, key.Partition, 2))
		return "a commit"
	case 1:
		if len(extents) > 1 {
			to := extents[random.IntN(len(extents))].Base + 1
			_, _ = w.meta.Trim(w.Context(), key, to) // it may be trimmed further already
			return fmt.Sprintf("trim of %d to %d", key.Partition, to)
		}
	case 2:
		w.collect()
		return "collection"
	default:
		if len(extents) > 2 {
			from := random.IntN(len(extents) - 1)
			to := min(from+2+random.IntN(4), len(extents))
			var ids []domain.SegmentID
			for _, e := range extents[from:to] {
				ids = append(ids, e.Segment)
			}
			w.compact(topic, key.Partition, ids...)
			return fmt.Sprintf("compaction of %d from %d to %d", key.Partition, extents[from].Base, extents[to-1].Last)
		}
	}
	return "nothing"
}

// collect deletes all garbage at once.
func (w *world) collect() {
	w.Helper()
	garbage, err := w.meta.Garbage(w.Context(), 0, domain.SegmentID{}, 1000)
	w.ok(err)
	var ids []domain.SegmentID
	for _, g := range garbage {
		w.ok(w.store.Delete(w.Context(), g.Key))
		ids = append(ids, g.ID)
	}
	if len(ids) > 0 {
		w.ok(w.meta.MarkDeleted(w.Context(), ids))
	}
	_, err = w.meta.ForgetDeleted(w.Context(), 0, 1000)
	w.ok(err)
}

// A damaged extent that retention removes before it is looked at again is no
// damage any more.
func TestRun_DoesNotReportWhatHasGoneSince(t *testing.T) {
	u := newUsual(t)
	stats := 0
	gone := func(ctx context.Context, i *fault.Invocation) error {
		if i.Method == "Stat" && i.Subject != "" {
			stats++
		}
		return i.Run(ctx)
	}
	u.shown.extents = func(all []commit.Extent) []commit.Extent {
		rest := all[:0]
		for _, e := range all {
			if e.Segment == u.a && e.Partition == 1 {
				if e.MaxTimestamp++; stats > 0 {
					continue
				}
			}
			rest = append(rest, e)
		}
		return rest
	}
	u.shown.rows = func(rows []ports.SegmentRow) []ports.SegmentRow {
		for i := range rows {
			if rows[i].ID == u.a && stats > 0 {
				rows[i].Live--
			}
		}
		return rows
	}
	r, err := verify.Run(t.Context(), u.shown, fault.NewSegments(u.store, gone), verify.Options{Workers: 1})
	if err != nil || !r.OK() || stats < 6 {
		t.Errorf("%d looks at objects, %v: %+v", stats, err, r.Problems)
	}
}

// The first state of the partition that verify is shown is wrong, so that it looks again; and
// that look meets a compaction at every place, before each of its calls.
func TestRun_LooksAgainThoughCompactionGoesOn(t *testing.T) {
	for call := range 60 {
		for from := range 10 {
			w := newWorld(t)
			topic := w.topic("orders", 1)
			for range 12 {
				w.commit(of(topic, 0, 1))
			}
			described, calls := 0, 0
			w.shown.states = func(_ domain.TopicID, states []domain.PartitionState) {
				if described++; described == 1 {
					states[0].Bytes--
				}
			}
			compact := func(ctx context.Context, i *fault.Invocation) error {
				if calls == call {
					w.compact(topic, 0, w.ids[from:from+3]...)
				}
				calls++
				return i.Run(ctx)
			}
			r, err := verify.Run(t.Context(), fault.NewMetadata(w.shown, compact), w.store, verify.Options{Workers: 1, PageRows: 2})
			if err != nil || !r.OK() || r.Unsettled > 0 || described < 3 {
				t.Fatalf("compaction of %d to %d before call %d, partition described %d times: %+v, %v", from, from+2, call, described, r, err)
			}
		}
	}
}
