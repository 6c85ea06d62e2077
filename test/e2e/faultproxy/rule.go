package faultproxy

import (
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
)

// Rule says which requests fail, and how.
type Rule struct {
	// Method is the method of the requests, and empty for all.
	Method string
	// Path is a part of the path of the requests: "/bucket/", ".seg"; empty for all.
	Path string
	// Query is a parameter that the requests have, as "uploads" or "list-type";
	// empty for all.
	Query string
	// After lets the first matching requests pass.
	After int
	// Times is how many requests fail; 0 for no end.
	Times int
	// Chance is how probable the fault is for each matching request; 0 for always.
	Chance float64

	// Fault is what happens to them. A rule without one only counts them.
	Fault Fault
}

// Injected is a rule at work.
type Injected struct {
	Rule
	rules *rules
	seen  int // matching requests
	fired int
}

// Fired is how many requests the rule has failed, or counted.
func (i *Injected) Fired() int {
	i.rules.mu.Lock()
	defer i.rules.mu.Unlock()
	return i.fired
}

// Remove lets requests pass that the rule would have failed.
func (i *Injected) Remove() {
	i.rules.mu.Lock()
	defer i.rules.mu.Unlock()
	i.rules.remove(i)
}

// rules decide what becomes of a request, and count.
type rules struct {
	mu       sync.Mutex
	luck     *rand.Rand
	active   []*Injected
	requests map[string]int // by method
	faults   map[string]int // by the fault's name
}

func newRules(seed uint64) *rules {
	return &rules{luck: rand.New(rand.NewPCG(seed, 0)), requests: make(map[string]int), faults: make(map[string]int)}
}

func (r *rules) add(rule Rule) *Injected {
	r.mu.Lock()
	defer r.mu.Unlock()
	added := &Injected{Rule: rule, rules: r}
	r.active = append(r.active, added)
	return added
}

func (r *rules) remove(gone *Injected) {
	kept := r.active[:0:0]
	for _, rule := range r.active {
		if rule != gone {
			kept = append(kept, rule)
		}
	}
	r.active = kept
}

func (r *rules) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active = nil
}

// decide counts a request and returns the fault that the first rule that wants
// to has for it.
func (r *rules) decide(request *http.Request) (Fault, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests[request.Method]++
	for _, rule := range r.active {
		if !rule.matches(request) || !rule.fires(r.luck) {
			continue
		}
		rule.fired++
		if rule.Fault.act != nil {
			r.faults[rule.Fault.name]++
			return rule.Fault, true
		}
	}
	return Fault{}, false
}

func (i *Injected) matches(request *http.Request) bool {
	return (i.Method == "" || i.Method == request.Method) &&
		strings.Contains(request.URL.Path, i.Path) &&
		(i.Query == "" || request.URL.Query().Has(i.Query))
}

func (i *Injected) fires(luck *rand.Rand) bool {
	i.seen++
	switch {
	case i.seen <= i.After, i.Times > 0 && i.fired >= i.Times:
		return false
	default:
		return i.Chance == 0 || luck.Float64() < i.Chance
	}
}

func (r *rules) count(method string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests[method]
}

func (r *rules) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.faults)
}
