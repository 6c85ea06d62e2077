package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

// Mode says how much goes wrong in a run.
type Mode string

const (
	Quiet  Mode = "quiet"  // nothing: only the order of events is random
	Single Mode = "single" // exactly one fault
	Mixed  Mode = "mixed"  // faults at rates drawn per seed
)

// Plan is all that a run is to do. PlanOf draws it from a seed; the
// crash-point enumeration makes its own.
type Plan struct {
	Seed      uint64
	Mode      Mode
	rates     rates
	skips     int      // single: calls that go well before the fault
	scripts   []script // scripted: what goes wrong
	dropLate  bool     // what is on its way when everything heals never arrives
	steps     int      // of the scheduler, before everything heals
	topics    []topicPlan
	writers   []writerPlan
	raws      []rawPlan
	followers []followerPlan
	admins    []adminPlan
	keepers   []keeperPlan
	agents    int    // that serve the writers and followers that are remote
	chosen    policy // instead of one drawn by the seed
}

type topicPlan struct {
	name       string
	partitions int32
	retention  domain.Retention
}

// writerPlan is one application that sends records, by one producer after the
// other.
type writerPlan struct {
	producer string // its producers' name, "" for none
	sends    int
	restarts []restart
	weak     bool // without idempotence
	agent    bool // the transport fails as an agent's would
	slow     bool // it pauses between sends
	remote   bool // it reaches the stores through agents

	batchSize, batchBytes, retries  int
	batchTimeout, request, delivery time.Duration
	buffer                          int64
}

// restart is a change of producers before the given send. The old one is closed
// first, or goes on beside the new one.
type restart struct {
	before int
	zombie bool
}

// rawPlan is a client that numbers its batches itself, and repeats, leaves out
// and outdates them.
type rawPlan struct {
	producer string
	batches  int
	wrap     bool // begin shortly before the sequence wraps
}

// followerPlan is a consumer that follows one topic.
type followerPlan struct {
	topic    int
	restarts int // how often it begins anew of its own will
	seeks    bool
	agent    bool // the fetcher fails as an agent's would
	remote   bool // it reads through agents
	max      int
}

// adminPlan changes a topic at a step of the scheduler.
type adminPlan struct {
	topic int
	step  int
	widen int32 // to this many partitions; 0 deletes the topic and makes it again
}

// PlanOf draws the plan of a seed. A quarter of all seeds is quiet, another has
// one fault.
func PlanOf(seed uint64) Plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := Plan{Seed: seed, Mode: Mixed, dropLate: seed%2 == 0, steps: 300 + r.IntN(1500)}
	p.drawFaults(r)
	for i := range 1 + r.IntN(2) {
		p.topics = append(p.topics, topicPlan{name: fmt.Sprintf("t%d", i), partitions: 1 + r.Int32N(3)})
	}
	for i := range 1 + r.IntN(3) {
		w := drawWriter(r, i)
		for j := range w.restarts {
			// A session forgotten after a day takes its name again, whoever has it.
			w.restarts[j].zombie = w.restarts[j].zombie && p.rates.day == 0
		}
		p.writers = append(p.writers, w)
	}
	for i := range r.IntN(3) {
		raw := rawPlan{batches: 10 + r.IntN(20), wrap: r.IntN(2) == 0}
		if r.IntN(2) == 0 {
			raw.producer = fmt.Sprintf("raw%d", i)
		}
		p.raws = append(p.raws, raw)
	}
	for range 1 + r.IntN(2) {
		p.followers = append(p.followers, followerPlan{
			topic: r.IntN(len(p.topics)), restarts: r.IntN(3), seeks: r.IntN(2) == 0, agent: r.IntN(3) == 0, max: 1 + r.IntN(8),
		})
	}
	if r.IntN(3) == 0 {
		a := adminPlan{topic: r.IntN(len(p.topics)), step: 20 + r.IntN(400)}
		if r.IntN(2) == 0 {
			a.widen = p.topics[a.topic].partitions + 1 + r.Int32N(2)
		}
		p.admins = append(p.admins, a)
	}
	for range [...]int{0, 0, 1, 2, 3}[r.IntN(5)] {
		p.keepers = append(p.keepers, p.drawKeeper(r))
	}
	for i := range p.topics {
		p.topics[i].retention = drawRetention(r)
	}
	return p
}

