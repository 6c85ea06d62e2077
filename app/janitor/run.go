package janitor

import (
	"context"
	"math"
	"sync"
	"time"
)

// Run makes passes of all loops until ctx ends, and returns when the last has
// stopped. Failures are told to telemetry and in Status; the next pass tries again.
//
// Compaction has nothing to do where nothing was committed, so it waits for a wake-up of the
// metadata store: an idle log costs five queries in each Interval, and no request to the segment store but for the
// sweep. The first sweep comes at a random moment of the first SweepInterval, so that processes that live
// for a shorter time sweep too, now and then.
func (j *Janitor) Run(ctx context.Context) {
	committed := make(chan struct{}, 1) // holds the one wake-up that was not acted on
	committed <- struct{}{}             // what was committed before counts too
	defer j.metadata.Subscribe(func() {
		select {
		case committed <- struct{}{}:
		default:
		}
	})()
	var wg sync.WaitGroup
	wg.Go(func() {
		for j.pause(ctx, j.cfg.Interval) {
			_ = j.pass(ctx, retention, new(Report)) // it is in the status and told to telemetry
			_ = j.pass(ctx, collection, new(Report))
		}
	})
	wg.Go(func() {
		for ok := pause(ctx, time.Duration(j.draw(int(j.cfg.SweepInterval)))); ok; ok = j.pause(ctx, j.cfg.SweepInterval) {
			_ = j.pass(ctx, sweep, new(Report))
		}
	})
	if j.cfg.CompactExtentBytes > 0 {
		wg.Go(func() { j.compactAfter(ctx, committed) })
	}
	wg.Wait()
}

// compactAfter compacts in each Interval in which something was committed, and
// as long as a pass leaves something to the next.
func (j *Janitor) compactAfter(ctx context.Context, committed <-chan struct{}) {
	for {
		select {
		case <-committed:
		case <-ctx.Done():
			return
		}
		for again := true; again; again = j.compact.again.Load() {
			if !j.pause(ctx, max(j.cfg.Interval, j.cfg.CompactAfter)) {
				return
			}
			_ = j.pass(ctx, compaction, new(Report))
		}
	}
}

// pause waits for d and up to a quarter more, so that many janitors do not work
// at the same moments. It reports false if ctx ended.
func (j *Janitor) pause(ctx context.Context, d time.Duration) bool {
	longest := min(d/4, math.MaxInt64-d)
	return pause(ctx, d+time.Duration(j.draw(int(longest))))
}

// pause waits for d, and reports false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
