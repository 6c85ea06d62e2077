package sim

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

var pairs = flag.Bool("pairs", false, "also enumerate pairs of crash points")

// TestCrashPoints_ProducePath takes every call that a producer's process makes
// and treats it in every way, in a run of its own.
func TestCrashPoints_ProducePath(t *testing.T) {
	for name, plan := range producePlans() {
		t.Run(name, func(t *testing.T) {
			points := enumerate(t, plan)
			if len(points) < 200 {
				t.Errorf("only %d crash points", len(points))
			}
			missed := tryAll(t, points)
			runs := len(points)
			if *pairs {
				for _, point := range points {
					seconds := enumerate(t, point.plan)
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

// enumerate lists what can go wrong in the plan's run beyond what does.
func enumerate(t *testing.T, plan Plan) []CrashPoint {
	t.Helper()
	points, r := CrashPoints(t, plan)
	if report(t, r, tailLines) {
		t.FailNow()
	}
	return points
}

// tryAll runs every point, and returns how many never came to their last call.
func tryAll(t *testing.T, points []CrashPoint) (missed int) {
	t.Helper()
	for _, point := range points {
		r := point.Run(t)
		if len(r.Violations) > 0 {
			t.Fatalf("%v:\n%s\n%s", point, r.Trace(tailLines), strings.Join(r.Violations, "\n"))
		}
		if !r.treated(point.plan.scripts[len(point.plan.scripts)-1]) {
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
