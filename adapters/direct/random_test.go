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
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// chaos makes the stores of a rig slow and faulty, by a seed.
type chaos struct {
	mu     sync.Mutex
	random *rand.Rand
	// faults of ten calls go wrong.
	faults int
}

func (c *chaos) int(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.IntN(n)
}

// call makes one call slow, and fails it before or after its effect at random.
func (c *chaos) call(ctx context.Context, do func() error) error {
	c.mu.Lock()
	fault := c.random.IntN(10) < c.faults
	how := c.random.IntN(4)
	delay := time.Duration(c.random.ExpFloat64() * float64(20*time.Millisecond))
	if c.random.IntN(20) == 0 {
		delay *= 100
	}
	c.mu.Unlock()
	time.Sleep(delay)
	cause := errors.New("planted")
	switch {
	case !fault:
		return do()
	case how == 0:
		return ports.StorageError("call", ports.Transient, cause)
	case how == 1:
		return ports.StorageError("call", ports.Ambiguous, cause)
	case how == 2:
		<-ctx.Done()
		return ctx.Err()
	}
	_ = do()
	return cause
}

func (c *chaos) install(r *rig) {
	r.meta.reserve.set(func(ctx context.Context, n int) (refs []ports.SegmentRef, err error) {
		err = c.call(ctx, func() (err error) { refs, err = r.meta.Metadata.Reserve(ctx, n); return err })
		return refs, err
	})
	r.meta.commit.set(func(ctx context.Context, s []commit.Segment) (results []ports.CommitResult, err error) {
		err = c.call(ctx, func() (err error) { results, err = r.meta.Metadata.Commit(ctx, s); return err })
		return results, err
	})
	r.store.put.set(func(ctx context.Context, key string, body []byte) error {
		return c.call(ctx, func() error { return r.store.Segments.Put(ctx, key, body) })
	})
}

func (c *chaos) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = 0
}

// sent is one batch of one record and what became of it.
type sent struct {
	partition domain.PartitionID
	value     string
	answers   <-chan answer
}

func TestWriter_KeepsItsPromisesUnderRandomFaults(t *testing.T) {
	for seed := range uint64(150) {
		change := func(c *direct.Config) {
			c.Seed = seed + 1
			c.MaxUploads = 1 + int(seed%4)
			c.FlushBytes = 100 << (seed % 5)
			c.InFlightBytes = 300 << (seed % 7)
			c.CommitTimeout = 5 * time.Second
			c.CommitBudget = 20 * time.Second
			c.FlushInterval = time.Duration(seed%3) * 10 * time.Millisecond
		}
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			inBubble(t, change, func(t *testing.T, r *rig) {
				c := &chaos{random: rand.New(rand.NewPCG(seed, 0)), faults: int(seed % 6)}
				c.install(r)
				r.checkHistory(r.appendAtRandom(c))
			})
		})
	}
}

// appendAtRandom appends 60 batches with deadlines of all lengths, heals the
// stores, and appends one more to each partition, which must succeed.
func (r *rig) appendAtRandom(c *chaos) []sent {
	var history []sent
	for i := range 60 {
		s := sent{partition: domain.PartitionID(c.int(4)), value: fmt.Sprintf("%03d", i)}
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Duration(1+c.int(1<<(1+i%15)))*time.Millisecond)
		r.t.Cleanup(cancel)
		answers := make(chan answer, 2)
		err := r.writer.Append(ctx, []ports.Batch{r.batch(s.partition, batch.NoProducer, s.value)},
			func(i int, res ports.AppendResult) { answers <- answer{i, res} })
		if err != nil {
			answers <- answer{0, ports.AppendResult{Base: -1, Err: err}}
		}
		s.answers = answers
		history = append(history, s)
		time.Sleep(time.Duration(c.int(30)) * time.Millisecond)
	}
	c.heal()
	time.Sleep(10 * time.Minute)
	for p := range domain.PartitionID(4) {
		value := fmt.Sprint("last ", p)
		answers := r.append(context.Background(), r.batch(p, batch.NoProducer, value))
		time.Sleep(time.Minute)
		if len(answers) == 0 {
			r.t.Fatalf("partition %d takes no batches after all faults healed", p)
		}
		history = append(history, sent{p, value, answers})
	}
	return history
}

// checkHistory compares what the appends were told with what is stored.
func (r *rig) checkHistory(history []sent) {
	synctest.Wait()
	stored := make([][]string, 4)
	for p := range stored {
		stored[p] = r.values(domain.PartitionID(p))
		if !slices.IsSorted(stored[p]) || len(slices.Compact(slices.Clone(stored[p]))) != len(stored[p]) {
			r.t.Errorf("partition %d holds repeated or reordered batches: %v", p, stored[p])
		}
	}
	for _, s := range history {
		if len(s.answers) != 1 {
			r.t.Errorf("%s was settled %d times", s.value, len(s.answers))
			continue
		}
		a := <-s.answers
		at := slices.Index(stored[s.partition], s.value)
		switch {
		case a.Err == nil && domain.Offset(at) != a.Base:
			r.t.Errorf("%s was acknowledged at %d and is at %d", s.value, a.Base, at)
		case a.Err != nil && domain.FateOf(a.Err).Stored == domain.StoredNo && at >= 0:
			r.t.Errorf("%s is stored at %d, though its answer was %v", s.value, at, a.Err)
		}
	}
}
