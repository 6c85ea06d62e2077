package sim

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// world is everything in one run.
type world struct {
	plan      Plan
	trace     trace
	scheduler *scheduler
	metadata  *memory.Metadata
	segments  *memory.Segments
	agents    *agents // nil if the plan has none

	mu         sync.Mutex
	processes  []*process
	checker    *history.Checker
	events     []history.Event
	sent       map[string]sent
	topics     map[string]*topicState
	violations []string
	active     int // writing workers that have not come to the heal
	writing    int // writing workers that have not ended
	running    int // workers that have not ended

	healed   chan struct{} // closed when faults end
	quiesced chan struct{} // closed when every writing worker has ended

	kept       Kept
	retainedAt time.Time // until when retention may have been applied
}

// sent is a record as its application made it.
type sent struct {
	record domain.Record
	ackAt  time.Time // its timestamp as acknowledged, zero before
	at     time.Time // when its sending began
}

// topicState is what the applications know of a topic.
type topicState struct {
	topic       domain.Topic
	incarnation int
	deleting    bool
	deletions   int
}

func newWorld(plan Plan) *world {
	w := &world{
		plan: plan, trace: trace{begin: time.Now()},
		metadata: memory.NewMetadata(memory.MetadataOptions{Seed: plan.Seed + 1}),
		segments: memory.NewSegments(),
		checker:  history.NewChecker(), sent: map[string]sent{}, topics: map[string]*topicState{},
		healed: make(chan struct{}), quiesced: make(chan struct{}),
	}
	w.scheduler = newScheduler(plan.policy(), &w.trace)
	if plan.agents > 0 {
		w.agents = newAgents(w)
	}
	return w
}

// violate notes that something is wrong.
func (w *world) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, fmt.Sprintf(format, args...))
}

// observe adds what a client in p saw to the history. The dead see nothing. A
// nil p is an observer outside of all processes.
func (w *world) observe(p *process, e history.Event) {
	if p != nil && p.dead.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.record(e)
}

func (w *world) record(e history.Event) {
	w.trace.add(entry{event: &e})
	w.events = append(w.events, e)
	if err := w.checker.Add(e); err != nil {
		w.violations = append(w.violations, "the simulator's history: "+err.Error())
	}
}

// random returns a generator of its own for one worker.
func (w *world) random(name string) *rand.Rand {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return rand.New(rand.NewPCG(w.plan.Seed, h))
}

// spawn starts a worker. Writing ones must end before the followers read to the
// end.
func (w *world) spawn(writing bool, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running++
	if writing {
		w.active++
		w.writing++
	}
	go func() {
		f()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running--
		w.scheduler.rouse() // there may be nothing left to wait for
		if writing {
			if w.writing--; w.writing == 0 {
				close(w.quiesced)
			}
		}
	}()
}

// awaitHeal tells that a writing worker has done its part under faults, and
// waits until those end.
func (w *world) awaitHeal() {
	w.mu.Lock()
	w.active--
	w.mu.Unlock()
	<-w.healed
}

func (w *world) quiet() bool { return w.plan.Mode == Quiet }

// strict reports whether every send must succeed that is tried often enough:
// nothing goes wrong, or one thing that kills nobody.
func (w *world) strict() bool {
	return w.plan.Mode != Mixed && w.plan.rates.crash == 0
}

// topic returns what is known of a topic now.
func (w *world) topic(name string) topicState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *w.topics[name]
}

func (w *world) count(of *int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *of
}
