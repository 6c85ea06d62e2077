package producer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

func TestSend_TopicDeletedAndCreatedAgainGetsNoOldRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		old := w.topic(t, 1)
		p := w.open(t, nil)
		if _, err := p.Send(t.Context(), value("old")); err != nil {
			t.Fatal(err)
		}
		if err := w.DeleteTopic(t.Context(), old.ID); err != nil {
			t.Fatal(err)
		}
		fresh := w.topic(t, 1)
		_, err := p.Send(t.Context(), value("lost"))
		if !errors.Is(err, domain.ErrTopicNotFound) || domain.FateOf(err).Stored != domain.StoredNo {
			t.Fatalf("send to the deleted topic: %v, want ErrTopicNotFound, not stored", err)
		}
		if r, err := p.Send(t.Context(), value("new")); err != nil || r.Offset != 0 {
			t.Errorf("send after that: offset %d, error %v, want 0 in the new topic", r.Offset, err)
		}
		if n := w.stored(t, fresh, 0); n != 1 {
			t.Errorf("%d records in the new topic, want 1", n)
		}
	})
}

func TestSend_WidenedTopicIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		p := w.open(t, nil)
		if _, err := p.Send(t.Context(), value("v")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.WidenTopic(t.Context(), topic.ID, 4); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Send(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(3)}); err != nil {
			t.Errorf("explicit new partition: %v, want it found at once", err)
		}
		if _, err := w.WidenTopic(t.Context(), topic.ID, 8); err != nil {
			t.Fatal(err)
		}
		seen := map[domain.PartitionID]bool{}
		<-time.After(topicAge + time.Second)
		for range 40 {
			r, err := p.Send(t.Context(), value("v"))
			if err != nil {
				t.Fatal(err)
			}
			seen[r.Partition] = true
			synctest.Wait()
		}
		if len(seen) != 8 {
			t.Errorf("round robin reached %d partitions, want 8", len(seen))
		}
	})
}

func TestSend_OfAnOlderSessionIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		p := w.open(t, func(c *Config) { c.Name = "billing" })
		if _, err := p.Send(t.Context(), value("v")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.RegisterProducer(t.Context(), "billing"); err != nil {
			t.Fatal(err)
		}
		pendings := []*Pending{p.SendAsync(t.Context(), value("a"), nil), p.SendAsync(t.Context(), value("b"), nil)}
		for _, pending := range pendings {
			_, err := pending.Wait(t.Context())
			var fenced *domain.FencedError
			if !errors.As(err, &fenced) || fenced.Producer != "billing" || domain.FateOf(err).Stored != domain.StoredNo {
				t.Errorf("error %v, want *FencedError of billing, not stored", err)
			}
		}
		if _, err := p.Send(t.Context(), value("c")); !errors.Is(err, domain.ErrFenced) {
			t.Errorf("later send: %v, want ErrFenced", err)
		}
		if n := w.stored(t, topic, 0); n != 1 {
			t.Errorf("%d records stored, want 1", n)
		}
	})
}

func TestSend_AfterADayOfSilenceTakesANewSession(t *testing.T) {
	for _, name := range []string{"", "billing"} {
		t.Run("name "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				topic := w.topic(t, 2)
				p := w.open(t, func(c *Config) { c.Name = name })
				for range 4 {
					if _, err := p.Send(t.Context(), value("v")); err != nil {
						t.Fatal(err)
					}
				}
				<-time.After(25 * time.Hour)
				for range 4 {
					if _, err := p.Send(t.Context(), value("v")); err != nil {
						t.Fatal(err)
					}
				}
				if n := w.stored(t, topic, 0) + w.stored(t, topic, 1); n != 8 {
					t.Errorf("%d records stored, want 8", n)
				}
			})
		})
	}
}

func TestSend_WithoutIdempotenceKeepsOrderWithOneBatchInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		calls := 0
		w.judgeBy(func(ports.Batch, batch.Header) fate {
			calls++
			if calls%2 == 0 {
				return drop
			}
			return deliver
		})
		p := w.open(t, func(c *Config) { c.Idempotence = false })
		var pendings []*Pending
		for i := range 100 {
			pendings = append(pendings, p.SendAsync(t.Context(), value(fmt.Sprint(i)), nil))
			if i%9 == 0 {
				synctest.Wait()
			}
		}
		for i, pending := range pendings {
			if r, err := pending.Wait(t.Context()); err != nil || r.Offset != domain.Offset(i) {
				t.Fatalf("record %d: offset %d, error %v", i, r.Offset, err)
			}
		}
		if h := w.log[keyOf(topic)]; h[0].Producer != batch.NoProducer {
			t.Errorf("batches carry producer %+v, want none", h[0].Producer)
		}
	})
}

