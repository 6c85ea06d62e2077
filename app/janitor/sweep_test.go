package janitor_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// named returns an id of n that no row has.
func named(n byte) domain.SegmentID {
	return domain.SegmentID{1, 0x8f, 0, 0, 0, 0, 0x70, 0, 0x80, 15: n}
}

func TestSweep_LeavesWhatIsNotCertainlyAnOldSegmentOfThisCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 1, domain.Retention{})
		w.fill(topic, 0, 1, 30)
		other := w.meta.ClusterID()
		other[3] ^= 1
		w.put(other, named(1))
		w.put(w.meta.ClusterID(), named(2))
		for key, body := range map[string]string{
			segment.Key(named(3)): "not a segment at all, whatever its name says, but long enough for a header",
			segment.Key(named(4)): "short",
			segment.Key(named(5)): "",
			"segments/zz/0190":    "no segment's name",
			"aaa/before":          "of somebody else",
			"somebody/elses":      "of somebody else",
		} {
			w.ok(w.segments.Put(t.Context(), key, []byte(body)))
		}
		inside, _, err := segment.NewWriter(nil, w.meta.ClusterID(), named(7)).Close()
		w.ok(err)
		w.ok(w.segments.Put(t.Context(), segment.Key(named(6)), inside)) // calls itself another
		time.Sleep(w.cfg.SweepAge - time.Minute)
		w.put(w.meta.ClusterID(), named(8)) // too young
		w.cfg.CompactExtentBytes = 0
		time.Sleep(time.Minute)
		before := w.objects()
		r := w.once(true).Sweep
		if r.Objects != 30+8 || r.Orphans != 1 || r.Deleted != 1 || r.Foreign != 6 || w.objects() != before-1 {
			t.Errorf("the sweep did %+v, and left %d of %d objects", r, w.objects(), before)
		}
		if _, err := w.segments.Stat(t.Context(), segment.Key(named(2))); !errors.Is(err, ports.ErrObjectNotFound) {
			t.Errorf("the orphan: %v", err)
		}
		w.reads(topic)
	})
}

func TestSweep_RefusesToRemoveMoreThanItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 1, domain.Retention{})
		w.fill(topic, 0, 1, 38)
		for n := range byte(3) { // of 41 objects: more than 5 %
			w.put(w.meta.ClusterID(), named(n))
		}
		time.Sleep(2 * day)
		w.cfg.CompactExtentBytes = 0
		r, err := w.janitor().Once(t.Context(), true)
		if !errors.Is(err, janitor.ErrTooManyOrphans) || r.Sweep.Deleted != 0 || w.objects() != 41 || r.Sweep.Orphans != 3 {
			t.Fatalf("the sweep did %+v, %v", r.Sweep, err)
		}
		w.cfg.SweepShare = 0.1
		if r := w.once(true).Sweep; r.Deleted != 3 {
			t.Errorf("with a share of a tenth the sweep did %+v", r)
		}
		w.reads(topic)
	})
}

func TestSweep_OfABackupThatIsTooOldRemovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		// The rows of these are lost.
		for n := range byte(200) {
			w.put(w.meta.ClusterID(), named(n))
		}
		w.fill(w.topic("orders", 1, domain.Retention{}), 0, 1, 10)
		time.Sleep(2 * day)
		w.cfg.CompactExtentBytes = 0
		if _, err := w.janitor().Once(t.Context(), true); !errors.Is(err, janitor.ErrTooManyOrphans) || w.objects() != 210 {
			t.Errorf("%d objects are left, %v", w.objects(), err)
		}
	})
}

// skewed is a store whose clock is off.
type skewed struct {
	ports.SegmentStore
	by time.Duration
}

func (s skewed) List(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error) {
	infos, err := s.SegmentStore.List(ctx, after, limit)
	for i := range infos {
		infos[i].ModifiedUnixMilli += s.by.Milliseconds()
	}
	return infos, err
}

func TestSweep_NeverTakesAnObjectThatARowSpeaksForWhateverTheClocksSay(t *testing.T) {
	for _, off := range []time.Duration{-1000 * time.Hour, -time.Hour, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			topic := w.topic("orders", 1, domain.Retention{})
			w.fill(topic, 0, 1, 30)
			refs, err := w.meta.Reserve(t.Context(), 1) // an upload that is not committed yet
			w.ok(err)
			w.put(w.meta.ClusterID(), refs[0].ID)
			w.cfg.SweepShare, w.cfg.SweepAge, w.cfg.CompactExtentBytes = 1, 0, 0
			w.store = skewed{w.segments, off}
			if r := w.once(true).Sweep; r.Deleted != 0 || r.Orphans != 0 || r.Objects != 31 {
				t.Errorf("%v off, the sweep did %+v", off, r)
			}
			w.reads(topic)
		})
	}
}

func TestSweep_OfManyPagesFindsEveryOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for n := range 2500 {
			id := named(byte(n))
			id[14] = byte(n >> 8)
			w.put(w.meta.ClusterID(), id)
		}
		time.Sleep(2 * day)
		w.cfg.SweepShare = 1
		if r := w.once(true).Sweep; r.Deleted != 2500 || r.Objects != 2500 {
			t.Errorf("the sweep did %+v", r)
		}
	})
}

func TestSweep_ThatCannotAskRemovesNothing(t *testing.T) {
	for _, method := range []string{"List", "SegmentsByID", "ReadRange"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.put(w.meta.ClusterID(), named(1))
			time.Sleep(2 * day)
			w.cfg.SweepShare = 1
			down := errors.New("down")
			w.when(func(c fault.Call) bool { return c.Method == method }, fault.Decision{Fail: down})
			if r, err := w.janitor().Once(t.Context(), true); !errors.Is(err, down) || r.Sweep.Deleted != 0 || w.objects() != 1 {
				t.Errorf("without %s the sweep did %+v, %v", method, r.Sweep, err)
			}
		})
	}
}
