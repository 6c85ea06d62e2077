package janitor_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// everythingDue is a world in which one pass has something to do at each of its
// steps. It returns the topic that must stay as it is.
func everythingDue(w *world) domain.Topic {
	w.cfg.Deletes, w.cfg.SweepShare = 1, 1
	kept := w.topic("kept", 2, domain.Retention{})
	aged := w.topic("aged", 2, domain.Retention{Age: time.Hour})
	for _, name := range []string{"deleted", "garbage"} {
		t := w.topic(name, 1, domain.Retention{})
		w.fill(t, 0, 1, 2)
		w.ok(w.meta.DeleteTopic(w.Context(), t.ID))
		if name == "garbage" {
			_, err := w.meta.PurgeTopics(w.Context(), 3)
			w.ok(err)
		}
	}
	deleted, err := w.meta.Garbage(w.Context(), 0, domain.SegmentID{}, 1)
	w.ok(err)
	w.ok(w.segments.Delete(w.Context(), deleted[0].Key))
	w.ok(w.meta.MarkDeleted(w.Context(), []domain.SegmentID{deleted[0].ID})) // to be forgotten
	w.fill(kept, 0, 2, 20)
	w.fill(aged, 0, 2, 3)
	refs, err := w.meta.Reserve(w.Context(), 2)
	w.ok(err)
	w.put(w.meta.ClusterID(), refs[0].ID)
	w.put(w.meta.ClusterID(), named(1)) // without a row
	time.Sleep(4 * day)
	return kept
}

// quiet makes passes until there is nothing more to do, and demands that nothing
// is left over.
func (w *world) quiet(kept domain.Topic) {
	w.Helper()
	w.ok(w.meta.Snapshot().Check())
	w.reads(kept)
	w.metadata, w.store = w.meta, w.segments
	for range 10 {
		time.Sleep(4 * day)
		r := w.once(true)
		w.reads(kept)
		if r == (janitor.Report{Sweep: janitor.SweepReport{Objects: r.Sweep.Objects}}) {
			w.clean()
			if n, rows := w.objects(), len(w.meta.Snapshot().Segments); n != rows {
				w.Errorf("%d objects and %d rows are left", n, rows)
			}
			return
		}
	}
	w.Error("there is no end of it")
}

// TestCrash_AtEachCallLeavesWhatTheNextPassRepairs takes every call that a pass
// makes and has it fail, lose its answer, be made twice, or be the last one of its process.
func TestCrash_AtEachCallLeavesWhatTheNextPassRepairs(t *testing.T) {
	var all []fault.Call
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		kept := everythingDue(w)
		w.intercept(func(n int, c fault.Call) fault.Decision {
			all = append(all, c)
			return fault.Decision{}
		})
		r := w.once(true)
		if r.Retained.Extents == 0 || r.Purged.Extents == 0 || r.Expired == 0 || r.Deleted == 0 || r.Forgotten == 0 ||
			r.Compaction.Replaced == 0 || r.Sweep.Deleted == 0 {
			t.Errorf("a pass has not done everything: %+v", r)
		}
		w.quiet(kept)
	})
	if len(all) < 40 {
		t.Errorf("a pass made only %d calls", len(all))
	}
	for i, call := range all {
		for name, rule := range treatments(i, call) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				kept := everythingDue(w)
				w.intercept(rule)
				// What the pass answers says little: it may have done without.
				_, _ = w.janitor().Once(t.Context(), true)
				w.quiet(kept)
			})
			if t.Failed() {
				t.Fatalf("call %d, %v: %s", i, call, name)
			}
		}
	}
	t.Logf("%d calls", len(all))
}

