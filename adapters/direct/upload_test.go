package direct_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// holds reports whether the object has batches of partition p.
func holds(object []byte, p domain.PartitionID) bool {
	s, err := segment.Verify(object)
	if err != nil {
		panic(err)
	}
	return slices.ContainsFunc(s.Extents, func(e segment.Extent) bool { return e.Partition == p })
}

// session opens a producer session and returns a maker of its batches of one
// record for partition 0.
func (r *rig) session() func(sequence int, value string) ports.Batch {
	r.t.Helper()
	s, err := r.meta.RegisterProducer(r.t.Context(), "")
	if err != nil {
		r.t.Fatal(err)
	}
	return func(sequence int, value string) ports.Batch {
		return r.batch(0, batch.Producer{ID: s.ID, Epoch: s.Epoch, Sequence: domain.Sequence(sequence)}, value)
	}
}

// blockPuts holds the puts of partition p until the returned channel is closed.
func (r *rig) blockPuts(p domain.PartitionID) (gate chan struct{}) {
	gate = make(chan struct{})
	r.store.put.set(func(ctx context.Context, key string, body []byte) error {
		if holds(body, p) {
			select {
			case <-gate:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return r.store.Segments.Put(ctx, key, body)
	})
	return gate
}

func TestPut_RefusedForGoodIsDefinite(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		gate := make(chan struct{})
		r.store.put.set(func(ctx context.Context, key string, body []byte) error {
			<-gate
			if s, _ := segment.Verify(body); len(s.Extents) == 1 && holds(body, 0) && bytes.Contains(body, []byte("refused")) {
				return ports.StorageError("put", ports.Definite, errors.New("no permission"))
			}
			return r.store.Segments.Put(ctx, key, body)
		})
		next := r.session()
		named := r.append(t.Context(), next(0, "refused"))
		anonymous := r.append(t.Context(), r.batch(0, batch.NoProducer, "refused too"))
		behindNamed := r.append(t.Context(), next(1, "x"))
		behind := r.append(t.Context(), r.batch(0, batch.NoProducer, "y"))
		queued := r.append(t.Context(), r.batch(0, batch.NoProducer, "z"))
		other := r.append(t.Context(), r.batch(1, batch.NoProducer, "fine"))
		synctest.Wait()
		close(gate)
		r.refused(named, ports.Definite, domain.ErrStorage)
		r.refused(anonymous, ports.Definite, domain.ErrStorage)
		r.refused(behindNamed, ports.Transient, domain.ErrOutOfOrder)
		r.refused(behind, ports.Transient, domain.ErrOutOfOrder)
		r.refused(queued, ports.Transient, domain.ErrOutOfOrder)
		r.stored(other, 0)
		if v := r.values(0); len(v) != 0 {
			t.Errorf("stored %s behind what was refused", v)
		}
	})
}

func TestUpload_ThatFailsLeavesTheOrderOfThoseAroundIt(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		gate := make(chan struct{})
		r.store.put.set(func(ctx context.Context, key string, body []byte) error {
			if !bytes.Contains(body, []byte("last")) {
				select {
				case <-gate:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return r.store.Segments.Put(ctx, key, body)
		})
		ctx, cancel := context.WithCancel(t.Context())
		first := r.append(t.Context(), r.batch(0, batch.NoProducer, "first"))
		expired := r.append(ctx, r.batch(0, batch.NoProducer, "expired"))
		last := r.append(t.Context(), r.batch(0, batch.NoProducer, "last"))
		synctest.Wait()
		cancel()
		r.refused(expired, ports.Transient, context.Canceled)
		r.open(last)
		close(gate)
		r.stored(first, 0)
		r.stored(last, 1)
	})
}

func TestPut_FatalEndsTheWriter(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.store.put.set(func(context.Context, string, []byte) error {
			return ports.StorageError("put", ports.Fatal, errors.New("fsync failed"))
		})
		r.refused(r.append(t.Context(), r.batch(0, batch.NoProducer, "a")), ports.Fatal, domain.ErrStorage)
		synctest.Wait()
		err := r.writer.Append(t.Context(), []ports.Batch{r.batch(0, batch.NoProducer, "b")}, nil)
		if ports.KindOf(err) != ports.Fatal {
			t.Errorf("append afterwards: %v, want the fatal error", err)
		}
	})
}

