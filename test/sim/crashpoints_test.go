package sim

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain"
)

var pairs = flag.Bool("pairs", false, "also enumerate pairs of crash points")

// TestCrashPoints_ProducePath takes every call that a producer's process makes
// and treats it in every way, in a run of its own.
func TestCrashPoints_ProducePath(t *testing.T) {
	for name, plan := range producePlans() {
		t.Run(name, func(t *testing.T) {
			points := enumerate(t, "w0", plan)
			if len(points) < 200 {
				t.Errorf("only %d crash points", len(points))
			}
			missed := tryAll(t, points)
			runs := len(points)
			if *pairs {
				for _, point := range points {
					seconds := enumerate(t, "w0", point.plan)
					runs += len(seconds)
					missed += tryAll(t, seconds)
				}
			}
			// The runtime may interrupt a goroutine at a bad moment, and shift a call.
			if missed > runs/200 && !shuffled {
				t.Errorf("%d of %d runs never came to the call that was to go wrong", missed, runs)
			}
			t.Logf("%d crash points, %d runs", len(points), runs)
		})
	}
}

func producePlans() map[string]Plan {
	writer := writerPlan{
		sends: 14, retries: -1, batchSize: 3, batchBytes: 1 << 10, batchTimeout: 20 * time.Millisecond,
		request: 5 * time.Second, delivery: 3 * time.Minute, buffer: 64 << 20,
	}
	named, agent := writer, writer
	named.producer, agent.agent = "p0", true
	plans := map[string]Plan{}
	for name, w := range map[string]writerPlan{"unnamed": writer, "named": named, "agent": agent} {
		plans[name] = Plan{
			Seed: 1, steps: maxSteps / 2,
			topics: []topicPlan{{name: "t0", partitions: 2}}, writers: []writerPlan{w}, followers: []followerPlan{{max: 5}},
		}
	}
	return plans
}

// TestCrashPoints_JanitorPath does the same with a janitor beside a producer and
// a consumer.
func TestCrashPoints_JanitorPath(t *testing.T) {
	cfg := janitor.DefaultConfig()
	cfg.CompactExtentBytes, cfg.CompactSegmentBytes, cfg.CompactFanIn, cfg.CompactAfter = 64<<10, 128<<10, 4, 0
	cfg.ReservationGrace, cfg.DeleteGrace, cfg.ForgetAfter = 20*time.Second, 10*time.Second, 40*time.Second
	cfg.SweepShare, cfg.SweepAge, cfg.CallTimeout, cfg.Seed = 1, time.Second, 10*time.Second, 1
	plan := producePlans()["named"]
	plan.topics = append(plan.topics, topicPlan{name: "t1", partitions: 2, retention: domain.Retention{Age: 10 * time.Second}})
	plan.writers[0].sends, plan.writers[0].batchSize, plan.writers[0].slow = 100, 1, true
	plan.keepers = []keeperPlan{{passes: 5, pause: 20 * time.Second, config: cfg}}
	points, r := CrashPoints(t, "j0", plan)
	if k := r.Kept; min(k.Retained, k.Deleted, k.Compacted) == 0 {
		t.Errorf("the janitor has not done everything: %+v", k)
	}
	if len(points) < 400 {
		t.Errorf("only %d crash points", len(points))
	}
	missed := tryAll(t, points)
	if missed > len(points)/200 && !shuffled {
		t.Errorf("%d of %d runs never came to the call that was to go wrong", missed, len(points))
	}
	t.Logf("%d crash points", len(points))
}

// enumerate lists what can go wrong in the plan's run beyond what does.
func enumerate(t *testing.T, actor string, plan Plan) []CrashPoint {
	t.Helper()
	points, r := CrashPoints(t, actor, plan)
	if report(t, r, tailLines) {
		t.FailNow()
	}
	return points
}

// tryAll runs every point, and returns how many never came to their last call.
// On a busy machine a run may miss it by chance.
func tryAll(t *testing.T, points []CrashPoint) (missed int) {
	t.Helper()
	for _, point := range points {
		treated := false
		for tries := 0; tries < 3 && !treated; tries++ {
			r := point.Run(t)
			if len(r.Violations) > 0 {
				t.Fatalf("%v:\n%s\n%s", point, r.Trace(tailLines), strings.Join(r.Violations, "\n"))
			}
			treated = r.treated(point.plan.scripts[len(point.plan.scripts)-1])
		}
		if !treated {
			missed++
		}
	}
	return missed
}

// treated reports whether the scripted call was made, and did not simply go well.
func (r *Result) treated(s script) bool {
	return slices.ContainsFunc(r.trace.entries, func(e entry) bool {
		return e.actor == s.process && e.number == s.number && e.did != "ok" && e.call.Port+"."+e.call.Method == s.call
	})
}
