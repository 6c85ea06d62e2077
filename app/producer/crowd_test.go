package producer

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// With many partitions a request takes its share of the oldest, and the others
// stay to grow; how long they may is counted from their own first record.
func TestSendAsync_OfManyPartitionsTheOldestGoFirstAndTheOthersKeepTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions, half = 3*crowd + 24, 600
		w := newWire(t)
		w.topic(t, partitions)
		w.hold = make(chan struct{})
		p := w.open(t, func(c *Config) { c.BufferBytes, c.Codec = 4<<20, codec.NewLZ4() })
		p.SendAsync(t.Context(), value("stuck"), nil)
		synctest.Wait()
		body := strings.Repeat("x", 2480)
		send := func(from, to int) {
			for i := from; i < to; i++ {
				r := value(body)
				r.Partition = domain.ToPartition(domain.PartitionID(i))
				p.SendAsync(t.Context(), r, nil)
			}
		}
		began := time.Now()
		send(0, half)
		const between = 60 * time.Millisecond
		<-time.After(between) // of the bubble's clock
		send(half, partitions)
		synctest.Wait()
		full := w.sent()
		if len(full) != 2 {
			t.Fatalf("%d requests when fifteen sixteenths of the buffer wait, want one more than the one that is stuck", len(full))
		}
		if n := len(full[1]); n < half/2 || n > half {
			t.Fatalf("it takes %d batches, want about a quarter of the buffer", n)
		}
		timeout := DefaultConfig().BatchTimeout
		w.await(t, 3)
		requireAbout(t, "the rest of the first half left", time.Since(began), crowdTimeouts*timeout)
		w.await(t, 4)
		requireAbout(t, "the second half left", time.Since(began), between+crowdTimeouts*timeout)
		close(w.hold)
	})
}

// requireAbout fails the test unless something happened after want of virtual
// time, or the dispatcher's next look.
func requireAbout(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+5*time.Millisecond {
		t.Errorf("%s after %s, want %s", what, got, want)
	}
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
				requireNothingHeld(t, p)
				return
			default:
				t.Fatal(err)
			}
			synctest.Wait()
		}
	})
}

// A batch that comes back from a back-off is older than those that wait, and
// leaves before them.
func TestSendAsync_OfManyPartitionsOneThatComesBackGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions, failing = 2 * crowd, 7
		w := newWire(t)
		topic := w.topic(t, partitions)
		dropped := false
		w.judgeBy(func(b ports.Batch, _ batch.Header) fate {
			if b.Partition == failing && !dropped {
				dropped = true
				return drop
			}
			return deliver
		})
		w.hold = make(chan struct{}, 1)
		w.hold <- struct{}{}
		p := w.open(t, func(c *Config) { c.BufferBytes, c.RetryBackoff = 4<<20, time.Millisecond })
		send := func(id int, body string) {
			r := value(body)
			r.Partition = domain.ToPartition(domain.PartitionID(id))
			p.SendAsync(t.Context(), r, nil)
		}
		send(failing, "fails once")
		synctest.Wait()
		send(failing+1, "stuck")
		synctest.Wait()
		<-time.After(time.Microsecond) // of the bubble's clock: those that follow are younger
		body := strings.Repeat("x", 3860)
		for i := 2 * failing; i < partitions-64; i++ {
			send(i, body)
		}
		<-time.After(5 * time.Millisecond) // the back-off is over
		synctest.Wait()
		if n := len(w.sent()); n != 2 {
			t.Fatalf("%d requests before enough waits, want the one that failed and the one that is stuck", n)
		}
		for i := partitions - 64; i < partitions; i++ {
			send(i, body)
		}
		synctest.Wait()
		if len(w.sent()) < 3 {
			t.Fatal("nothing leaves though enough waits")
		}
		close(w.hold)
		w.await(t, 4)
		if first := w.requests()[2][0]; first != (commit.PartitionKey{Topic: topic.ID, Partition: failing}) {
			t.Errorf("the third request begins with partition %d, want %d, which came back", first.Partition, failing)
		}
	})
}

// However little of the buffer is left by what is in flight, a full one sends.
func TestTrySend_AFullBufferDoesNotWaitForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions, buffer = 128, 1 << 20
		w := newWire(t)
		w.topic(t, partitions)
		w.hold = make(chan struct{})
		p := w.open(t, func(c *Config) { c.BufferBytes = buffer })
		body, began := strings.Repeat("x", 1000), time.Now()
		for {
			_, err := p.TrySend(value(body), nil)
			if errors.Is(err, domain.ErrBufferFull) {
				break
			}
			if err != nil && !errors.Is(err, domain.ErrWouldBlock) {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := len(w.sent()); n < 3 || time.Since(began) > 0 {
			t.Errorf("%d requests after %s with a full buffer, want several at once", n, time.Since(began))
		}
		close(w.hold)
	})
}

