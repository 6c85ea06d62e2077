package direct_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

func TestAppend_WhoseContextEndsInTheQueueIsNotStored(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.MaxUploads = 1 }, func(t *testing.T, r *rig) {
		gate := r.blockPuts(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := r.append(t.Context(), r.batch(0, batch.NoProducer, "first"))
		queued := r.append(ctx, r.batch(0, batch.NoProducer, "queued"), r.batch(1, batch.NoProducer, "queued"))
		last := r.append(t.Context(), r.batch(1, batch.NoProducer, "last"))
		r.refused(queued, ports.Transient, domain.ErrTimeout)
		r.refused(queued, ports.Transient, context.DeadlineExceeded)
		close(gate)
		r.stored(first, 0)
		r.stored(last, 0)
		if v := fmt.Sprint(r.values(0), r.values(1)); v != "[first] [last]" {
			t.Errorf("stored %s, want [first] [last]", v)
		}
	})
}

func TestAppend_WhoseContextEndsDuringTheUploadIsNotStored(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		gate := r.blockPuts(0)
		ctx, cancel := context.WithCancel(t.Context())
		both := r.append(ctx, r.batch(0, batch.NoProducer, "gone"), r.batch(1, batch.NoProducer, "gone too"))
		synctest.Wait()
		cancel()
		r.refused(both, ports.Transient, context.Canceled)
		r.refused(both, ports.Transient, context.Canceled)
		synctest.Wait()
		if !r.writer.Idle() {
			t.Error("the upload of batches that are all settled goes on")
		}
		close(gate)
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "next")), 0)
		if v := fmt.Sprint(r.values(0), r.values(1)); v != "[next] []" {
			t.Errorf("stored %s, want [next] []", v)
		}
	})
}

func TestAppend_LeavesOutOfTheCommitOnlyWhatExpired(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.MaxUploads = 1 }, func(t *testing.T, r *rig) {
		gate := r.blockPuts(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := r.append(t.Context(), r.batch(0, batch.NoProducer, "first"))
		synctest.Wait()
		a := r.append(t.Context(), r.batch(0, batch.NoProducer, "a"))
		b := r.append(ctx, r.batch(0, batch.NoProducer, "b"))
		c := r.append(t.Context(), r.batch(0, batch.NoProducer, "c"))
		r.store.put.set(func(ctx context.Context, key string, body []byte) error {
			time.Sleep(2 * time.Second)
			return r.store.Segments.Put(ctx, key, body)
		})
		close(gate)
		r.stored(first, 0)
		r.refused(b, ports.Transient, domain.ErrTimeout)
		r.stored(a, 1)
		r.stored(c, 2)
		if v := fmt.Sprint(r.values(0)); v != "[first a c]" {
			t.Errorf("stored %s, want [first a c]", v)
		}
	})
}

func TestAppend_BlocksWhileThereIsNoRoom(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.InFlightBytes, c.MaxUploads = 300, 1 }, func(t *testing.T, r *rig) {
		gate := r.blockPuts(0)
		first := r.append(t.Context(), r.batch(0, batch.NoProducer, strings.Repeat("x", 150)))
		through := make(chan struct{}, 3)
		for i := range 3 {
			go func() {
				b := r.batch(1, batch.NoProducer, fmt.Sprint(i, strings.Repeat("x", 150)))
				if err := r.writer.Append(t.Context(), []ports.Batch{b}, func(int, ports.AppendResult) {}); err != nil {
					t.Error(err)
				}
				through <- struct{}{}
			}()
			synctest.Wait()
		}
		if len(through) > 0 {
			t.Error("an Append got through without room")
		}
		close(gate)
		r.stored(first, 0)
		for range 3 {
			<-through
		}
		synctest.Wait()
		for i, v := range r.values(1) {
			if !strings.HasPrefix(v, fmt.Sprint(i)) {
				t.Errorf("batch %s is stored at %d", v[:1], i)
			}
		}
	})
}

func TestAppend_LargerThanTheRoomGetsThroughAlone(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.InFlightBytes = 100 }, func(t *testing.T, r *rig) {
		for i := range 3 {
			r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, strings.Repeat("x", 500))), domain.Offset(i))
		}
	})
}

