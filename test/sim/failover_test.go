package sim

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// harmAt has one call of an agent meet a harm, and carries out all others first
// come first served.
type harmAt struct {
	healthy
	method string
	left   int // calls of the method that go well before
	harm   func(s *scheduler, e *parked)

	agent  string // whom it has met
	number int    // the call
}

func (h *harmAt) act(s *scheduler) {
	e := slices.MinFunc(s.waiting, func(a, b *parked) int { return cmp.Compare(a.since, b.since) })
	if h.agent == "" && e.process.agent != nil && e.phase == asking && e.call.Method == h.method {
		if h.left--; h.left < 0 {
			h.agent, h.number = e.process.name, e.number
			h.harm(s, e)
			return
		}
	}
	h.healthy.act(s)
}

// carryOut carries e out and keeps its answer back.
func carryOut(s *scheduler, e *parked) {
	s.let(e, verdict{did: "ok, but", hold: true})
	synctest.Wait()
	s.collect()
}

// TestFailover_AtEachStepOfAnAgent harms an agent around the PUT and the commit of
// each of some segments. Every send succeeds in the end, and nothing is lost, stored twice or out of order.
func TestFailover_AtEachStepOfAnAgent(t *testing.T) {
	stop := func(_ *scheduler, e *parked) { e.process.agent.agents.hush(e.process, longestPause, true) }
	cut := func(_ *scheduler, e *parked) { e.process.agent.agents.network.cut(e.process) }
	kill := func(s *scheduler, e *parked) { s.kill(e.process, never) }
	after := func(harm func(*scheduler, *parked)) func(*scheduler, *parked) {
		return func(s *scheduler, e *parked) { carryOut(s, e); harm(s, e) }
	}
	harms := map[string]func(*scheduler, *parked){
		"dies before":            kill,
		"dies after":             after(kill),
		"dies, and it arrives":   func(s *scheduler, e *parked) { s.kill(e.process, always) },
		"is cut off before":      cut,
		"is cut off after":       after(cut),
		"is stopped before":      stop,
		"is stopped after":       after(stop),
		"is told to end":         func(_ *scheduler, e *parked) { e.process.agent.drain() },
		"is silent, and goes on": func(_ *scheduler, e *parked) { e.process.agent.agents.hush(e.process, longestPause, false) },
	}
	for _, method := range []string{"Put", "Commit"} {
		for name, harm := range harms {
			late := 0
			for nth := range 4 {
				h := &harmAt{method: method, left: nth, harm: harm}
				r := Run(t, failoverPlan(uint64(nth), h))
				if report(t, r, tailLines) {
					t.Fatalf("an agent %s %s number %d", name, method, nth)
				}
				if h.agent == "" {
					t.Errorf("no agent made %s number %d: that proves nothing", method, nth)
				}
				if r.arrivedLate(h) {
					late++
				}
			}
			if name == "is stopped before" && method == "Commit" && late == 0 {
				t.Error("no commit of an agent that was stopped came after that of another one")
			}
		}
	}
}

// failoverPlan has one writer and one follower go through three agents.
func failoverPlan(seed uint64, p policy) Plan {
	plan := Plan{Seed: 4 * seed, Mode: Single, agents: 3, chosen: p, steps: 2000}
	plan.topics = []topicPlan{{name: "t0", partitions: 2}}
	plan.writers = []writerPlan{{
		producer: fmt.Sprintf("p%d", seed), sends: 30, slow: true, remote: true,
		batchSize: 2, batchBytes: 256, retries: -1, batchTimeout: 5 * time.Millisecond,
		request: 30 * time.Second, delivery: 2 * time.Minute, buffer: 64 << 20,
	}}
	plan.followers = []followerPlan{{max: 4, remote: true}}
	return plan
}

// arrivedLate reports whether the harmed call was carried out after another agent
// had committed something.
func (r *Result) arrivedLate(h *harmAt) bool {
	others := false
	for _, e := range r.trace.entries {
		if e.call.Method == "Commit" && e.actor != h.agent && e.actor[0] == 'a' {
			others = true
		}
		if e.actor == h.agent && e.number == h.number && e.call.Method != "" && e.did != "" {
			return others
		}
	}
	return false
}
