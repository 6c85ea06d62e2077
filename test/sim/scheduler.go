package sim

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/ports"
)

const (
	// maxSteps and maxTime end a run that goes in circles.
	maxSteps = 20_000
	maxTime  = 200 * 24 * time.Hour
	// stuckAfter is how long nothing may happen at all.
	stuckAfter = 2 * time.Hour
	// moment is what every step takes. It divides no duration used elsewhere.
	moment = 1013 * time.Nanosecond
)

var errDead = errors.New("the process is dead")

// scheduler lets one parked call go on at a time. It acts only when every other
// goroutine is blocked, so that what it does next depends on its policy only.
type scheduler struct {
	policy  policy
	trace   *trace
	waiting []*parked // in the order of compare
	frozen  []*parked // of processes that are stopped
	steps   int
	begin   time.Time

	mu      sync.Mutex
	arrived []*parked
	wake    chan struct{} // holds one
}

// phase is where a call is parked.
type phase uint8

const (
	asking    phase = iota // not carried out yet
	answering              // carried out, its answer not given
	expired                // its context has ended: its caller goes, in its turn
	arriving               // its caller has gone; it may still be carried out
)

// parked is a call that waits for the scheduler.
type parked struct {
	process *process
	call    fault.Call
	phase   phase
	number  int // counts the process's calls
	since   int // the step before which it arrived
	release chan verdict

	gone bool // the caller does not wait here any more; guarded by scheduler.mu
	late *fault.Invocation
}

// verdict says how a call goes on. The zero verdict carries it out.
type verdict struct {
	did    string // for the trace
	fail   error  // not carried out
	lose   error  // carried out, answered with this
	repeat bool   // carried out twice
	hold   bool   // carried out, the answer parks again
	drop   bool   // never carried out, and nobody waits
	late   bool   // answered with fail; it may arrive later
	tamper tampering
}

func newScheduler(p policy, t *trace) *scheduler {
	return &scheduler{policy: p, trace: t, begin: time.Now(), wake: make(chan struct{}, 1)}
}

// compare orders parked calls by what they are, not by when they came: which of
// two goroutines came first is not repeatable.
func compare(a, b *parked) int {
	return cmp.Or(
		cmp.Compare(a.process.name, b.process.name), cmp.Compare(a.number, b.number), cmp.Compare(a.phase, b.phase),
		cmp.Compare(a.call.Port, b.call.Port), cmp.Compare(a.call.Method, b.call.Method), cmp.Compare(a.call.Subject, b.call.Subject),
	)
}

func (s *scheduler) park(e *parked) {
	s.mu.Lock()
	s.arrived = append(s.arrived, e)
	s.mu.Unlock()
	s.rouse()
}

// rouse has the scheduler look again at what waits.
func (s *scheduler) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// intercept parks every call of p.
func (s *scheduler) intercept(p *process) fault.Interceptor {
	return func(ctx context.Context, i *fault.Invocation) error {
		if p.dead.Load() {
			return dead(i.Call)
		}
		e := &parked{process: p, call: i.Call, release: make(chan verdict, 1)}
		v, gone := s.await(ctx, e, i)
		if gone != nil {
			return gone
		}
		if v.late {
			s.leave(e, i)
		}
		if v.fail != nil {
			return v.fail
		}
		p.prepare(i.Call, v.tamper)
		err := i.Run(ctx)
		if v.repeat {
			err = i.Run(ctx)
		}
		if v.hold {
			return s.answer(ctx, p, i, err)
		}
		if v.lose != nil {
			return v.lose
		}
		return err
	}
}

