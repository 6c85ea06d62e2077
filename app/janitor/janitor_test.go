package janitor_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

func TestOnce_CompactsManySmallSegmentsAndReadersNeverNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 3, domain.Retention{})
		w.send(topic, 400)
		time.Sleep(time.Hour)
		r := w.once(false)
		w.reads(topic)
		if r.Compaction.Replaced != 3*400 || r.Compaction.Lost != 0 {
			t.Errorf("compaction did %+v, want all 1200 extents replaced", r.Compaction)
		}
		if n := len(w.meta.Snapshot().Extents); n > 3*20 {
			t.Errorf("%d extents are left", n)
		}
		time.Sleep(time.Hour)
		w.once(false)
		if n := w.objects(); n > 3 {
			t.Errorf("%d objects are left, want the few compacted ones", n)
		}
		w.reads(topic)
	})
}