func TestAppend_ThatWaitsForRoomObeysItsContext(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.InFlightBytes = 100 }, func(t *testing.T, r *rig) {
		gate := r.blockPuts(0)
		first := r.append(t.Context(), r.batch(0, batch.NoProducer, "a"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		never := func(int, ports.AppendResult) { t.Error("settled what was not taken over") }
		waiting := make(chan error, 1)
		go func() {
			synctest.Wait()
			waiting <- r.writer.Append(t.Context(), []ports.Batch{r.batch(1, batch.NoProducer, "small")}, func(int, ports.AppendResult) {})
		}()
		err := r.writer.Append(ctx, []ports.Batch{r.batch(0, batch.NoProducer, strings.Repeat("x", 99))}, never)
		if ports.KindOf(err) != ports.Transient || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Append without room: %v, want a transient error", err)
		}
		close(gate)
		r.stored(first, 0)
		if err := <-waiting; err != nil {
			t.Errorf("the Append behind it: %v", err)
		}
	})
}

func TestClose_TurnsAwayWhatWaitsForRoom(t *testing.T) {
	inBubble(t, func(c *direct.Config) { c.InFlightBytes = 100 }, func(t *testing.T, r *rig) {
		gate := r.blockPuts(0)
		first := r.append(t.Context(), r.batch(0, batch.NoProducer, "a"))
		errs := make(chan error, 1)
		go func() {
			errs <- r.writer.Append(t.Context(), []ports.Batch{r.batch(0, batch.NoProducer, strings.Repeat("x", 99))}, nil)
		}()
		synctest.Wait()
		go r.close()
		if err := <-errs; !errors.Is(err, domain.ErrClosed) {
			t.Errorf("Append: %v, want ErrClosed", err)
		}
		close(gate)
		r.stored(first, 0)
		synctest.Wait()
	})
}

func TestClose_SettlesWhatIsStuckWhenItsContextEnds(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.blockPuts(0)
		stuck := r.append(context.Background(), r.batch(0, batch.NoProducer, "a"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := r.writer.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v, want the context's error", err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("Close took %s with a deadline of 1s", took)
		}
		r.refused(stuck, ports.Transient, domain.ErrStorage)
	})
}

func TestConfig_ValidateReportsEveryFault(t *testing.T) {
	if err := direct.DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	if err := direct.DefaultReaderConfig().Validate(); err != nil {
		t.Errorf("the reader's default: %v", err)
	}
	err := direct.Config{FlushInterval: -1, MaxRetryBackoff: -1}.Validate()
	for _, field := range []string{
		"FlushBytes", "FlushInterval", "MaxUploads", "InFlightBytes", "CommitTimeout", "CommitBudget",
		"RetryBackoff", "MaxRetryBackoff", "StallAfter",
	} {
		if !strings.Contains(err.Error(), field+" ") {
			t.Errorf("%s is not reported in %v", field, err)
		}
	}
	_, err = direct.NewWriter(nil, nil, nil, direct.Config{})
	if !errors.Is(err, domain.ErrConfig) {
		t.Errorf("NewWriter with an empty Config: %v, want ErrConfig", err)
	}
	if err := (direct.ReaderConfig{MaxReads: -1, Codecs: []batch.Codec{nil}}).Validate(); !errors.Is(err, domain.ErrConfig) {
		t.Errorf("a bad ReaderConfig: %v, want ErrConfig", err)
	}
}

func TestAppend_TellsWhatTheStoreSaidWhenTimeRunsOut(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.store.put.set(func(context.Context, string, []byte) error {
			return ports.StorageError("put object", ports.Transient, errors.New("no space left on device"))
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		a := <-r.append(ctx, r.batch(0, batch.NoProducer, "a"))
		if !errors.Is(a.Err, domain.ErrTimeout) || ports.KindOf(a.Err) != ports.Transient || !strings.Contains(a.Err.Error(), "no space left on device") {
			t.Errorf("settled with %v, want a definite timeout that tells what the store said", a.Err)
		}
	})
}

// What its sender has just checked is not checked again, but for its header.
func TestAppend_ComputesTheChecksumOnlyOfWhatIsNotChecked(t *testing.T) {
	for _, c := range []struct {
		name    string
		damage  func([]byte) []byte
		checked bool
		refused bool
	}{
		{"a flipped bit", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, false, true},
		{"a flipped bit, checked", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, true, false},
		{"a byte too many, checked", func(b []byte) []byte { return append(b, 0) }, true, true},
		{"another magic, checked", func(b []byte) []byte { b[16] = 1; return b }, true, true},
		{"a base offset, checked", func(b []byte) []byte { b[7] = 1; return b }, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, r *rig) {
				b := r.batch(0, batch.NoProducer, "x")
				b.Bytes, b.Checked = c.damage(b.Bytes), c.checked
				a := <-r.append(t.Context(), b)
				if refused := errors.Is(a.Err, domain.ErrCorrupt); refused != c.refused || a.Err != nil && !refused {
					t.Errorf("answer %v", a.Err)
				}
			})
		})
	}
}
