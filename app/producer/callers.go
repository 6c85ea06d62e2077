package producer

import (
	"sync"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

// callers run the callbacks of partitions. Before a goroutine runs one, which
// may take long, it sees to it that another will look after those who wait: so a slow callback
// holds up its own partition only. While callbacks are quick, a few goroutines do them all.
type callers struct {
	p *Producer

	mu     sync.Mutex // after partition.mu
	queue  []*partition
	coming bool // a goroutine is about to look at the queue
}

// add has the callbacks of part run.
func (c *callers) add(part *partition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, part)
	c.summon()
}

// summon makes sure that somebody comes if the queue is not empty. Its caller
// holds mu.
func (c *callers) summon() {
	if len(c.queue) > 0 && !c.coming {
		c.coming = true
		c.p.spawn(c.run)
	}
}

func (c *callers) run() {
	for part := c.next(true); part != nil; part = c.next(false) {
		part.call()
	}
}

// next takes the first of the queue, or nil if it is empty, for somebody who had
// been summoned or is done with another.
func (c *callers) next(summoned bool) *partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	if summoned {
		c.coming = false
	}
	if len(c.queue) == 0 {
		return nil
	}
	part := c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	if !mutant.On(mutantCallsAlone) {
		c.summon()
	}
	return part
}
