package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

// Scripted runs have one call treated in a given way, and all others carried
// out in the order in which they come.
const Scripted Mode = "crash point"

// treatment is what one call of a scripted run meets.
type treatment struct {
	name string
	// effect limits the treatment to calls that change something.
	effect bool
	// apply decides on the call. Nil leaves it lying until its caller gives up;
	// then arrive says whether it arrives at once, and else the plan whether it does in the end.
	apply  func(s *scheduler, e *parked)
	arrive bool
	// drop has what is still on its way in the end never arrive.
	drop bool
}

func never() bool  { return false }
func always() bool { return true }

var treatments = []treatment{
	{name: "refused", apply: func(s *scheduler, e *parked) {
		s.let(e, verdict{did: "refused", fail: e.call.Error(ports.Transient)})
	}},
	{name: "in doubt, not carried out", effect: true, apply: func(s *scheduler, e *parked) {
		s.let(e, verdict{did: "in doubt, not carried out", fail: e.call.Error(ports.Ambiguous)})
	}},
	{name: "carried out, answer lost", apply: func(s *scheduler, e *parked) {
		s.let(e, verdict{did: "answer lost", lose: e.call.Error(ports.Ambiguous)})
	}},
	{name: "carried out twice", apply: func(s *scheduler, e *parked) { s.let(e, verdict{did: "twice", repeat: true}) }},
	{name: "crash before", apply: func(s *scheduler, e *parked) { s.kill(e.process, never) }},
	{name: "crash, and it arrives in the end", effect: true, apply: func(s *scheduler, e *parked) { s.kill(e.process, always) }},
	{name: "crash after", apply: func(s *scheduler, e *parked) {
		s.let(e, verdict{did: "ok, but", hold: true})
		synctest.Wait()
		s.collect()
		s.kill(e.process, never)
	}},
	{name: "delayed past every timeout, arrives then", arrive: true},
	{name: "delayed past every timeout, arrives in the end", effect: true},
	{name: "delayed past every timeout, never arrives", drop: true},
}

// CrashPoint is one run of an enumeration: some calls, and what each meets.
type CrashPoint struct{ plan Plan }

func (c CrashPoint) String() string {
	steps := make([]string, len(c.plan.scripts))
	for i, s := range c.plan.scripts {
		steps[i] = fmt.Sprintf("%s call %d, %s: %s", s.process, s.number, s.call, s.how.name)
	}
	return strings.Join(steps, "; then ")
}

// Run carries the point out.
func (c CrashPoint) Run(t *testing.T) *Result { return Run(t, c.plan) }

// CrashPoints carries the plan out, and lists every call that the processes of
// an actor make on a port behind the last one that is scripted already, with every
// treatment.
func CrashPoints(t *testing.T, actor string, plan Plan) ([]CrashPoint, *Result) {
	plan.Mode = Scripted
	result := Run(t, plan)
	var points []CrashPoint
	for _, e := range result.calls(actor + ".") {
		for _, how := range treatments {
			if how.effect && !e.call.Effect {
				continue
			}
			point := plan
			next := script{process: e.actor, number: e.number, call: e.call.Port + "." + e.call.Method, how: how}
			point.scripts = append(slices.Clip(plan.scripts), next)
			point.dropLate = plan.dropLate || how.drop
			points = append(points, CrashPoint{point})
		}
	}
	return points, result
}

// calls returns the calls of the processes with the prefix, each as its first
// mention in the trace, that were made after the last scripted one and before the heal.
func (r *Result) calls(prefix string) []entry {
	type id struct {
		actor  string
		number int
	}
	seen := map[id]bool{}
	var calls []entry
	for _, e := range r.trace.entries {
		if e.did == heals {
			break
		}
		key := id{e.actor, e.number}
		if !strings.HasPrefix(e.actor, prefix) || e.number == 0 || e.call.Port == application || seen[key] || e.again {
			continue
		}
		seen[key] = true
		if slices.ContainsFunc(r.Plan.scripts, func(s script) bool { return s.process == e.actor && s.number == e.number }) {
			calls = nil
			continue
		}
		calls = append(calls, e)
	}
	return calls
}

// script says what one call of a scripted run meets.
type script struct {
	process string
	number  int
	call    string
	how     treatment
}

func (c *script) matches(e *parked) bool {
	return e.process.name == c.process && e.number == c.number && e.phase == asking
}

// scripted carries out scripts, and all other calls as they come.
type scripted struct {
	scripts []script
	turns   int
}

func (p *scripted) act(s *scheduler) {
	for i := range p.scripts {
		c := &p.scripts[i]
		at := slices.IndexFunc(s.waiting, c.matches)
		switch {
		case at >= 0 && c.how.apply != nil:
			c.how.apply(s, s.waiting[at])
			return
		case at >= 0 && p.wait(s):
			return
		}
	}
	p.others(s)
}

// busy reports whether a call lies there whose caller has not given up yet.
func (p *scripted) busy(s *scheduler) bool { return slices.ContainsFunc(s.waiting, p.lies) }

// wait lets time pass in every other turn while a call lies there.
func (p *scripted) wait(s *scheduler) bool {
	if p.turns++; p.turns%2 == 0 {
		return false
	}
	s.pass(time.Second + 1)
	return true
}

// others carries the oldest call out that is in no script. What arrives late
// does so at once, or waits for the end.
func (p *scripted) others(s *scheduler) {
	var oldest *parked
	for _, e := range s.waiting {
		if e.phase == arriving && !p.arrives(e) || p.lies(e) {
			continue
		}
		if oldest == nil || e.since < oldest.since {
			oldest = e
		}
	}
	if oldest == nil {
		s.pass(time.Second + 1)
		return
	}
	s.let(oldest, verdict{did: "ok"})
}

// lies reports whether e is left until its caller gives up.
func (p *scripted) lies(e *parked) bool {
	return slices.ContainsFunc(p.scripts, func(c script) bool { return c.how.apply == nil && c.matches(e) })
}

// arrives reports whether e, whose caller has gone, arrives now.
func (p *scripted) arrives(e *parked) bool {
	return slices.ContainsFunc(p.scripts, func(c script) bool {
		return c.how.arrive && c.process == e.process.name && c.number == e.number
	})
}