// PlanWithAgents draws the plan of a seed whose writers and followers mostly go
// through two to five agents, which fail in ways of their own.
func PlanWithAgents(seed uint64) Plan {
	p := PlanOf(seed)
	r := rand.New(rand.NewPCG(seed, 3))
	p.agents = 2 + r.IntN(4)
	p.rates.day = 0
	for i := range p.writers {
		p.writers[i].remote = i == 0 || r.IntN(4) > 0
		// Time to notice an agent's silence, and to go to another one.
		p.writers[i].delivery = max(p.writers[i].delivery, time.Minute)
		p.writers[i].agent = p.writers[i].agent && !p.writers[i].remote
	}
	for i := range p.followers {
		p.followers[i].remote = r.IntN(2) == 0
		p.followers[i].agent = p.followers[i].agent && !p.followers[i].remote
	}
	own := [...]*float64{&p.rates.cut, &p.rates.stop, &p.rates.hush, &p.rates.drain, &p.rates.crash}
	switch p.Mode {
	case Single:
		if r.IntN(4) > 0 {
			p.rates = rates{hold: p.rates.hold, pass: p.rates.pass, maxPass: p.rates.maxPass}
			*own[r.IntN(len(own))] = 1
		}
	case Mixed:
		for _, rate := range own {
			*rate = max(*rate, share(r)/4)
		}
	}
	return p
}

func drawWriter(r *rand.Rand, i int) writerPlan {
	w := writerPlan{
		sends: 10 + r.IntN(30), agent: r.IntN(3) == 0, weak: r.IntN(12) == 0, slow: r.IntN(2) == 0,
		batchSize: 1 + r.IntN(6), batchBytes: 1 << (6 + r.IntN(5)), retries: -1,
		batchTimeout: time.Duration(1 + r.Int64N(int64(100*time.Millisecond))),
		request:      time.Second + time.Duration(r.Int64N(int64(30*time.Second))),
		delivery:     5*time.Second + time.Duration(r.Int64N(int64(115*time.Second))),
		buffer:       64 << 20,
	}
	if r.IntN(4) == 0 {
		w.retries = r.IntN(4)
	}
	if r.IntN(4) == 0 {
		w.buffer = 4 << 10
	}
	if !w.weak && r.IntN(2) == 0 {
		w.producer = fmt.Sprintf("p%d", i)
	}
	for range r.IntN(3) {
		w.restarts = append(w.restarts, restart{before: 1 + r.IntN(w.sends), zombie: r.IntN(2) == 0})
	}
	return w
}

// drawFaults decides what may go wrong.
func (p *Plan) drawFaults(r *rand.Rand) {
	p.rates = rates{hold: share(r), pass: share(r) / 4, maxPass: 50 * time.Millisecond}
	switch p.Seed % 4 {
	case 0:
		p.Mode = Quiet
	case 1:
		p.Mode, p.skips = Single, r.IntN(120)
		one := [...]*float64{&p.rates.fail, &p.rates.lose, &p.rates.repeat, &p.rates.crash, &p.rates.drop, &p.rates.tamper}
		*one[r.IntN(len(one))] = 1
	default:
		p.rates.fail, p.rates.lose, p.rates.repeat, p.rates.drop = share(r), share(r), share(r), share(r)
		p.rates.crash, p.rates.tamper = share(r)/10, share(r)
		if r.IntN(2) == 0 {
			p.rates.maxPass = time.Duration(1+r.IntN(120)) * time.Second
		}
		if r.IntN(8) == 0 {
			p.rates.day = 0.003
		}
	}
}

// share draws how often something happens: often not at all, else rarely or
// every now and then.
func share(r *rand.Rand) float64 {
	return [...]float64{0, 0, 0.02, 0.05, 0.1, 0.3}[r.IntN(6)]
}

func (p *Plan) policy() policy {
	if p.chosen != nil {
		return p.chosen
	}
	if p.Mode == Scripted {
		return &scripted{scripts: p.scripts}
	}
	r := &random{Rand: rand.New(rand.NewPCG(p.Seed, 2)), rates: p.rates, budget: -1}
	switch p.Mode {
	case Quiet:
		r.budget = 0
	case Single:
		r.budget, r.skips = 1, p.skips
	}
	return r
}
