package janitor_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run has w's janitor at work until the returned function is called, which
// waits for its end.
func (w *world) run() (j *janitor.Janitor, stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	j = w.janitor()
	done := make(chan struct{})
	go func() {
		defer close(done)
		j.Run(ctx)
	}()
	return j, func() {
		begin := time.Now()
		cancel()
		<-done
		if took := time.Since(begin); took > 0 {
			w.Errorf("Run ended %v after its context", took)
		}
	}
}

func TestRun_DoesAllOfItsWorkAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		kept := everythingDue(w)
		w.cfg.CompactBytesPerSecond = 1 << 20
		told := new(events)
		w.tel = told
		j, stop := w.run()
		time.Sleep(2 * day)
		stop()
		w.ok(w.meta.Snapshot().Check())
		w.clean()
		w.reads(kept)
		if n := w.extents(); n > 2*8 {
			t.Errorf("%d extents are left", n)
		}
		for _, kind := range []ports.EventKind{ports.RetentionPass, ports.CollectionPass, ports.CompactionPass, ports.SweepPass} {
			count, bytes := 0, int64(0)
			for _, e := range told.of(kind) {
				count, bytes = count+e.Count, bytes+e.Bytes
				if e.Err != nil {
					t.Errorf("event %d told of %v", kind, e.Err)
				}
			}
			if count == 0 || bytes == 0 && kind != ports.CollectionPass {
				t.Errorf("event %d told of %d things and %d bytes", kind, count, bytes)
			}
		}
		for _, s := range j.Status() {
			if s.Err != nil || time.Since(s.LastSuccess) > 2*day {
				t.Errorf("status of %s: %v, %v", s.Loop, s.LastSuccess, s.Err)
			}
		}
	})
}

// TestRun_IdleCostsFewQueriesAndNoRequestToTheSegmentStore for a log in which
// nothing happens, and is as large as it may be.
func TestRun_IdleCostsFewQueriesAndNoRequestToTheSegmentStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 10, domain.Retention{Age: 1000 * day})
		w.fill(topic, 0, 10, 100)
		_, stop := w.run()
		time.Sleep(5 * day) // all is compacted and collected, and the sweep comes once a day
		stop()
		c := w.counted()
		w.cfg.SweepInterval = math.MaxInt64
		_, stop = w.run()
		time.Sleep(time.Hour) // it looks at everything once
		before := c.n(fault.Metadata)
		const hours = 24
		time.Sleep(hours * time.Hour)
		stop()
		if n := c.n(fault.Metadata) - before; n > 60*hours {
			t.Errorf("%d metadata calls in %d hours", n, hours)
		}
		if n := c.n(fault.Segments); n != 0 {
			t.Errorf("%d requests to the segment store", n)
		}
	})
}

func TestRun_CompactsWhatIsCommittedLaterThoughItIsTooYoungAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.CompactAfter = time.Hour // longer than an interval
		topic := w.topic("orders", 1, domain.Retention{})
		_, stop := w.run()
		defer stop()
		time.Sleep(day)
		for range 3 {
			w.fill(topic, 0, 1, 32)
			time.Sleep(3 * time.Hour)
			if n := w.extents(); n > 6 {
				t.Errorf("%d extents are left", n)
			}
		}
	})
}

func TestRun_GoesOnAfterFailuresAndTellsOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		told := new(events)
		w.tel = told
		topic := w.topic("orders", 1, domain.Retention{Age: 10 * day})
		w.fill(topic, 0, 1, 64)
		down := errors.New("down")
		healed := time.Now().Add(3 * time.Hour)
		f := fault.Decide(func(c fault.Call) fault.Decision {
			if time.Now().Before(healed) {
				return fault.Decision{Fail: down}
			}
			return fault.Decision{}
		})
		w.metadata, w.store = fault.NewMetadata(w.meta, f), fault.NewSegments(w.segments, f)
		j, stop := w.run()
		defer stop()
		time.Sleep(2 * time.Hour)
		for _, s := range j.Status() {
			if s.Loop != "sweep" && (!errors.Is(s.Err, down) || !s.LastSuccess.IsZero()) {
				t.Errorf("status of %s while all is down: %+v", s.Loop, s)
			}
		}
		if n := len(told.of(ports.CompactionPass)); n < 10 || n > 30 {
			t.Errorf("%d passes of compaction in two hours", n)
		}
		time.Sleep(4 * time.Hour)
		for _, s := range j.Status() {
			if s.Err != nil && s.Loop != "sweep" { // which comes once a day
				t.Errorf("status of %s afterwards: %+v", s.Loop, s)
			}
		}
		if n := w.extents(); n > 10 {
			t.Errorf("%d extents are left", n)
		}
		w.reads(topic)
	})
}

func TestPlan_SaysWhatOnceWouldDoAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		everythingDue(w)
		var changed []fault.Call
		w.intercept(func(_ int, c fault.Call) fault.Decision {
			if c.Effect {
				changed = append(changed, c)
			}
			return fault.Decision{}
		})
		j := w.janitor()
		planned, err := j.Plan(t.Context(), true)
		w.ok(err)
		if len(changed) > 0 {
			t.Errorf("a plan calls %v", changed)
		}
		again, err := j.Plan(t.Context(), true)
		w.ok(err)
		if again != planned {
			t.Errorf("a second plan says %+v after %+v", again, planned)
		}
		did, err := j.Once(t.Context(), true)
		w.ok(err)
		// What a plan cannot know: that reads are made, and that an orphan's deletion succeeds.
		planned.Sweep.Deleted, planned.Sweep.DeletedBytes = did.Sweep.Deleted, did.Sweep.DeletedBytes
		planned.Compaction.Reads, planned.Compaction.ReadBytes = did.Compaction.Reads, did.Compaction.ReadBytes
		planned.Sweep.Objects = did.Sweep.Objects // the garbage has gone, a compacted one has come
		did.Retained.LogStart, did.Retained.More, did.Purged.More = 0, false, false
		if planned != did {
			t.Errorf("planned %+v\nand did %+v", planned, did)
		}
	})
}

func TestPlan_OfMuchGoesPageByPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.StepRows = 7
		aged := w.topic("aged", 12, domain.Retention{Age: time.Hour})
		w.fill(aged, 0, 12, 5)
		for _, name := range []string{"gone", "also-gone"} {
			gone := w.topic(name, 3, domain.Retention{})
			w.fill(gone, 0, 3, 10)
			w.ok(w.meta.DeleteTopic(t.Context(), gone.ID))
		}
		large := w.topic("large", 1, domain.Retention{})
		w.fill(large, 0, 1, 5000)
		time.Sleep(day)
		r, err := w.janitor().Plan(t.Context(), false)
		w.ok(err)
		if r.Retained.Extents != 60 || r.Purged.Extents != 60 || r.Compaction.Replaced != 5000 {
			t.Errorf("planned %+v", r)
		}
	})
}

func TestPlan_TellsOfTooManyOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(w.meta.ClusterID(), named(1))
		time.Sleep(2 * day)
		if r, err := w.janitor().Plan(t.Context(), true); !errors.Is(err, janitor.ErrTooManyOrphans) || r.Sweep.Orphans != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestConfig_EachFieldOutOfRangeIsNamed(t *testing.T) {
	if err := janitor.DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*janitor.Config){
		"Interval":              func(c *janitor.Config) { c.Interval = 0 },
		"SweepInterval":         func(c *janitor.Config) { c.SweepInterval = 0 },
		"ReservationGrace":      func(c *janitor.Config) { c.ReservationGrace = -1 },
		"DeleteGrace":           func(c *janitor.Config) { c.DeleteGrace = -1 },
		"ForgetAfter":           func(c *janitor.Config) { c.ForgetAfter = -1 },
		"SweepAge":              func(c *janitor.Config) { c.SweepAge = -1 },
		"SweepShare":            func(c *janitor.Config) { c.SweepShare = math.NaN() },
		"CompactExtentBytes":    func(c *janitor.Config) { c.CompactExtentBytes = -1 },
		"CompactSegmentBytes":   func(c *janitor.Config) { c.CompactSegmentBytes = c.CompactExtentBytes - 1 },
		"CompactFanIn":          func(c *janitor.Config) { c.CompactFanIn = 3 },
		"CompactAfter":          func(c *janitor.Config) { c.CompactAfter = -1 },
		"CompactBytesPerSecond": func(c *janitor.Config) { c.CompactBytesPerSecond = -1 },
		"StepRows":              func(c *janitor.Config) { c.StepRows = ports.MaxUpkeep + 1 },
		"Deletes":               func(c *janitor.Config) { c.Deletes = 0 },
		"CallTimeout":           func(c *janitor.Config) { c.CallTimeout = 0 },
	} {
		cfg := janitor.DefaultConfig()
		change(&cfg)
		var wrong *domain.ConfigError
		if err := cfg.Validate(); !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
