package direct_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// TestClose_AtEveryStepEndsEverything closes the writer in each of its calls of
// a store, which then succeeds or fails once, while others append.
func TestClose_AtEveryStepEndsEverything(t *testing.T) {
	for _, failing := range []bool{false, true} {
		steps := 0
		for more := true; more; steps++ {
			synctest.Test(t, func(t *testing.T) { more = closeAt(t, int64(steps), failing) })
		}
		if steps < 10 {
			t.Errorf("the writer was closed in %d calls only", steps)
		}
	}
}

// closeAt closes a writer in its call number step, and reports whether it came
// so far.
func closeAt(t *testing.T, step int64, failing bool) bool {
	r := newRig(t, func(c *direct.Config) { c.FlushBytes, c.MaxUploads, c.InFlightBytes = 150, 2, 400 })
	var calls atomic.Int64
	var closing sync.WaitGroup
	reached := func() error {
		if calls.Add(1)-1 != step {
			return nil
		}
		closing.Go(r.close)
		time.Sleep(time.Millisecond)
		if failing {
			return ports.StorageError("call", ports.Transient, errCut)
		}
		return nil
	}
	r.meta.reserve.set(func(ctx context.Context, n int) ([]ports.SegmentRef, error) {
		if err := reached(); err != nil {
			return nil, err
		}
		return r.meta.Metadata.Reserve(ctx, n)
	})
	r.meta.commit.set(func(ctx context.Context, s []commit.Segment) ([]ports.CommitResult, error) {
		if err := reached(); err != nil {
			return nil, err
		}
		return r.meta.Metadata.Commit(ctx, s)
	})
	r.store.put.set(func(ctx context.Context, key string, body []byte) error {
		if err := reached(); err != nil {
			return err
		}
		return r.store.Segments.Put(ctx, key, body)
	})
	var appending sync.WaitGroup
	for p := range domain.PartitionID(3) {
		appending.Go(func() { appendUntilClosed(t, r, p) })
	}
	appending.Wait()
	closing.Wait()
	r.close()
	synctest.Wait()
	if !r.writer.Idle() {
		t.Errorf("closed in call %d: the writer is not idle", step)
	}
	return calls.Load() > step
}

// appendUntilClosed appends batches to one partition, and demands that each one
// taken over is settled once, as what became of it.
func appendUntilClosed(t *testing.T, r *rig, p domain.PartitionID) {
	var stored []string
	for i := range 6 {
		value := fmt.Sprintf("%d/%d", p, i)
		answers := make(chan answer, 2)
		err := r.writer.Append(context.Background(), []ports.Batch{r.batch(p, batch.NoProducer, value)}, func(i int, res ports.AppendResult) {
			answers <- answer{i, res}
		})
		if err != nil {
			if !errors.Is(err, domain.ErrClosed) {
				t.Errorf("Append: %v, want domain.ErrClosed", err)
			}
			break
		}
		if a := <-answers; a.Err == nil {
			stored = append(stored, value)
		}
		time.Sleep(time.Millisecond)
		if len(answers) > 0 {
			t.Errorf("%s was settled twice", value)
		}
	}
	if got := r.values(p); !slices.Equal(got, stored) {
		t.Errorf("partition %d holds %q, acknowledged were %q", p, got, stored)
	}
}
