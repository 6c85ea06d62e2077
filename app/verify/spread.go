package verify

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// spread gives the items to so many workers that do them, and their answers to
// done, one at a time on the goroutine of the caller. It returns when all have ended: with
// the first error, which ends the others, or with that of ctx.
func spread[T, R any](ctx context.Context, workers int, items iter.Seq[T], do func(context.Context, T) (R, error), done func(R) error) error {
	type answer struct {
		result R
		err    error
	}
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work, answers := make(chan T), make(chan answer)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(work)
		for item := range items {
			select {
			case work <- item:
			case <-ctx.Done():
				return
			}
		}
	})
	for range workers {
		wg.Go(func() {
			for item := range work {
				r, err := do(ctx, item)
				answers <- answer{r, err}
			}
		})
	}
	go func() { // ends with the workers, whose answers are taken to the last
		wg.Wait()
		close(answers)
	}()
	var first error
	for a := range answers {
		if first == nil && a.err == nil {
			a.err = done(a.result)
		}
		if first == nil && a.err != nil {
			first = a.err
			cancel()
		}
	}
	if first == nil {
		first = outer.Err()
	}
	return first
}

// attempts is how often a query is made that fails for a reason that may pass;
// firstPause is the pause after the first failure, the next is four times as long.
const (
	attempts   = 3
	firstPause = 100 * time.Millisecond
)

// ask makes a query, and makes it again if it fails for a reason that may pass.
// All queries are without effect, so an ambiguous error is none.
func ask[T any](ctx context.Context, query func() (T, error)) (T, error) {
	wait := firstPause
	for n := 1; ; n++ {
		answer, err := query()
		if err == nil || n == attempts || !passes(err) || !pause(ctx, wait) {
			return answer, err
		}
		wait *= 4
	}
}

func passes(err error) bool {
	kind := ports.KindOf(err)
	answered := errors.Is(err, ports.ErrObjectNotFound) || errors.Is(err, domain.ErrCorrupt) || errors.Is(err, domain.ErrClosed)
	return !answered && (kind == ports.Transient || kind == ports.Ambiguous)
}

// pause reports false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// The memory for objects that are being checked: so many units of so many bytes.
// A larger object waits until it is alone.
const (
	memoryUnits = 256
	memoryUnit  = 1 << 20
)

// budget bounds the bytes of the objects in memory. It holds a token for each
// unit in use, and has one taker at a time.
type budget chan struct{}

func newBudget() budget { return make(budget, memoryUnits) }

func unitsOf(size int64) int64 { return min(max(size, 0)/memoryUnit+1, memoryUnits) }

// take waits for the room that an object of so many bytes needs. It reports false if ctx
// ended.
func (b budget) take(ctx context.Context, size int64) bool {
	for range unitsOf(size) {
		select {
		case b <- struct{}{}:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (b budget) give(size int64) {
	for range unitsOf(size) {
		<-b
	}
}
