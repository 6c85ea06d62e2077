package consumer_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// TestClose_AtEveryStepEndsEverything closes the consumer in each of its
// fetches, while others poll, seek and pause.
func TestClose_AtEveryStepEndsEverything(t *testing.T) {
	steps := int64(0)
	for more := true; more; steps++ {
		inBubble(t, func(t *testing.T, w *world) { more = closeAt(t, w, steps) })
	}
	if steps < 6 {
		t.Errorf("the consumer was closed in %d fetches only", steps)
	}
}

// closeAt closes a consumer in its fetch number step, and reports whether it
// came so far.
func closeAt(t *testing.T, w *world, step int64) bool {
	topic := w.topic("orders", 2)
	for range 4 {
		w.append(topic, 0, 3)
		w.append(topic, 1, 3)
	}
	c := w.reader(t, func(cfg *consumer.Config) { cfg.FetchBytes = 1 })
	var closing sync.Once
	var polling sync.WaitGroup
	w.change(func() {
		w.fault = func(commit.PartitionKey, domain.Offset, *ports.FetchedPartition) {
			if w.fetches.Load() == step+1 {
				closing.Do(func() { go func() { _ = c.Close() }() }) // the bubble waits for it
			}
		}
	})
	must(t, c.Assign(t.Context(), "orders", consumer.Start()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 3 {
		polling.Go(func() {
			for n := 0; ; n++ {
				messages, err := c.Poll(ctx, 2)
				if err != nil {
					if !errors.Is(err, domain.ErrClosed) && ctx.Err() == nil {
						t.Errorf("closed in fetch %d: %v, want domain.ErrClosed", step, err)
					}
					return
				}
				for _, m := range messages {
					check(t, m)
				}
				if i == 0 && n == 1 {
					// Closed by now, or not: only that it returns matters.
					_ = c.Seek(ctx, "orders", 0, consumer.At(3))
					_ = c.Pause("orders", 1)
					_ = c.Resume("orders", 1)
				}
			}
		})
	}
	polling.Wait()
	return w.fetches.Load() > step
}