func TestPut_OverAForeignObjectStoresNothing(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		foreign := true
		r.store.put.set(func(ctx context.Context, key string, body []byte) error {
			if foreign {
				foreign = false
				if err := r.store.Segments.Put(ctx, key, make([]byte, len(body))); err != nil {
					return err
				}
			}
			return r.store.Segments.Put(ctx, key, body)
		})
		b := r.batch(0, batch.NoProducer, "a")
		r.refused(r.append(t.Context(), b), ports.Transient, domain.ErrStorage)
		if r.tel.Count(ports.CorruptionFound) != 1 {
			t.Error("a foreign object was not reported")
		}
		r.stored(r.append(t.Context(), b), 0)
		if v := fmt.Sprint(r.values(0)); v != "[a]" {
			t.Errorf("stored %s, want [a]", v)
		}
	})
}

func TestPut_PausesLongerAndLonger(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		var times []time.Duration
		start := time.Now()
		r.store.put.set(func(ctx context.Context, key string, body []byte) error {
			if times = append(times, time.Since(start)); len(times) < 12 {
				return ports.StorageError("put", ports.Transient, errors.New("busy"))
			}
			return r.store.Segments.Put(ctx, key, body)
		})
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "a")), 0)
		for i := range len(times) - 1 {
			most := min(20*time.Millisecond<<i, 2*time.Second)
			if pause := times[i+1] - times[i]; pause < most/2 || pause > most {
				t.Errorf("pause %d is %s, want %s to %s", i, pause, most/2, most)
			}
		}
	})
}

func TestUploads_NeverExceedTheirLimit(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.MaxUploads = 3 }, func(t *testing.T, r *rig) {
		running, most := make(chan struct{}, 100), 0
		gate := make(chan struct{})
		r.store.put.set(func(ctx context.Context, key string, body []byte) error {
			running <- struct{}{}
			most = max(most, len(running))
			<-gate
			<-running
			return r.store.Segments.Put(ctx, key, body)
		})
		var answers []<-chan answer
		for i := range 20 {
			answers = append(answers, r.append(t.Context(), r.batch(0, batch.NoProducer, fmt.Sprint(i))))
			synctest.Wait()
		}
		close(gate)
		for i, a := range answers {
			r.stored(a, domain.Offset(i))
		}
		if most != 3 {
			t.Errorf("%d uploads at once, want 3", most)
		}
	})
}

func TestSeal_LeavesFollowersOfAStalledUploadInTheQueue(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		gate := r.blockPuts(0)
		stalled := r.append(t.Context(), r.batch(0, batch.NoProducer, "stalled"))
		time.Sleep(2 * time.Second)
		behind := r.append(t.Context(), r.batch(0, batch.NoProducer, "behind"), r.batch(1, batch.NoProducer, "beside"))
		if a := <-behind; a.i != 1 || a.Err != nil {
			t.Errorf("batch %d is settled first (%v), want the one beside the stalled upload", a.i, a.Err)
		}
		r.open(stalled)
		r.open(behind)
		close(gate)
		r.stored(stalled, 0)
		r.stored(behind, 1)
		if n := r.tel.Count(ports.SegmentPut); n != 3 {
			t.Errorf("%d objects, want 3", n)
		}
	})
}

func TestSeal_StopsAtFlushBytes(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.FlushBytes, c.MaxUploads = 1000, 1 }, func(t *testing.T, r *rig) {
		var sizes []int
		r.store.put.set(func(ctx context.Context, key string, body []byte) error {
			sizes = append(sizes, len(body))
			return r.store.Segments.Put(ctx, key, body)
		})
		var batches []ports.Batch
		for range 10 {
			batches = append(batches, r.batch(0, batch.NoProducer, strings.Repeat("x", 300)))
		}
		batches = append(batches, r.batch(0, batch.NoProducer, strings.Repeat("x", 5000)))
		answers := r.append(t.Context(), batches...)
		for range batches {
			if a := <-answers; a.Err != nil || a.Base != domain.Offset(a.i) {
				t.Errorf("batch %d: base %d, %v", a.i, a.Base, a.Err)
			}
		}
		if len(sizes) != 6 {
			t.Errorf("objects of %d bytes, want five of two batches and the large one", sizes)
		}
	})
}

