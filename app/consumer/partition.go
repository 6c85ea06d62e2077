package consumer

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// noLimit is the limit of a partition that is read on and on.
const noLimit domain.Offset = math.MaxInt64

// partition is one assigned partition and how far it was read. Consumer.mu
// guards it.
type partition struct {
	topic string
	key   commit.PartitionKey

	// position is the offset of the next message to hand out.
	position domain.Offset
	// ahead is where the next fetch goes on: behind everything buffered.
	ahead domain.Offset
	// limit is where a bounded read stops, else noLimit.
	limit  domain.Offset
	paused bool

	// version rises when what is buffered and what is being fetched no longer
	// follow from position.
	version uint64
	// inFlight: the fetch in flight asks for this version.
	inFlight bool
	// stuck: an error is buffered, there is nothing to fetch behind it.
	stuck bool

	// untold is the failure that Poll has not returned yet.
	untold   error
	found    bool // the failure is corruption that this consumer found
	failures int
	retryAt  time.Time
}

// seek makes offset the next to hand out, as if nothing had been read or had
// failed before.
func (p *partition) seek(offset domain.Offset) {
	p.position = offset
	p.rewind()
	p.untold, p.found, p.failures, p.retryAt = nil, false, 0, time.Time{}
}

// rewind drops what was read ahead: the next fetch begins at position.
func (p *partition) rewind() {
	p.ahead = p.position
	p.inFlight, p.stuck = false, false
	if !mutant.On(mutantSeekKeepsBuffer) {
		p.version++
	}
}

// fetchable reports whether the next fetch should ask for the partition.
func (p *partition) fetchable(now time.Time) bool {
	return !p.paused && !p.stuck && p.untold == nil && p.below(p.ahead) && !now.Before(p.retryAt)
}

// atLimit reports whether a bounded read is done with the partition.
func (p *partition) atLimit() bool { return !p.below(p.position) }

// below reports whether a read may go on at offset.
func (p *partition) below(offset domain.Offset) bool {
	return offset < p.limit || p.limit == noLimit
}

// backoff is the wait after n failures in a row.
func (c *Consumer) backoff(n int) time.Duration {
	return min(c.cfg.RetryBackoff<<min(n-1, 16), maxBackoff)
}

// fail notes that p cannot be read at its position, to be told by a Poll and
// tried again after a while. Found says that it is corruption nobody has counted yet.
func (c *Consumer) fail(p *partition, err error, found bool) {
	if mutant.On(mutantSkipAfterError) {
		p.position++
	}
	p.rewind()
	p.untold, p.found = p.failure(err), found
	p.failures++
	p.retryAt = time.Now().Add(c.backoff(p.failures))
	c.failed = append(c.failed, p)
	if isGone(err) {
		c.silence(p)
	}
	// The fetch in flight may wait for longer than the retry should.
	c.stopFetch()
}

// silence lets the other partitions of p's deleted topic wait as p does: one
// error tells of them all.
func (c *Consumer) silence(p *partition) {
	for _, q := range c.parts {
		if q != p && q.key.Topic == p.key.Topic {
			q.rewind()
			q.failures, q.retryAt = p.failures, p.retryAt
		}
	}
}

// tell returns the oldest failure that was not told yet, nil if there is none.
func (c *Consumer) tell() error {
	if err := c.fetchErr; err != nil {
		c.fetchErr = nil
		return err
	}
	for len(c.failed) > 0 {
		p := c.failed[0]
		c.failed = c.failed[1:]
		err := p.untold
		p.untold = nil
		if err != nil && !p.paused {
			if p.found {
				c.events = append(c.events, ports.Event{Kind: ports.CorruptionFound, Count: 1, Err: err})
			}
			return err
		}
	}
	return nil
}

func comparePartitions(a, b *partition) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.key.Partition, b.key.Partition))
}

// allAtLimit reports whether a bounded read is done.
func (c *Consumer) allAtLimit() bool {
	return !slices.ContainsFunc(c.parts, func(p *partition) bool { return !p.paused && !p.atLimit() })
}
