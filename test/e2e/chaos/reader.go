package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// follow reads the topic as it grows, with a new consumer whenever the stores of
// the last one are of no use any more.
func (r *Run) follow(name string) {
	for generation := 1; ; generation++ {
		p := r.stores(r.stopReading)
		if p == nil {
			return
		}
		again := r.followOnce(fmt.Sprintf("%s.%d", name, generation), p)
		_ = p.close() // its connections may be cut
		if !again {
			return
		}
	}
}

// followOnce reports whether another consumer is to follow.
func (r *Run) followOnce(actor string, p *pair) bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-r.stopReading:
			cancel()
		case <-ctx.Done():
		}
	}()
	building, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	c, err := streamhouse.NewConsumerBuilder().Cluster(p).Assign(r.cfg.Topic, streamhouse.FromStart()).Build(building)
	if err != nil {
		r.FailedOpens.Add(1)
		return sleep(r.stopReading, 100*time.Millisecond)
	}
	defer func() { _ = c.Close() }() // always nil
	for partition := range r.cfg.Partitions {
		r.recorder.Record(history.Event{Kind: history.Assign, Actor: actor, Topic: r.cfg.Topic, Incarnation: 1, Partition: partition})
	}
	for {
		messages, err := c.Poll(ctx, 500)
		for _, m := range messages {
			r.read(actor, m)
		}
		switch {
		case ctx.Err() != nil:
			return false
		case errors.Is(err, domain.ErrCorrupt), errors.Is(err, domain.ErrOutOfRange):
			r.fail("%s: %v", actor, err)
			return true
		case err != nil && domain.FateOf(err).Fatal:
			return true
		case err != nil && !sleep(r.stopReading, 50*time.Millisecond):
			return false
		}
	}
}
