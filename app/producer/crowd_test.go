package producer

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/domain"
)

// With many partitions a request takes its share of the oldest, and the others
// stay to grow; how long they may is counted from their own first record.
func TestSendAsync_OfManyPartitionsTheOldestGoFirstAndTheOthersKeepTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions, half = 2 * crowd, crowd
		w := newWire(t)
		w.topic(t, partitions)
		w.hold = make(chan struct{})
		p := w.open(t, func(c *Config) { c.BufferBytes = 4 << 20 })
		p.SendAsync(t.Context(), value("stuck"), nil)
		synctest.Wait()
		body := strings.Repeat("x", 3<<10)
		send := func(from, to int) {
			for i := from; i < to; i++ {
				r := value(body)
				r.Partition = domain.ToPartition(domain.PartitionID(i))
				p.SendAsync(t.Context(), r, nil)
			}
		}
		began := time.Now()
		send(0, half)
		<-time.After(60 * time.Millisecond) // of the bubble's clock
		send(half, partitions)
		synctest.Wait()
		full := w.sent()
		if len(full) != 2 {
			t.Fatalf("%d requests when three quarters of the buffer wait, want one more than the one that is stuck", len(full))
		}
		if n := len(full[1]); n < half/2 || n > half {
			t.Fatalf("it takes %d batches, want about a quarter of the buffer", n)
		}
		left := time.Duration(0)
		for n := 2; n < 4; {
			<-time.After(time.Millisecond)
			synctest.Wait()
			if sent := w.sent(); len(sent) > n {
				n, left = len(sent), time.Since(began)
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("%d requests after a minute", n)
			}
		}
		if want := 160 * time.Millisecond; left < want || left > want+5*time.Millisecond {
			t.Errorf("the second half left after %s, want %s", left, want)
		}
		close(w.hold)
	})
}

// A batch that is compressed holds as much of the buffer as it has bytes then, so
// more can be on its way.
func TestTrySend_CompressedBatchesHoldLessOfTheBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		w.hold = make(chan struct{})
		const buffer = 1 << 20
		p := w.open(t, func(c *Config) { c.BufferBytes, c.Codec = buffer, codec.NewLZ4() })
		body, accepted := strings.Repeat("x", 1000), 0
		for {
			_, err := p.TrySend(value(body), nil)
			switch {
			case err == nil:
				accepted += len(body)
			case errors.Is(err, domain.ErrWouldBlock):
			case errors.Is(err, domain.ErrBufferFull):
				if used := p.budget.used.Load(); used > buffer {
					t.Errorf("%d bytes are used of %d", used, buffer)
				}
				if accepted < buffer/4*5 {
					t.Errorf("%d bytes that shrink to nothing fill a buffer of %d", accepted, buffer)
				}
				close(w.hold)
				if err := p.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				if used, inflight := p.budget.used.Load(), p.dispatcher.inflight.Load(); used != 0 || inflight != 0 {
					t.Errorf("%d bytes are used and %d in flight with nothing under way", used, inflight)
				}
				return
			default:
				t.Fatal(err)
			}
			synctest.Wait()
		}
	})
}
