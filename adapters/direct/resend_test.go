package direct_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// resender brings its batches into one partition as an idempotent producer
// does: up to five in flight, and after a failure all from the first unsettled
// one on again, in order, until every one is stored.
type resender struct {
	r        *rig
	c        *chaos
	producer batch.Producer
	batches  []ports.Batch
	bases    []domain.Offset // -1 until stored
}

func (r *rig) newResender(c *chaos, p domain.PartitionID, name string, n int) *resender {
	s, err := r.meta.RegisterProducer(r.t.Context(), "")
	if err != nil {
		r.t.Fatal(err)
	}
	x := &resender{r: r, c: c, producer: batch.Producer{ID: s.ID, Epoch: s.Epoch}}
	for i := range n {
		producer := x.producer
		producer.Sequence = domain.Sequence(i)
		x.batches = append(x.batches, r.batch(p, producer, fmt.Sprintf("%s/%03d", name, i)))
		x.bases = append(x.bases, -1)
	}
	return x
}

func (x *resender) run() {
	const window = 5
	for rounds := 0; ; rounds++ {
		first := slices.Index(x.bases, -1)
		if first < 0 {
			return
		}
		if rounds > 1000 {
			x.r.t.Errorf("batch %d is not stored after %d attempts", first, rounds)
			return
		}
		var wg sync.WaitGroup
		for i := first; i < min(first+window, len(x.batches)); i++ {
			x.send(i, &wg)
			if x.c.int(3) == 0 {
				time.Sleep(time.Duration(x.c.int(20)) * time.Millisecond)
			}
		}
		wg.Wait()
	}
}

// send appends batch i, with a deadline that is often too short.
func (x *resender) send(i int, wg *sync.WaitGroup) {
	ctx, cancel := context.WithTimeout(x.r.t.Context(), time.Duration(1+x.c.int(5000))*time.Millisecond)
	wg.Add(1)
	err := x.r.writer.Append(ctx, x.batches[i:i+1], func(_ int, res ports.AppendResult) {
		defer wg.Done()
		defer cancel()
		if res.Err == nil {
			x.bases[i] = res.Base
		} else if !domain.FateOf(res.Err).Retry {
			x.r.t.Errorf("batch %d of a producer that keeps the order: %v", i, res.Err)
		}
	})
	if err != nil {
		cancel()
		wg.Done()
		if errors.Is(err, domain.ErrClosed) {
			x.r.t.Error(err)
		}
	}
}

func TestWriter_StoresEachBatchOfAProducerOnceHoweverOftenItIsSent(t *testing.T) {
	for seed := range uint64(60) {
		change := func(c *direct.Config) {
			c.Seed = seed + 1
			c.MaxUploads = 1 + int(seed%4)
			c.FlushBytes = 100 << (seed % 5)
			c.CommitTimeout = 3 * time.Second
			c.CommitBudget = 6 * time.Second
		}
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			inBubble(t, change, func(t *testing.T, r *rig) {
				c := &chaos{random: rand.New(rand.NewPCG(seed, 1)), faults: int(seed % 6)}
				c.install(r)
				var all []*resender
				var wg sync.WaitGroup
				for i := range 4 {
					x := r.newResender(c, domain.PartitionID(i%2), fmt.Sprint(i), 25)
					all = append(all, x)
					wg.Go(x.run)
				}
				wg.Wait()
				r.checkResenders(all)
			})
		})
	}
}

// checkResenders demands every batch of every producer once, in order, at the
// offset that was acknowledged.
func (r *rig) checkResenders(all []*resender) {
	stored := [][]string{r.values(0), r.values(1)}
	for i, x := range all {
		values := stored[i%2]
		last := domain.Offset(-1)
		for n, base := range x.bases {
			want := fmt.Sprintf("%d/%03d", i, n)
			if base <= last || int(base) >= len(values) || values[base] != want {
				r.t.Errorf("%s was acknowledged at %d, after %d; the partition holds %v", want, base, last, values)
				return
			}
			last = base
		}
	}
	if len(stored[0]) != 50 || len(stored[1]) != 50 {
		r.t.Errorf("%d and %d batches are stored, want 50 each", len(stored[0]), len(stored[1]))
	}
}