func TestSend_UnclearOutcomeWithoutIdempotenceIsSaidToBeUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		w.judgeBy(always(loseBatch))
		p := w.open(t, func(c *Config) { c.Idempotence = false; c.MaxRetries = 1 })
		_, err := p.Send(t.Context(), value("v"))
		if !errors.Is(err, domain.ErrOutcomeUnknown) || domain.FateOf(err).Stored != domain.StoredUnknown {
			t.Errorf("error %v, want ErrOutcomeUnknown", err)
		}
	})
}

func TestSend_GivenUpBatchThatCannotBeSettledIsUnknownAndBlocksWhatFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		w.judgeBy(always(loseBatch))
		p := w.open(t, func(c *Config) { c.MaxRetries = 1 })
		away := &metadataAway{Producers: w}
		p.producers = away
		away.set(true)
		_, err := p.Send(t.Context(), value("v"))
		if !errors.Is(err, domain.ErrOutcomeUnknown) {
			t.Fatalf("error %v, want ErrOutcomeUnknown", err)
		}
		w.judgeBy(always(deliver))
		next := p.SendAsync(t.Context(), value("next"), nil)
		<-time.After(10 * time.Second)
		if n := w.stored(t, topic, 0); n != 0 {
			t.Fatalf("%d records followed the open batch", n)
		}
		away.set(false)
		if r, err := next.Wait(t.Context()); err != nil || r.Offset != 0 {
			t.Errorf("next record: offset %d, error %v, want 0", r.Offset, err)
		}
	})
}

func TestTrySend_NeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		w.hold = make(chan struct{})
		p := w.open(t, func(c *Config) { c.BufferBytes = 1000 })
		if _, err := p.TrySend(value("v"), nil); !errors.Is(err, domain.ErrWouldBlock) {
			t.Fatalf("first TrySend: %v, want ErrWouldBlock while the topic is looked up", err)
		}
		synctest.Wait()
		accepted := 0
		for {
			if _, err := p.TrySend(value("v"), nil); err != nil {
				if !errors.Is(err, domain.ErrBufferFull) || domain.FateOf(err) != (domain.Fate{Stored: domain.StoredNo, Retry: true}) {
					t.Errorf("error %v, want ErrBufferFull", err)
				}
				break
			}
			accepted++
		}
		if fit := 1000 / (batch.RecordBound(nil, []byte("v"), nil) + recordOverhead); accepted == 0 || accepted > fit {
			t.Errorf("%d records fit 1000 bytes, want at most %d", accepted, fit)
		}
		if _, err := p.TrySend(domain.Record{Topic: "missing"}, nil); !errors.Is(err, domain.ErrWouldBlock) {
			t.Errorf("unknown topic: %v, want ErrWouldBlock", err)
		}
		synctest.Wait()
		if _, err := p.TrySend(domain.Record{Topic: "missing"}, nil); !errors.Is(err, domain.ErrTopicNotFound) {
			t.Errorf("missing topic, once looked up: %v, want ErrTopicNotFound", err)
		}
		close(w.hold)
	})
}

func TestSend_BlocksWhileTheBufferIsFullAndObeysItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		w.hold = make(chan struct{})
		p := w.open(t, func(c *Config) { c.BufferBytes = 4000 })
		accepted := 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			called := false
			pending := p.SendAsync(ctx, domain.Record{Topic: "t", Value: make([]byte, 500)}, func(_ domain.SendResult, err error) { called = true })
			cancel()
			if !called { // refused records have theirs called before SendAsync returns
				accepted++
				continue
			}
			_, err := pending.Wait(t.Context())
			if !errors.Is(err, context.DeadlineExceeded) || domain.FateOf(err).Stored != domain.StoredNo {
				t.Errorf("error %v, want the context's, not stored", err)
			}
			break
		}
		big := make(chan error)
		go func() {
			_, err := p.Send(t.Context(), domain.Record{Topic: "t", Value: make([]byte, 3000)})
			big <- err
		}()
		synctest.Wait()
		close(w.hold)
		if err := <-big; err != nil {
			t.Errorf("the waiting record: %v", err)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := w.stored(t, topic, 0); n != domain.Offset(accepted)+1 {
			t.Errorf("%d records stored, want %d", n, accepted+1)
		}
		if used := p.budget.used.Load(); used != 0 {
			t.Errorf("%d bytes of the budget are held when idle", used)
		}
		if _, err := p.Send(t.Context(), domain.Record{Topic: "t", Value: make([]byte, 5000)}); !errors.Is(err, domain.ErrRecordTooLarge) {
			t.Errorf("a record larger than the buffer: %v, want ErrRecordTooLarge", err)
		}
	})
}

func TestClose_FlushesAndRefusesLaterSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		p := w.open(t, nil)
		called := 0
		for range 10 {
			p.SendAsync(t.Context(), value("v"), func(domain.SendResult, error) { called++ })
		}
		for range 2 { // safe twice
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.stored(t, topic, 0); n != 10 || called != 10 {
			t.Errorf("%d records stored and %d callbacks run, want 10 and 10", n, called)
		}
		if _, err := p.Send(t.Context(), value("late")); !errors.Is(err, domain.ErrClosed) {
			t.Errorf("send after close: %v, want ErrClosed", err)
		}
	})
}

func TestClose_WhoseContextEndsTellsEveryRecordItsFate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 2)
		w.hold = make(chan struct{}, 1)
		w.judgeBy(always(drop))
		cfg := DefaultConfig()
		cfg.Seed, cfg.RetryBackoff = 1, time.Hour
		p, err := New(t.Context(), Ports{Topics: w, Producers: w, Transport: w, Telemetry: ports.NoTelemetry{}}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		waiting := p.SendAsync(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(1)}, nil)
		w.hold <- struct{}{}
		synctest.Wait()
		sent := p.SendAsync(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(0)}, nil)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v, want DeadlineExceeded", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("close took %s, a second after its context at most", took)
		}
		if _, err := sent.Wait(t.Context()); domain.FateOf(err).Stored != domain.StoredUnknown {
			t.Errorf("the record in flight: %v, want its outcome unknown", err)
		}
		if _, err := waiting.Wait(t.Context()); domain.FateOf(err).Stored != domain.StoredNo || !errors.Is(err, domain.ErrClosed) {
			t.Errorf("the record that waits for a retry: %v, want ErrClosed, not stored", err)
		}
	})
}

func TestFlush_WaitsForWhatWasAcceptedBeforeItOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 2)
		w.hold = make(chan struct{}, 10)
		p := w.open(t, nil)
		p.SendAsync(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(0)}, nil)
		synctest.Wait()
		flushed := make(chan error)
		go func() { flushed <- p.Flush(t.Context()) }()
		synctest.Wait()
		later := p.SendAsync(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(1)}, nil)
		w.hold <- struct{}{}
		if err := <-flushed; err != nil {
			t.Error(err)
		}
		select {
		case <-later.Done():
			t.Error("the flush waited for a later record")
		default:
		}
		close(w.hold)
	})
}

func TestBatch_CapsAndTimestamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		w.hold = make(chan struct{}, 100)
		p := w.open(t, func(c *Config) { c.BatchBytes = 1000 })
		p.SendAsync(t.Context(), domain.Record{Topic: "t"}, nil)
		synctest.Wait() // a lone record leaves at once: it is under way, and those that follow gather
		first := time.UnixMilli(1_700_000_000_000)
		far := first.Add(100 * 24 * time.Hour) // its delta does not fit 32 bits of milliseconds
		pendings := []*Pending{
			p.SendAsync(t.Context(), domain.Record{Topic: "t", Timestamp: first}, nil),
			p.SendAsync(t.Context(), domain.Record{Topic: "t", Timestamp: first.Add(-time.Second)}, nil),
			p.SendAsync(t.Context(), domain.Record{Topic: "t", Timestamp: far}, nil),
			p.SendAsync(t.Context(), domain.Record{Topic: "t", Timestamp: far, Value: make([]byte, 2000)}, nil),
		}
		close(w.hold)
		for i, want := range []time.Time{first, first.Add(-time.Second), far, far} {
			r, err := pendings[i].Wait(t.Context())
			if err != nil || !r.Timestamp.Equal(want) || r.Offset != domain.Offset(i+1) {
				t.Errorf("record %d: %+v, error %v, want timestamp %s", i, r, err, want)
			}
		}
		if stored := w.log[keyOf(topic)]; len(stored) != 4 || stored[1].Records != 2 || stored[3].Length < 2000 {
			t.Errorf("stored batches %+v, want 1 record, 2, 1 and 1", stored)
		}
	})
}
