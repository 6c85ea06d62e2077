package grpc

import (
	"context"
	"slices"
	"sync"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

// Planted bugs, see package mutant.
const (
	mutantTailsQueue = mutant.ID("grpc-tail-readers-queue-with-lagging-ones")
	mutantNoParts    = mutant.ID("grpc-one-client-may-borrow-everything")
)

// lending is what fetches may hold in memory: bytes that are being read or sent.
//
// A fetch far behind borrows all that it may be answered. If it must wait for that, so do
// others like it, but not those near the log's end: a quarter is kept for them, in small pieces. A
// fetch that waits for records borrows from a third budget, so that any number of consumers with
// nothing to do takes nothing from those that have.
type lending struct{ behind, near, waiting *budget }

func newLending(total int64) lending {
	near := total / 4
	return lending{newBudget(total-near, 4), newBudget(near, 8), newBudget(total, 4)}
}

// used is how many bytes are lent.
func (l *lending) used() int64 { return l.behind.used() + l.near.used() + l.waiting.used() }

// budget is a number of bytes that fetches borrow, first come first served among
// the clients that hold less than their part. A fetch may come to hold more than it
// borrowed, if a single batch is larger: then the others wait for longer.
type budget struct {
	most int64
	part int64 // what one client may hold, unless it is a single loan

	mu      sync.Mutex
	left    int64
	held    map[*client]int64
	waiters []*loan
}

type loan struct {
	c       *client
	n       int64
	granted chan struct{}
}

// newBudget makes a budget of which one client may hold one of so many parts.
func newBudget(most, parts int64) *budget {
	return &budget{most: most, part: most / parts, left: most, held: make(map[*client]int64)}
}

// try borrows n bytes if it need not wait for them.
func (b *budget) try(c *client, n int64) bool {
	return !b.withdraw(b.ask(c, n))
}

// borrow waits for n bytes, at most all that the budget has.
func (b *budget) borrow(ctx context.Context, c *client, n int64) error {
	l := b.ask(c, n)
	select {
	case <-l.granted:
		return nil
	case <-ctx.Done():
	}
	if !b.withdraw(l) {
		b.giveBack(c, n) // granted meanwhile
	}
	return context.Cause(ctx)
}

func (b *budget) ask(c *client, n int64) *loan {
	l := &loan{c, n, make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiters = append(b.waiters, l)
	b.grant()
	return l
}

// withdraw ends the wait for l. It reports false if l is granted.
func (b *budget) withdraw(l *loan) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiters, l)
	if i < 0 {
		return false
	}
	b.waiters = slices.Delete(b.waiters, i, i+1)
	b.grant()
	return true
}

func (b *budget) giveBack(c *client, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(c, -n)
	b.grant()
}

func (b *budget) add(c *client, n int64) {
	b.left -= n
	if b.held[c] += n; b.held[c] == 0 {
		delete(b.held, c)
	}
}

// grant goes through those that wait, in order. It passes over the clients that
// hold their part already, and ends at the first other one that has to wait.
func (b *budget) grant() {
	waiters := b.waiters[:0]
	for i, l := range b.waiters {
		held := b.held[l.c]
		switch {
		case held > 0 && held+l.n > b.part && !mutant.On(mutantNoParts):
			waiters = append(waiters, l)
			continue
		case l.n > b.left:
			waiters = append(waiters, b.waiters[i:]...)
			b.keep(waiters)
			return
		}
		b.add(l.c, l.n)
		close(l.granted)
	}
	b.keep(waiters)
}

// keep lets go of the loans behind those that still wait.
func (b *budget) keep(waiters []*loan) {
	clear(b.waiters[len(waiters):])
	b.waiters = waiters
}

func (b *budget) used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.most - b.left
}
