package janitor_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

func TestCollection_AnUploadThatLandsAfterItsReservationIsCollectedIsNeverCommittedAndSweptAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 1, domain.Retention{})
		w.fill(topic, 0, 1, 40)
		refs, err := w.meta.Reserve(t.Context(), 2)
		w.ok(err)
		time.Sleep(w.cfg.ReservationGrace - time.Second)
		if r := w.once(true); r.Expired != 0 {
			t.Fatalf("%d reservations expired early", r.Expired)
		}
		time.Sleep(2 * time.Second)
		if r := w.once(true); r.Expired != 2 {
			t.Fatalf("%d reservations expired, want 2", r.Expired)
		}
		time.Sleep(w.cfg.DeleteGrace)
		w.once(true)

		object, crc, err := segment.NewWriter(nil, w.meta.ClusterID(), refs[0].ID).Close()
		w.ok(err)
		w.ok(w.segments.Put(t.Context(), refs[0].Key, object))
		results, err := w.meta.Commit(t.Context(), []commit.Segment{{ID: refs[0].ID, Size: int64(len(object)), CRC32C: crc}})
		w.ok(err)
		if results[0].Err == nil || ports.KindOf(results[0].Err) != ports.Definite {
			t.Fatalf("the late commit was answered %+v", results[0])
		}
		w.cfg.SweepShare = 0.5
		w.once(true)
		if _, err := w.segments.Stat(t.Context(), refs[0].Key); err != nil {
			t.Fatalf("an upload was swept away too soon: %v", err)
		}
		time.Sleep(w.cfg.SweepAge)
		if r := w.once(true); r.Sweep.Orphans != 1 || r.Sweep.Deleted != 1 || r.Sweep.DeletedBytes != int64(len(object)) {
			t.Errorf("the sweep did %+v", r.Sweep)
		}
		w.clean()
		w.reads(topic)
	})
}

func TestCollection_RowsAreForgottenLastOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.StepRows = 2
		_, err := w.meta.Reserve(t.Context(), 5)
		w.ok(err)
		var total janitor.Report
		for range 5 * 24 {
			time.Sleep(time.Hour)
			r := w.once(false)
			total.Expired, total.Deleted, total.Forgotten = total.Expired+r.Expired, total.Deleted+r.Deleted, total.Forgotten+r.Forgotten
		}
		if total.Expired != 5 || total.Deleted != 5 || total.Forgotten != 5 || len(w.meta.Snapshot().Segments) != 0 {
			t.Errorf("in all %+v, and %d rows are left", total, len(w.meta.Snapshot().Segments))
		}
	})
}

// garbage makes n objects that are garbage, long enough ago.
func (w *world) garbage(n int) {
	w.Helper()
	t := w.topic("gone", 1, domain.Retention{})
	w.fill(t, 0, 1, n)
	w.ok(w.meta.DeleteTopic(w.Context(), t.ID))
	_, err := w.meta.PurgeTopics(w.Context(), ports.MaxUpkeep)
	w.ok(err)
	time.Sleep(day)
}

func TestCollection_ObjectsThatCannotBeDeletedDoNotKeepTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Deletes, w.cfg.StepRows = 2, 10
		w.garbage(60)
		// The first 40 are under lock and key: more than a pass fails on in a row.
		refs, err := w.meta.Garbage(t.Context(), 0, domain.SegmentID{}, 100)
		w.ok(err)
		locked := map[string]bool{}
		for _, ref := range refs[:40] {
			locked[ref.Key] = true
		}
		denied := errors.New("access denied")
		w.when(func(c fault.Call) bool { return c.Method == "Delete" && locked[c.Subject] },
			fault.Decision{Fail: ports.StorageError("delete", ports.Definite, denied)})
		j := w.janitor()
		for range 4 {
			if _, err := j.Once(t.Context(), false); err != nil && !errors.Is(err, denied) {
				t.Fatal(err)
			}
		}
		if n := w.objects(); n != 40 {
			t.Errorf("%d objects are left, want the 40 that cannot be deleted", n)
		}
		w.metadata, w.store = w.meta, w.segments
		w.once(false)
		w.clean()
	})
}

func TestCollection_OneFailureIsToldAndTheRestIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Deletes = 1
		w.garbage(30)
		refs, err := w.meta.Garbage(t.Context(), 0, domain.SegmentID{}, 100)
		w.ok(err)
		denied := errors.New("access denied")
		w.when(func(c fault.Call) bool { return c.Subject == refs[3].Key }, fault.Decision{Fail: denied})
		r, err := w.janitor().Once(t.Context(), false)
		if r.Deleted != 29 || !errors.Is(err, denied) {
			t.Errorf("deleted %d, %v", r.Deleted, err)
		}
	})
}

func TestCollection_AStoreThatThrottlesIsLeftAloneUntilTheNextPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Deletes = 4
		w.garbage(500)
		c := w.counted()
		slow := ports.StorageError("delete", ports.Transient, errors.New("503 SlowDown"))
		var served atomic.Int64
		w.store = fault.NewSegments(w.store, fault.Decide(func(call fault.Call) fault.Decision {
			if call.Method == "Delete" {
				if served.Add(1) > 100 {
					return fault.Decision{Fail: slow}
				}
			}
			return fault.Decision{}
		}))
		j := w.janitor()
		r, err := j.Once(t.Context(), false)
		if r.Deleted != 100 || err == nil || served.Load() > 100+16+2*4 {
			t.Errorf("%d deleted by %d requests, %v", r.Deleted, served.Load(), err)
		}
		if lines := strings.Count(err.Error(), "\n"); lines > 12 {
			t.Errorf("the error has %d lines", lines)
		}
		for range 10 {
			served.Store(0)
			if r, err = j.Once(t.Context(), false); r.Deleted == 0 {
				break
			}
		}
		if n := w.objects(); n != 0 || err != nil || c.n("Delete") < 500 {
			t.Errorf("%d objects are left, %v", n, err)
		}
	})
}

func TestCollection_ACallThatHangsEndsAndTheNextOnesAreMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Deletes = 1
		w.garbage(5)
		refs, err := w.meta.Garbage(t.Context(), 0, domain.SegmentID{}, 100)
		w.ok(err)
		w.when(func(c fault.Call) bool { return c.Subject == refs[2].Key || c.Method == "ExpireReservations" }, fault.Decision{Delay: 1000 * time.Hour})
		begin := time.Now()
		r, err := w.janitor().Once(t.Context(), false)
		if took := time.Since(begin); r.Deleted != 4 || err == nil || took > 2*w.cfg.CallTimeout+time.Second {
			t.Errorf("deleted %d of 5 in %v, %v", r.Deleted, took, err)
		}
	})
}
