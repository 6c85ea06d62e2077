package sim

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/ports"
)

// policy decides what happens next. Act is called while calls wait and every
// goroutine is blocked.
type policy interface {
	act(s *scheduler)
	// busy reports whether it means to go on with a call that waits.
	busy(s *scheduler) bool
}

// healthy carries every call out, first come first served.
type healthy struct{}

func (healthy) act(s *scheduler) {
	oldest := slices.MinFunc(s.waiting, func(a, b *parked) int { return cmp.Compare(a.since, b.since) })
	s.let(oldest, verdict{did: "ok"})
}

func (healthy) busy(*scheduler) bool { return false }

// rates are the shares of calls, from 0 to 1, that meet each fault.
type rates struct {
	fail, lose, hold, repeat, crash, drop, tamper float64
	// cut, stop, hush and drain are for calls of agents: the connections break, the
	// process is stopped as by SIGSTOP, the network is silent, the process is told to end.
	cut, stop, hush, drain float64
	// pass is the share of steps in which time passes though calls wait, for
	// up to maxPass.
	pass    float64
	maxPass time.Duration
	// day is the share of steps in which more time passes than a producer
	// session lives without use.
	day float64
}

// random picks among the waiting calls by a seeded generator. Budget bounds how
// many faults it makes, negative is no bound; after skips that many calls that
// could fail go well first.
type random struct {
	*rand.Rand
	rates
	budget int
	skips  int
	night  bool          // a day passes
	left   time.Duration // of it
}

func (r *random) act(s *scheduler) {
	if r.chance(r.pass) {
		s.pass(time.Duration(1 + r.Int64N(int64(r.maxPass))))
		return
	}
	if r.night = r.night || r.chance(r.day); r.night {
		r.sleep(s)
		return
	}
	e := r.pick(s)
	if e == nil {
		s.pass(time.Duration(1 + r.Int64N(int64(time.Second))))
		return
	}
	if e.call.Port == application {
		s.let(e, verdict{did: "ok"})
		return
	}
	if r.budget == 0 || r.skips > 0 {
		r.skips = max(0, r.skips-1)
		s.let(e, verdict{did: "ok", hold: e.phase == asking && r.chance(r.hold)})
		return
	}
	r.judge(s, e)
}

// pick chooses a call. What is on its way without a caller mostly stays so for
// long: it is when it arrives behind later calls that it does harm. Nil is none.
func (r *random) pick(s *scheduler) *parked {
	e := s.waiting[r.IntN(len(s.waiting))]
	if e.phase != arriving || r.chance(0.05) {
		return e
	}
	var others []*parked
	for _, o := range s.waiting {
		if o.phase != arriving {
			others = append(others, o)
		}
	}
	if len(others) == 0 {
		return nil
	}
	return others[r.IntN(len(others))]
}

// sleep lets a day pass, bit by bit: whatever producers do meanwhile is carried
// out at once, since no transport would leave them without an answer for so long.
// Readers may wait. What is on its way without a caller stays so.
func (r *random) sleep(s *scheduler) {
	under := func(e *parked) bool {
		return e.call.Port != application && e.phase != arriving && !e.process.reader
	}
	if at := slices.IndexFunc(s.waiting, under); at >= 0 {
		s.let(s.waiting[at], verdict{did: "ok"})
		return
	}
	if r.left == 0 {
		r.left = ports.ProducerExpiry + time.Minute
	}
	r.left = s.passUntil(r.left, under)
	r.night = r.left > 0
}

func (r *random) busy(*scheduler) bool { return false }

func (r *random) chance(p float64) bool { return p > 0 && r.Float64() < p }

// fault reports whether a fault of share p happens now, and counts it.
func (r *random) fault(p float64) bool {
	if r.budget == 0 || !r.chance(p) {
		return false
	}
	r.budget--
	return true
}

func (r *random) judge(s *scheduler, e *parked) {
	switch e.phase {
	case arriving:
		if r.chance(0.5) {
			s.let(e, verdict{did: "dropped", drop: true})
		} else {
			s.let(e, verdict{did: "arrives"})
		}
	case answering:
		if r.fault(r.lose) {
			s.let(e, verdict{did: "lost", lose: e.call.Error(ports.Ambiguous)})
		} else {
			s.let(e, verdict{did: "given"})
		}
	default:
		r.ask(s, e)
	}
}

func (r *random) ask(s *scheduler, e *parked) {
	switch {
	case e.process.agent != nil && r.harm(s, e):
	case r.fault(r.fail):
		s.let(e, r.refusal(e))
	case r.fault(r.lose):
		s.let(e, verdict{did: "answer lost", lose: e.call.Error(ports.Ambiguous)})
	case r.fault(r.repeat):
		s.let(e, verdict{did: "twice", repeat: true})
	case e.process.mortal && r.fault(r.crash):
		r.crashAround(s, e)
	case e.call.Effect && r.fault(r.drop):
		s.let(e, verdict{did: "left on its way", fail: e.call.Error(ports.Ambiguous), late: true})
	case tamperable(e.call) && r.fault(r.tamper):
		v := verdict{did: "tampered with", tamper: tampering{kind: tamperKind(1 + r.IntN(tamperKinds)), at: r.Uint64()}}
		if e.call.Effect {
			v.lose = e.call.Error(ports.Ambiguous) // a store that damaged an object did not say that it has it
		}
		s.let(e, v)
	case r.chance(r.hold):
		s.let(e, verdict{did: "answer held", hold: true})
	default:
		s.let(e, verdict{did: "ok"})
	}
}

func tamperable(c fault.Call) bool {
	return c.Method == "ReadRange" || c.Method == "Fetch" || c.Method == "Put"
}

// refusal is an error for a call that is not carried out: one that says so, or
// one that leaves its caller in doubt.
func (r *random) refusal(e *parked) verdict {
	kind := ports.Transient
	if e.call.Effect && r.chance(0.5) {
		kind = ports.Ambiguous
	}
	return verdict{did: "refused, " + kind.String(), fail: e.call.Error(kind)}
}

// crashAround kills the process of e before or after the call.
func (r *random) crashAround(s *scheduler, e *parked) {
	if r.chance(0.5) {
		s.let(e, verdict{did: "ok, but", hold: true})
		synctest.Wait()
		s.collect()
	}
	s.kill(e.process, func() bool { return r.chance(0.3) })
}

// harm does something to the agent that makes the call e, before or after it is
// carried out, and reports that it did.
func (r *random) harm(s *scheduler, e *parked) bool {
	p := e.process
	agents := p.agent.agents
	long := func() time.Duration { return time.Duration(1 + r.Int64N(int64(longestPause))) }
	var did string
	var how func()
	switch {
	case r.fault(r.cut):
		did, how = "is cut off", func() { agents.network.cut(p) }
	case r.fault(r.stop):
		did, how = "is stopped", func() { agents.hush(p, long(), true) }
	case r.fault(r.hush):
		did, how = "is silent", func() { agents.hush(p, long(), false) }
	case r.fault(r.drain):
		did, how = "is told to end", p.agent.drain
	default:
		return false
	}
	if r.chance(0.5) {
		s.let(e, verdict{did: "ok, but", hold: true})
		synctest.Wait()
		s.collect()
	}
	s.trace.add(entry{actor: p.name, did: did})
	how()
	return true
}