// await parks e until it is released or its context ends. Then the error is for
// the caller, who goes when it is its turn, and a call with an effect may yet arrive.
func (s *scheduler) await(ctx context.Context, e *parked, i *fault.Invocation) (verdict, error) {
	s.park(e)
	select {
	case v := <-e.release:
		return v, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	e.gone = true
	s.mu.Unlock()
	x := &parked{process: e.process, call: e.call, phase: expired, number: e.number, release: make(chan verdict, 1)}
	s.park(x)
	<-x.release
	if i.Effect && e.phase == asking && !e.process.dead.Load() {
		s.leave(e, i)
	}
	err := i.Error(ports.Ambiguous).(*ports.Error)
	err.Err = context.Cause(ctx)
	return verdict{}, err
}

// leave parks the call of a caller that has its answer already.
func (s *scheduler) leave(e *parked, i *fault.Invocation) {
	i.Detach()
	s.park(&parked{process: e.process, call: e.call, phase: arriving, number: e.number, gone: true, late: i})
}

// answer parks the answer err of a call that was carried out.
func (s *scheduler) answer(ctx context.Context, p *process, i *fault.Invocation, err error) error {
	if p.dead.Load() {
		return dead(i.Call)
	}
	e := &parked{process: p, call: i.Call, phase: answering, release: make(chan verdict, 1)}
	v, gone := s.await(ctx, e, i)
	switch {
	case gone != nil:
		return gone
	case v.fail != nil:
		return v.fail
	case v.lose != nil:
		return v.lose
	}
	return err
}

// dead is what a process hears that is no more. Nobody observes what it does.
func dead(c fault.Call) error {
	err := c.Error(ports.Fatal).(*ports.Error)
	err.Err = errDead
	return err
}

// step parks a step of an application, so that applications take turns too. It
// reports whether the process lives.
func (s *scheduler) step(p *process, what string) bool {
	if p.dead.Load() {
		return false
	}
	e := &parked{process: p, call: fault.Call{Port: application, Method: what}, release: make(chan verdict, 1)}
	s.park(e)
	<-e.release
	return !p.dead.Load()
}

// application is the port of an application's own steps. They never fail.
const application = "app"

// run acts until done, and returns what makes it end early.
func (s *scheduler) run(done func() bool) error {
	for {
		// A moment passes, so that what two steps begin never ends at one instant:
		// in which order timers fire then is not repeatable.
		time.Sleep(moment)
		synctest.Wait()
		s.collect()
		if done() {
			return nil
		}
		if s.steps++; s.steps > maxSteps || time.Since(s.begin) > maxTime {
			return errors.New("the run does not come to an end")
		}
		if len(s.waiting) == 0 {
			if err := s.idle(); err != nil {
				return err
			}
			continue
		}
		if at := slices.IndexFunc(s.waiting, func(e *parked) bool { return e.phase == expired }); at >= 0 {
			s.let(s.waiting[at], verdict{did: "gives up"})
			continue
		}
		s.policy.act(s)
	}
}

// collect sorts what has arrived into waiting, and takes out what its callers
// have given up and what the dead wait for.
func (s *scheduler) collect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := s.arrived
	s.arrived = nil
	slices.SortStableFunc(fresh, compare)
	for _, e := range fresh {
		e.since = s.steps
		if e.number == 0 {
			e.process.calls++
			e.number = e.process.calls
		}
	}
	s.waiting = append(append(s.waiting, fresh...), s.frozen...)
	s.frozen = nil
	s.waiting = slices.DeleteFunc(s.waiting, func(e *parked) bool {
		stopped := e.process.stopped.Load()
		if stopped {
			s.frozen = append(s.frozen, e)
		}
		return stopped
	})
	s.waiting = slices.DeleteFunc(s.waiting, func(e *parked) bool { return e.gone && e.late == nil })
	slices.SortStableFunc(s.waiting, compare)
}

// idle lets time pass until a call arrives.
func (s *scheduler) idle() error {
	timer := time.NewTimer(stuckAfter)
	defer timer.Stop()
	select {
	case <-s.wake:
		return nil
	case <-timer.C:
		return errors.New("nothing happens any more")
	}
}

// pass lets time pass though calls wait.
func (s *scheduler) pass(d time.Duration) {
	s.trace.add(entry{actor: "time", did: d.String()})
	time.Sleep(d)
}

// passUntil lets time pass until a call arrives that is to be seen to, and
// returns how much of d is left.
func (s *scheduler) passUntil(d time.Duration, see func(*parked) bool) time.Duration {
	s.trace.add(entry{actor: "time", did: "up to " + d.String()})
	end := time.Now().Add(d)
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return 0
		case <-s.wake:
		}
		synctest.Wait()
		s.collect()
		if slices.ContainsFunc(s.waiting, see) {
			return max(0, time.Until(end))
		}
	}
}

// let carries v out on the waiting call e.
func (s *scheduler) let(e *parked, v verdict) {
	s.waiting = slices.DeleteFunc(s.waiting, func(o *parked) bool { return o == e })
	s.trace.add(entry{actor: e.process.name, call: e.call, number: e.number, did: phases[e.phase] + v.did, again: e.phase != asking})
	if e.phase != arriving {
		e.release <- v
		return
	}
	if !v.drop {
		// The answer goes nowhere; what the call meets now is its own affair.
		_ = e.late.Run(context.Background())
	}
}

var phases = [...]string{asking: "", answering: "answer ", expired: "", arriving: "late, "}

// kill ends p: what it waits for is not carried out any more, except what late
// says is on its way already.
func (s *scheduler) kill(p *process, late func() bool) {
	s.trace.add(entry{actor: p.name, did: "dies"})
	p.stopped.Store(false)
	p.die()
	s.collect()
	for _, e := range slices.Clone(s.waiting) {
		if e.process != p || e.phase == arriving {
			continue
		}
		v := verdict{did: "dead", fail: dead(e.call)}
		v.late = e.phase == asking && e.call.Effect && late()
		s.let(e, v)
	}
}
