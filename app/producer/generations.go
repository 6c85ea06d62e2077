package producer

import (
	"sync"

	"github.com/streamhouse/streamhouse/domain"
)

// generations counts the batches that are not over yet, in groups that end with
// each flush: a flush waits for its own group and those before it, and not for what is sent
// after it began.
type generations struct {
	mu     sync.Mutex
	first  uint64 // number of groups[0]
	groups []generation
	closed bool
}

type generation struct {
	live int
	over chan struct{} // closed when no batch of this or an earlier group lives
}

func newGenerations() *generations {
	return &generations{groups: []generation{{over: make(chan struct{})}}}
}

// begin counts a new batch and returns its group. domain.ErrClosed after close.
func (g *generations) begin() (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return 0, domain.ErrClosed
	}
	newest := len(g.groups) - 1
	g.groups[newest].live++
	return g.first + uint64(newest), nil
}

// end says that a batch of the group is over, its callbacks included.
func (g *generations) end(group uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.groups[group-g.first].live--
	g.sweep()
}

// flush ends the newest group. The channel closes when all batches begun before
// are over; it is nil if they are already.
func (g *generations) flush() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	newest := g.groups[len(g.groups)-1]
	if len(g.groups) == 1 && newest.live == 0 {
		return nil
	}
	g.groups = append(g.groups, generation{over: make(chan struct{})})
	g.sweep()
	return newest.over
}

// close refuses new batches.
func (g *generations) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

func (g *generations) sweep() {
	for len(g.groups) > 1 && g.groups[0].live == 0 {
		close(g.groups[0].over)
		g.groups = g.groups[1:]
		g.first++
	}
}