func TestFlushInterval_WaitsForCompany(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.FlushInterval, c.FlushBytes = 250*time.Millisecond, 2000 }, func(t *testing.T, r *rig) {
		start := time.Now()
		first := r.append(t.Context(), r.batch(0, batch.NoProducer, "a"))
		time.Sleep(100 * time.Millisecond)
		second := r.append(t.Context(), r.batch(1, batch.NoProducer, "b"))
		r.open(first)
		r.stored(first, 0)
		if took := time.Since(start); took != 250*time.Millisecond {
			t.Errorf("left after %s, want 250ms", took)
		}
		r.stored(second, 0)
		if n := r.tel.Count(ports.SegmentPut); n != 1 {
			t.Errorf("%d objects, want 1", n)
		}
		start = time.Now()
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, strings.Repeat("x", 2000))), 1)
		if took := time.Since(start); took != 0 {
			t.Errorf("FlushBytes of batches waited for %s", took)
		}
	})
}

func TestFlushInterval_HoldsBesideAStalledUpload(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.FlushInterval = 100 * time.Millisecond }, func(t *testing.T, r *rig) {
		gate := r.blockPuts(0)
		stalled := r.append(t.Context(), r.batch(0, batch.NoProducer, "stalled"))
		time.Sleep(2 * time.Second)
		behind := r.append(t.Context(), r.batch(0, batch.NoProducer, "behind"))
		time.Sleep(time.Second)
		start := time.Now()
		r.stored(r.append(t.Context(), r.batch(1, batch.NoProducer, "beside")), 0)
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("left after %s, want 100ms", took)
		}
		close(gate)
		r.stored(stalled, 0)
		r.stored(behind, 1)
	})
}

func TestClose_DoesNotWaitForTheFlushInterval(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.FlushInterval = time.Hour }, func(t *testing.T, r *rig) {
		answers := r.append(t.Context(), r.batch(0, batch.NoProducer, "a"))
		r.close()
		r.stored(answers, 0)
	})
}

func TestReserve_IsOneCallForTheFirstSendAndFewForMany(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		var reserved []int
		r.meta.reserve.set(func(ctx context.Context, n int) ([]ports.SegmentRef, error) {
			reserved = append(reserved, n)
			return r.meta.Metadata.Reserve(ctx, n)
		})
		for i := range 200 {
			r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "x")), domain.Offset(i))
			synctest.Wait()
			if i == 0 && fmt.Sprint(reserved) != "[4]" {
				t.Errorf("a lone first send reserves %v, want [4]", reserved)
			}
		}
		if want := "[4 8 16 32 64 64 64]"; fmt.Sprint(reserved) != want {
			t.Errorf("reserved %v for 200 sends, want %s", reserved, want)
		}
	})
}

func TestReserve_OldIdsAreNotUsed(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "a")), 0)
		time.Sleep(time.Hour)
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "b")), 1)
		if n := r.tel.Count(ports.SegmentReserve); n != 2 {
			t.Errorf("%d reserves, want 2: the ids of an hour ago may be collected", n)
		}
	})
}

func TestReserve_IsRetried(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		failures := 5
		r.meta.reserve.set(func(ctx context.Context, n int) ([]ports.SegmentRef, error) {
			if failures--; failures >= 0 {
				return nil, ports.MetadataError("reserve", ports.Ambiguous, errCut)
			}
			return r.meta.Metadata.Reserve(ctx, n)
		})
		first := r.append(t.Context(), r.batch(0, batch.NoProducer, "a"))
		second := r.append(t.Context(), r.batch(0, batch.NoProducer, "b"))
		r.stored(first, 0)
		r.stored(second, 1)
		r.meta.reserve.set(func(context.Context, int) ([]ports.SegmentRef, error) {
			return nil, ports.MetadataError("reserve", ports.Definite, errors.New("read-only"))
		})
		time.Sleep(time.Hour)
		r.refused(r.append(t.Context(), r.batch(0, batch.NoProducer, "c")), ports.Definite, domain.ErrMetadata)
	})
}

func TestIdle_WriterHoldsNothing(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		for p := range domain.PartitionID(4) {
			r.stored(r.append(t.Context(), r.batch(p, batch.NoProducer, "a")), 0)
		}
		synctest.Wait()
		puts, commits := r.tel.Count(ports.SegmentPut), r.tel.Count(ports.MetadataCommit)
		if !r.writer.Idle() {
			t.Error("a writer with nothing to do is not idle")
		}
		time.Sleep(24 * time.Hour)
		if r.tel.Count(ports.SegmentPut) != puts || r.tel.Count(ports.MetadataCommit) != commits {
			t.Error("an idle writer has written")
		}
	})
}