// A record that is larger than what is left of the buffer does not wait for company of
// those that fill it.
func TestSend_ARecordThatFindsNoRoomHasOthersLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions = 2 * crowd
		w := newWire(t)
		w.topic(t, partitions)
		w.hold = make(chan struct{})
		p := w.open(t, func(c *Config) { c.BufferBytes = 4 << 20 })
		p.SendAsync(t.Context(), value("stuck"), nil)
		synctest.Wait()
		body := strings.Repeat("x", 3500)
		sendToEach(t, p, partitions, body)
		synctest.Wait()
		if n := len(w.sent()); n != 1 {
			t.Fatalf("%d requests before the buffer is full, want only the one that is stuck", n)
		}
		large := make(chan *Pending)
		began := time.Now()
		go func() { large <- p.SendAsync(t.Context(), value(strings.Repeat("y", 800<<10)), nil) }()
		synctest.Wait()
		if n := len(w.sent()); n < 2 || time.Since(began) > 0 {
			t.Errorf("%d requests when a record found no room, want another one at once", n)
		}
		close(w.hold)
		if _, err := (<-large).Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// However little time records have, those of very many partitions are sent, not given up.
func TestSendAsync_OfManyPartitionsDoNotWaitTheirDeliveryTimeoutAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions = 2 * crowd
		w := newWire(t)
		w.topic(t, partitions)
		w.hold = make(chan struct{})
		p := w.open(t, func(c *Config) {
			c.BufferBytes, c.DeliveryTimeout, c.RequestTimeout = 4<<20, 4*c.BatchTimeout, 4*c.BatchTimeout
		})
		p.SendAsync(t.Context(), value("stuck"), nil)
		synctest.Wait()
		body, began := strings.Repeat("x", 2<<10), time.Now()
		sendToEach(t, p, partitions, body)
		w.await(t, 2)
		requireAbout(t, "the first left", time.Since(began), p.cfg.BatchTimeout)
		close(w.hold)
	})
}

// A batch in pieces whose codec fails gives all of its memory back.
func TestSendAsync_ABatchInPiecesThatCannotBeCompressedFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		w.hold = make(chan struct{})
		p := w.open(t, func(c *Config) { c.Codec = picky{[]byte("bad")} })
		p.SendAsync(t.Context(), value("stuck"), nil)
		synctest.Wait()
		var failed []error
		for range 20 {
			p.SendAsync(t.Context(), value("bad"+strings.Repeat("x", 1000)), func(_ domain.SendResult, err error) { failed = append(failed, err) })
		}
		close(w.hold)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, err := range failed {
			if !errors.Is(err, domain.ErrCompression) {
				t.Errorf("a record ends with %v", err)
			}
		}
		if len(failed) != 20 {
			t.Errorf("%d records failed, want 20", len(failed))
		}
		requireNothingHeld(t, p)
	})
}

// sendToEach sends a record to each of the first partitions.
func sendToEach(t *testing.T, p *Producer, partitions int, body string) {
	t.Helper()
	for i := range partitions {
		r := value(body)
		r.Partition = domain.ToPartition(domain.PartitionID(i))
		p.SendAsync(t.Context(), r, nil)
	}
}

// requireNothingHeld fails the test if a producer without records under way has
// memory on its books that it does not keep for later.
func requireNothingHeld(t *testing.T, p *Producer) {
	t.Helper()
	synctest.Wait() // a Flush may return before the last batch is off all books
	var kept int64
	for class, list := range p.buffers.free {
		kept += int64(len(list) * bufferSize(class))
	}
	used, inflight := p.budget.used.Load(), p.dispatcher.inflight.Load()
	if used != 0 || inflight != 0 || p.buffers.total != kept {
		t.Errorf("%d bytes are used, %d in flight, and buffers of %d bytes in use, with nothing under way", used, inflight, p.buffers.total-kept)
	}
}

// Only the first attempt follows the computing of the checksum at once.
func TestSend_SaysThatABatchIsCheckedOnItsFirstAttemptOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		attempts := 0
		w.judgeBy(func(ports.Batch, batch.Header) fate {
			if attempts++; attempts == 1 {
				return drop
			}
			return deliver
		})
		p := w.open(t, nil)
		if _, err := p.Send(t.Context(), value("v")); err != nil {
			t.Fatal(err)
		}
		if len(w.checked) != 2 || !w.checked[0] || w.checked[1] {
			t.Errorf("attempts say checked: %v, want true and false", w.checked)
		}
	})
}