// treatments are what can happen to call i.
func treatments(i int, call fault.Call) map[string]func(int, fault.Call) fault.Decision {
	at := func(d fault.Decision) func(int, fault.Call) fault.Decision {
		return func(n int, _ fault.Call) fault.Decision {
			if n == i {
				return d
			}
			return fault.Decision{}
		}
	}
	dead := fault.Decision{Fail: call.Error(ports.Fatal)}
	all := map[string]func(int, fault.Call) fault.Decision{
		"refused":              at(fault.Decision{Fail: call.Error(ports.Transient)}),
		"refused for good":     at(fault.Decision{Fail: call.Error(ports.Definite)}),
		"in doubt, not done":   at(fault.Decision{Fail: call.Error(ports.Ambiguous)}),
		"done, answer lost":    at(fault.Decision{Lose: call.Error(ports.Ambiguous)}),
		"done twice":           at(fault.Decision{Repeat: true}),
		"past its time":        at(fault.Decision{Delay: 100 * time.Hour}),
		"done, too late to be": at(fault.Decision{Linger: 100 * time.Hour}),
		"crash before": func(n int, _ fault.Call) fault.Decision {
			if n >= i {
				return dead
			}
			return fault.Decision{}
		},
		"crash after": func(n int, _ fault.Call) fault.Decision {
			if n > i {
				return dead
			}
			return fault.Decision{}
		},
	}
	return all
}

// intercept has w's janitors' calls decided by their number.
func (w *world) intercept(rule func(n int, c fault.Call) fault.Decision) {
	var mu sync.Mutex
	n := 0
	f := fault.Decide(func(c fault.Call) fault.Decision {
		mu.Lock()
		defer mu.Unlock()
		n++
		return rule(n-1, c)
	})
	w.metadata, w.store = fault.NewMetadata(w.meta, f), fault.NewSegments(w.segments, f)
}

// TestCrash_ACallThatArrivesLateHarmsNothing holds back each call that changes
// something, of a pass that is over then, until other passes have done the same.
func TestCrash_ACallThatArrivesLateHarmsNothing(t *testing.T) {
	late := 0
	for i := 0; ; i++ {
		var held *fault.Invocation
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			kept := everythingDue(w)
			var mu sync.Mutex
			n := 0
			f := func(ctx context.Context, call *fault.Invocation) error {
				if !call.Effect {
					return call.Run(ctx)
				}
				mu.Lock()
				defer mu.Unlock()
				if n++; n-1 != i {
					return call.Run(ctx)
				}
				call.Detach()
				held = call
				return call.Error(ports.Ambiguous)
			}
			w.metadata, w.store = fault.NewMetadata(w.meta, f), fault.NewSegments(w.segments, f)
			_, _ = w.janitor().Once(t.Context(), true)
			if held == nil {
				return
			}
			w.metadata, w.store = w.meta, w.segments
			time.Sleep(time.Hour + time.Duration(i%3)*2*day)
			w.once(true)
			err := held.Run(context.Background())
			if err != nil && ports.KindOf(err) != ports.Definite && !errors.Is(err, ports.ErrObjectExists) {
				t.Errorf("the late call was answered %v", err)
			}
			w.quiet(kept)
		})
		if t.Failed() {
			t.Fatalf("change %d, %v", i, held.Call)
		}
		if held == nil {
			break
		}
		late++
	}
	if late < 12 {
		t.Errorf("only %d calls were late", late)
	}
}

// TestCrash_TwoJanitorsAtOnceWithFaultsOfAllKinds races over the same work.
func TestCrash_TwoJanitorsAtOnceWithFaultsOfAllKinds(t *testing.T) {
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			kept := everythingDue(w)
			f := fault.Random(seed, fault.Rates{Delay: 0.5, MaxDelay: time.Minute, Fail: 0.05, Lose: 0.05, Repeat: 0.05})
			w.metadata, w.store = fault.NewMetadata(w.meta, f), fault.NewSegments(w.segments, f)
			var both sync.WaitGroup
			for n := range uint64(2) {
				w.cfg.Seed = 2*seed + n + 1
				j := w.janitor()
				both.Go(func() {
					for range 3 {
						_, _ = j.Once(t.Context(), true)
					}
				})
			}
			both.Wait()
			w.quiet(kept)
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestOnce_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for after := range 40 {
			w := newWorld(t)
			kept := everythingDue(w)
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			w.intercept(func(n int, _ fault.Call) fault.Decision {
				if calls = n; n == after {
					cancel()
				}
				return fault.Decision{}
			})
			_, err := w.janitor().Once(ctx, true)
			if !errors.Is(err, context.Canceled) || calls > after+10 {
				t.Fatalf("cancelled in call %d, it made %d more and returned %v", after, calls-after, err)
			}
			w.quiet(kept)
			cancel()
		}
	})
}
