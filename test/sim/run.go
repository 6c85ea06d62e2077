package sim

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/test/sim/history"
)

// Result is what a run has shown.
type Result struct {
	Plan       Plan
	Violations []string
	// Steps counts the scheduler's, Acked the records acknowledged, Reads what
	// consumers got.
	Steps, Acked, Reads int
	Kept                Kept
	events              []history.Event
	trace               *trace
}

// Trace returns the last n lines of what happened, all if n is negative.
func (r *Result) Trace(n int) string { return r.trace.tail(n) }

// Run carries a plan out in a bubble of virtual time. T must not be in one.
func Run(t *testing.T, plan Plan) (result *Result) {
	var w *world
	defer func() {
		if fault := recover(); fault != nil {
			w.violations = append(w.violations, fmt.Sprintf("panic: %v\n%s", fault, debug.Stack()))
		}
		result = w.result()
	}()
	synctest.Test(t, func(*testing.T) {
		w = newWorld(plan)
		w.run()
	})
	return nil
}

func (w *world) run() {
	for _, t := range w.plan.topics {
		if err := w.createTopic(t.name, t.partitions); err != nil {
			w.violate("create topic: %v", err)
			return
		}
	}
	if w.agents != nil {
		w.agents.startAll()
	}
	w.startWorkers()
	played := func() bool {
		return w.scheduler.steps >= w.plan.steps || w.count(&w.active) == 0 && !w.scheduler.policy.busy(w.scheduler)
	}
	if err := w.scheduler.run(played); err != nil {
		w.violate("under faults: %v", err)
	}
	w.heal()
	if err := w.scheduler.run(func() bool { return w.count(&w.running) == 0 }); err != nil {
		w.violate("after everything healed: %v", err)
		w.abandonWorkers()
	}
	w.closeAll()
	w.verify()
}

func (w *world) startWorkers() {
	for i, plan := range w.plan.writers {
		name := fmt.Sprintf("w%d", i)
		worker := &writer{world: w, plan: plan, name: name, random: w.random(name)}
		w.spawn(true, worker.run)
	}
	for i, plan := range w.plan.raws {
		name := fmt.Sprintf("r%d", i)
		worker := &raw{world: w, plan: plan, name: name, random: w.random(name)}
		if err := worker.start(); err != nil {
			w.violate("%s: transport: %v", name, err)
			continue
		}
		w.spawn(true, worker.run)
	}
	for i, plan := range w.plan.followers {
		name := fmt.Sprintf("f%d", i)
		worker := &follower{world: w, plan: plan, name: name, random: w.random(name)}
		w.spawn(false, worker.run)
	}
	for i, plan := range w.plan.keepers {
		name := fmt.Sprintf("j%d", i)
		worker := &keeper{world: w, plan: plan, name: name, random: w.random(name)}
		w.spawn(true, worker.run)
	}
	for _, plan := range w.plan.admins {
		w.spawn(true, func() { w.administer(plan) })
	}
}

// heals is what a trace says when faults end.
const heals = "heals"

// heal ends all faults: what is still on its way arrives now or never.
func (w *world) heal() {
	w.trace.add(entry{actor: "world", did: heals})
	for _, e := range slices.Clone(w.scheduler.waiting) {
		if e.phase == arriving {
			w.scheduler.let(e, verdict{did: "dropped", drop: w.plan.dropLate})
		}
	}
	w.scheduler.policy = healthy{}
	w.retained()
	close(w.healed)
}

// abandonWorkers lets stuck workers end, so that the run can.
func (w *world) abandonWorkers() {
	w.scheduler.steps, w.scheduler.begin = 0, time.Now()
	for _, p := range w.processes {
		w.scheduler.kill(p, func() bool { return false })
	}
	_ = w.scheduler.run(func() bool { return w.count(&w.running) == 0 })
}

// closeAll ends what dead processes left behind.
func (w *world) closeAll() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, p := range w.processes {
		p.die()
		for _, c := range p.closers {
			_ = c(ctx) // the process is dead: nobody is told
		}
	}
	if w.agents != nil {
		w.agents.end()
	}
}

func (w *world) result() *Result {
	r := &Result{Plan: w.plan, Violations: w.violations, Steps: w.scheduler.steps, Kept: w.kept, events: w.events, trace: &w.trace}
	for _, e := range w.events {
		switch e.Kind {
		case history.Ack:
			r.Acked++
		case history.Read:
			r.Reads++
		}
	}
	return r
}
