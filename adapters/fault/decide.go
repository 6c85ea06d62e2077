package fault

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

// Decision says how one call goes. The zero Decision lets it through.
type Decision struct {
	// Delay is how long the call takes to arrive. If the context ends before,
	// the call is not made and fails as its context did.
	Delay time.Duration
	// Fail is the answer of a call that is not made.
	Fail error
	// Repeat makes the call twice; the second answer counts.
	Repeat bool
	// Lose replaces the answer of a call that was made.
	Lose error
	// Linger is how long the answer takes to arrive.
	Linger time.Duration
}

// Decide lets rule judge each call. Rule may be called by several goroutines.
func Decide(rule func(Call) Decision) Interceptor {
	return func(ctx context.Context, i *Invocation) error {
		d := rule(i.Call)
		if err := wait(ctx, d.Delay); err != nil {
			return contextError(i.Call, ports.Transient, err)
		}
		if d.Fail != nil {
			return d.Fail
		}
		err := i.Run(ctx)
		if d.Repeat {
			err = i.Run(ctx)
		}
		if d.Lose != nil {
			return d.Lose
		}
		if late := wait(ctx, d.Linger); late != nil {
			return contextError(i.Call, ports.Ambiguous, late)
		}
		return err
	}
}

// None lets every call through.
func None(ctx context.Context, i *Invocation) error { return i.Run(ctx) }

// Rates are the shares of calls, from 0 to 1, that go wrong in each way.
type Rates struct {
	Delay, Fail, Lose, Repeat float64
	// MaxDelay bounds what Delay adds before a call, and again after it.
	MaxDelay time.Duration
}

// Random lets calls go wrong at rates r. One seed gives one list of decisions;
// which call gets which depends on their order.
func Random(seed uint64, r Rates) Interceptor {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	return Decide(func(c Call) Decision {
		mu.Lock()
		defer mu.Unlock()
		return r.draw(random, c)
	})
}

func (r Rates) draw(random *rand.Rand, c Call) Decision {
	var d Decision
	delayed := random.Float64() < r.Delay
	if delayed && r.MaxDelay > 0 {
		d.Linger = time.Duration(random.Int64N(int64(r.MaxDelay)))
		d.Delay = time.Duration(random.Int64N(int64(r.MaxDelay)))
	}
	if random.Float64() < r.Fail {
		d.Fail = c.Error(ports.Transient)
	}
	if random.Float64() < r.Lose {
		d.Lose = c.Error(ports.Ambiguous)
	}
	d.Repeat = random.Float64() < r.Repeat
	return d
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func contextError(c Call, kind ports.Kind, cause error) error {
	err := c.Error(kind).(*ports.Error)
	err.Err = cause
	return err
}
