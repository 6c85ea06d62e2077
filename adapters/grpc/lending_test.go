package grpc

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// borrower borrows in a goroutine of its own and notes in which order it was served.
type borrower struct {
	b      *budget
	mu     sync.Mutex
	served []string
}

func (q *borrower) borrow(ctx context.Context, name string, c *client, n int64) {
	go func() {
		if q.b.borrow(ctx, c, n) == nil {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.served = append(q.served, name)
		}
	}()
	synctest.Wait()
}

func (q *borrower) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Equal(q.served, want) {
		t.Errorf("served were %q, want %q", q.served, want)
	}
	q.served = nil
}

func TestBudget_ServesInTurnButForWhoHoldsItsPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &borrower{b: newBudget(100, 4)}
		greedy, modest, large := new(client), new(client), new(client)
		for _, name := range []string{"g1", "g2", "g3"} {
			q.borrow(t.Context(), name, greedy, 20) // a part is 25
		}
		q.expect(t, "g1")
		q.borrow(t.Context(), "large", large, 100) // a single loan may be larger
		q.borrow(t.Context(), "modest", modest, 10)
		q.expect(t) // modest has room, but it is not its turn
		q.b.giveBack(greedy, 20)
		q.expect(t, "g2") // g2 came before large
		q.b.giveBack(greedy, 20)
		q.expect(t, "g3")
		q.b.giveBack(greedy, 20)
		q.expect(t, "large")
		q.b.giveBack(large, 100)
		q.expect(t, "modest")
		if q.b.try(modest, 16) || !q.b.try(modest, 15) || !q.b.try(greedy, 75) || q.b.try(large, 1) {
			t.Error("what has room is refused, or what has none is lent")
		}
		q.b.giveBack(modest, 25)
		q.b.giveBack(greedy, 75)
		if q.b.used() != 0 || len(q.b.held) != 0 || len(q.b.waiters) != 0 {
			t.Errorf("left over: %+v", q.b)
		}
	})
}

func TestBudget_LetsWhoWaitsLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &borrower{b: newBudget(100, 1)}
		a, b := new(client), new(client)
		q.borrow(t.Context(), "a", a, 60)
		ctx, leave := context.WithCancelCause(t.Context())
		q.borrow(ctx, "leaves", b, 100)
		q.borrow(t.Context(), "small", b, 40)
		q.expect(t, "a")
		leave(errors.New("gone"))
		q.expect(t, "small")
		q.b.giveBack(a, 60)
		q.b.giveBack(b, 40)
		if q.b.used() != 0 || len(q.b.held) != 0 {
			t.Errorf("left over: %+v", q.b)
		}
	})
}

// TestBudget_KeepsItsBoundsUnderLoad has clients borrow and give back at random,
// some of whom leave.
func TestBudget_KeepsItsBoundsUnderLoad(t *testing.T) {
	b := newBudget(1000, 4)
	clients := []*client{new(client), new(client), new(client)}
	check := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		var sum int64
		for _, n := range b.held {
			sum += n
		}
		if b.left < 0 || sum != b.most-b.left {
			t.Errorf("%d are left of %d, %d held", b.left, b.most, sum)
		}
	}
	var wg sync.WaitGroup
	for seed := range uint64(24) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1))
			c := clients[seed%3]
			for range 500 {
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(3) == 0 {
					cancel()
				}
				n := 1 + random.Int64N(400)
				if b.borrow(ctx, c, n) == nil {
					check()
					b.giveBack(c, n)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if b.used() != 0 || len(b.held) != 0 || len(b.waiters) != 0 {
		t.Errorf("left over: %+v", b)
	}
}
