package consumer

import (
	"context"
	"errors"
	"iter"

	"github.com/streamhouse/streamhouse/domain"
)

// Records returns the messages as Poll does, one by one. An error comes with a
// zero Message, and the iteration goes on with the other partitions unless the loop ends
// it. It ends after ctx's error, domain.ErrClosed or ErrNotAssigned.
//
// A message counts as polled when the loop gets it: the loop may seek, pause
// and ask for positions, and another iteration or Poll goes on where it stopped.
func (c *Consumer) Records(ctx context.Context) iter.Seq2[domain.Message, error] {
	return func(yield func(domain.Message, error) bool) {
		c.each(ctx, yield, false)
	}
}

// ReadToEnd is Records up to the high watermarks that the assigned partitions
// have when the iteration begins: it ends without an error when each of them has been read
// up to there, at once if there is nothing. Of the messages that come
// later none is returned. A partition that is paused is not waited for.
//
// While it goes on, no poll gets a message behind those watermarks, and another ReadToEnd
// is refused with ErrBusy.
func (c *Consumer) ReadToEnd(ctx context.Context) iter.Seq2[domain.Message, error] {
	return func(yield func(domain.Message, error) bool) {
		if err := c.setLimits(ctx); err != nil {
			yield(domain.Message{}, err)
			return
		}
		defer c.clearLimits()
		c.each(ctx, yield, true)
	}
}

// each yields messages and errors until there can be no more, or the loop ends.
func (c *Consumer) each(ctx context.Context, yield func(domain.Message, error) bool, toEnd bool) {
	one := make([]domain.Message, 1)
	for {
		err := c.one(ctx, one, toEnd)
		if errors.Is(err, errAtLimits) {
			return
		}
		if !yield(one[0], err) || err != nil && (ctx.Err() != nil || isLast(err)) {
			return
		}
	}
}

// one polls a single message into dst[0], which it zeroes on an error.
func (c *Consumer) one(ctx context.Context, dst []domain.Message, toEnd bool) error {
	began := c.traceFrom()
	if _, err := c.pollOnce(ctx, dst[:0:1], 1, toEnd); err != nil {
		dst[0] = domain.Message{}
		return err
	}
	c.trace(ctx, began, dst[:1])
	return nil
}

func isLast(err error) bool {
	return errors.Is(err, domain.ErrClosed) || errors.Is(err, ErrNotAssigned)
}

// setLimits bounds all partitions at their present high watermarks.
func (c *Consumer) setLimits(ctx context.Context) error {
	parts, err := c.present(ctx)
	if err != nil {
		return err
	}
	bounds, err := c.bounds(ctx, parts)
	if err != nil {
		return err
	}
	for _, b := range bounds {
		if b.err != nil {
			return b.err
		}
	}
	c.mu.Lock()
	defer c.leave()
	if c.bounded {
		return ErrBusy
	}
	c.bounded = true
	for _, p := range c.parts {
		p.limit = p.position
	}
	for i, at := range parts {
		if p, err := c.find(at.topic, at.key.Partition); err == nil && p.key == at.key {
			c.limit(p, bounds[i])
		}
	}
	return nil
}

// limit bounds p. To stand above its high watermark is an error to tell: it
// would be none to read up to there.
func (c *Consumer) limit(p *partition, b bound) {
	p.limit = b.end
	if p.position > b.end {
		c.fail(p, &domain.OutOfRangeError{LogStart: b.start, HighWatermark: b.end}, false)
	}
}

// present returns a copy of all assigned partitions, those included that a
// topic assigned as a whole has got by now.
func (c *Consumer) present(ctx context.Context) ([]*partition, error) {
	c.mu.Lock()
	err, names := c.usable(ctx), c.wholeNames()
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	topics, err := c.look(ctx, names)
	if err != nil {
		return nil, fetchError(err)
	}
	c.mu.Lock()
	defer c.leave()
	known := len(c.parts)
	for _, t := range topics {
		c.widen(t)
	}
	if len(c.parts) > known {
		c.replan() // the fetch in flight may wait for long, and does not ask for the new ones
	}
	return snapshot(c.parts), nil
}

func (c *Consumer) clearLimits() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bounded = false
	for _, p := range c.parts {
		p.limit = noLimit
	}
	c.replan()
}
