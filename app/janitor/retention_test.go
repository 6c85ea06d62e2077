package janitor_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

func TestRetention_ByAgeTakesWhatIsOldAndKeepsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.CompactExtentBytes = 0
		aged := w.topic("aged", 2, domain.Retention{Age: time.Hour})
		kept := w.topic("kept", 1, domain.Retention{})
		w.fill(aged, 0, 2, 10)
		w.fill(kept, 0, 1, 10)
		time.Sleep(30 * time.Minute)
		w.fill(aged, 0, 2, 5)
		if r := w.once(false); r.Retained.Extents != 0 {
			t.Errorf("took %+v before its time", r.Retained)
		}
		time.Sleep(31 * time.Minute)
		if r := w.once(false); r.Retained.Extents != 20 || r.Retained.Bytes == 0 || w.logStart(aged) != 10 {
			t.Errorf("took %+v, and the log begins at %d", r.Retained, w.logStart(aged))
		}
		time.Sleep(w.cfg.DeleteGrace)
		if r := w.once(false); r.Deleted != 10 {
			t.Errorf("deleted %d objects, want 10", r.Deleted)
		}
		w.clean()
		w.reads(aged)
		w.reads(kept)
	})
}

func TestRetention_ByBytesKeepsAtLeastThatMuchOfEachPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.StepRows = 7 // in many steps
		topic := w.topic("orders", 2, domain.Retention{})
		w.send(topic, 100)
		states, err := w.meta.DescribePartitions(t.Context(), topic.ID)
		w.ok(err)
		keep := states[0].Bytes / 2
		_, err = w.meta.SetRetention(t.Context(), topic.ID, domain.Retention{Bytes: keep})
		w.ok(err)
		w.once(false)
		states, err = w.meta.DescribePartitions(t.Context(), topic.ID)
		w.ok(err)
		for _, s := range states {
			if s.Bytes < keep || s.Bytes > keep+200 || s.LogStart == 0 {
				t.Errorf("partition %d has %d bytes from %d on, want a little more than %d", s.Partition, s.Bytes, s.LogStart, keep)
			}
		}
		w.reads(topic)
		if r := w.once(false); r.Retained.Extents != 0 {
			t.Errorf("a second pass took %+v", r.Retained)
		}
	})
}

func TestRetention_HoldsBesideCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 1, domain.Retention{Age: 8 * time.Hour})
		// An eighth of the age is an hour: extents that last longer would keep records for too long.
		const hour = 6 * 17 // records
		for range 24 * 6 {
			w.fill(topic, 0, 1, 17)
			time.Sleep(10 * time.Minute)
			w.once(false)
			oldest := w.meta.Snapshot().Extents[0]
			if age := time.Since(time.UnixMilli(oldest.CommittedAt)); age > 8*time.Hour {
				t.Fatalf("an extent of %v ago is still there", age)
			}
			if kept := len(w.sent[where("orders", 0)]) - int(w.logStart(topic)); kept > 9*hour+17 {
				t.Fatalf("%d records are kept, those of 9 hours are %d", kept, 9*hour)
			}
		}
		rows := w.meta.Snapshot()
		if first := int(w.logStart(topic)); first < 15*hour-17 || first > 16*hour {
			t.Errorf("after 24 hours the log begins at record %d, want those of 8 to 9 hours: from %d on", first, 15*hour)
		}
		if n := len(rows.Extents); n > 100 {
			t.Errorf("%d extents are left of %d", n, 8*hour)
		}
		w.reads(topic)
		time.Sleep(9*time.Hour + time.Minute)
		w.once(false)
		if n := w.extents(); n != 0 {
			t.Errorf("%d extents are left after 9 hours", n)
		}
		time.Sleep(time.Hour)
		w.once(true)
		w.clean()
		if n := w.objects(); n != 0 {
			t.Errorf("%d objects are left", n)
		}
	})
}

func TestRetention_OfWidenedAndDeletedTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.StepRows = 3
		wide := w.topic("wide", 1, domain.Retention{Age: time.Hour})
		gone := w.topic("gone", 2, domain.Retention{Age: time.Hour})
		w.send(wide, 4)
		w.send(gone, 4)
		wide, err := w.meta.WidenTopic(t.Context(), wide.ID, 3)
		w.ok(err)
		w.send(wide, 4)
		w.ok(w.meta.DeleteTopic(t.Context(), gone.ID))
		if r := w.once(false); r.Purged.Extents != 8 || r.Retained.Extents != 0 {
			t.Errorf("took %+v of deleted topics and %+v of others", r.Purged, r.Retained)
		}
		w.reads(wide)
		time.Sleep(2 * time.Hour)
		if r := w.once(false); r.Retained.Extents != 4+3*4 {
			t.Errorf("retention took %+v", r.Retained)
		}
		w.reads(wide)
		time.Sleep(time.Hour)
		w.once(false)
		w.clean()
		if n := w.objects(); n != 0 {
			t.Errorf("%d objects are left", n)
		}
	})
}

func TestRetention_APartitionThatFailsDoesNotKeepTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.CompactExtentBytes = 0
		topic := w.topic("orders", 5, domain.Retention{Age: time.Hour})
		w.send(topic, 3)
		time.Sleep(2 * time.Hour)
		bad := topic.ID.String() + "/2"
		refused := errors.New("refused")
		w.when(func(c fault.Call) bool { return c.Method == "Retain" && c.Subject == bad }, fault.Decision{Fail: refused})
		r, err := w.janitor().Once(t.Context(), false)
		if !errors.Is(err, refused) || r.Retained.Extents != 12 {
			t.Errorf("took %+v, %v: want the 12 extents of the other partitions", r.Retained, err)
		}
		w.metadata = w.meta
		if r := w.once(false); r.Retained.Extents != 3 {
			t.Errorf("the next pass took %+v", r.Retained)
		}
	})
}

func TestRetention_GivesUpWhenEverythingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 100, domain.Retention{Age: time.Hour})
		w.fill(topic, 0, 100, 1)
		time.Sleep(2 * time.Hour)
		tries := 0
		w.when(func(c fault.Call) bool {
			if c.Method == "Retain" {
				tries++
			}
			return c.Method == "Retain"
		}, fault.Decision{Fail: ports.MetadataError("retain", ports.Transient, errors.New("down"))})
		if _, err := w.janitor().Once(t.Context(), false); err == nil || tries > 20 {
			t.Errorf("%d tries, %v", tries, err)
		}
	})
}
