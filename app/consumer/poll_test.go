package consumer_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func TestPoll_ReturnsEveryRecordOnceInOrderPerPartition(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 3)
		for round := range 20 {
			for id := range domain.PartitionID(3) {
				w.append(topic, id, 1+(round+int(id))%7)
			}
		}
		total := 0
		for id := range domain.PartitionID(3) {
			total += int(w.log(key(topic, id)).end)
		}
		for _, max := range []int{1, 3, 1000} {
			c := w.reader(t)
			must(t, c.Assign(t.Context(), "orders", consumer.Start()))
			var all []domain.Message
			for len(all) < total {
				messages, err := poll(t, c, max)
				must(t, err)
				if len(messages) > max {
					t.Fatalf("poll of %d returned %d", max, len(messages))
				}
				for _, m := range messages {
					check(t, m)
				}
				all = append(all, messages...)
			}
			for id := range domain.PartitionID(3) {
				wantOffsets(t, all, id, 0, w.log(key(topic, id)).end)
			}
			wantQuiet(t, c)
		}
	})
}

func TestPoll_ReadsOnAcrossManySmallFetches(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		for range 50 {
			w.append(topic, 0, 3)
			w.append(topic, 1, 2)
		}
		c := w.reader(t, func(cfg *consumer.Config) { cfg.FetchBytes = 1 })
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		all := read(t, c, 250)
		wantOffsets(t, all, 0, 0, 150)
		wantOffsets(t, all, 1, 0, 100)
		wantQuiet(t, c)
	})
}

func TestPoll_WakesAtOnceForARecordAtTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.End()))
		began := time.Now()
		time.AfterFunc(12345*time.Millisecond, func() { w.append(topic, 1, 1) })
		messages, err := c.Poll(t.Context(), 10)
		must(t, err)
		wantOffsets(t, messages, 1, 0, 1)
		if took := time.Since(began); took != 12345*time.Millisecond {
			t.Fatalf("returned after %v", took)
		}
	})
}

func TestPoll_ReturnsTheContextsErrorThoughRecordsAreBuffered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 2)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		read(t, c, 1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Poll(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		wantPosition(t, c, "orders", 0, 1)
		read(t, c, 1)
		wantQuiet(t, c)
	})
}

func TestPoll_WithNothingAssignedSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.reader(t)
		if _, err := poll(t, c, 1); !errors.Is(err, consumer.ErrNotAssigned) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestPoll_BringsTheNextFetchWhileTheApplicationWorks(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		for range 10 {
			w.append(topic, 0, 1)
		}
		c := w.reader(t, func(cfg *consumer.Config) { cfg.FetchBytes = 1 })
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		read(t, c, 1)
		synctest.Wait()
		if n := w.fetches.Load(); n != 2 {
			t.Fatalf("%d fetches after one poll, want one done and one ahead", n)
		}
	})
}

func TestIdleConsumer_FetchesOnceAWaitAndLooksEverMoreRarely(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 3)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := c.Poll(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if fetches, looks := w.fetches.Swap(0), w.looks.Load(); fetches > 30 || looks > 20 {
			t.Fatalf("%d fetches and %d looks in an hour without a record", fetches, looks)
		}
		must(t, c.Unassign("orders"))
		must(t, c.Assign(t.Context(), "orders", consumer.Start(), 0, 1, 2))
		w.looks.Store(0)
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := c.Poll(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if fetches, looks := w.fetches.Load(), w.looks.Load(); fetches > 13 || looks != 0 {
			t.Fatalf("%d fetches and %d looks in an hour with a wait of 10 min", fetches, looks)
		}
	})
}

func TestConsumerThatNobodyPolls_StopsToFetch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		wantQuiet(t, c)
		before := w.fetches.Load()
		<-time.After(time.Hour)
		if n := w.fetches.Load() - before; n > 1 {
			t.Fatalf("%d fetches in an hour without a poll", n)
		}
	})
}

func TestClose_EndsPollsThatWaitAndTheFetchInFlight(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		errs := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := c.Poll(context.Background(), 1)
				errs <- err
			}()
		}
		synctest.Wait()
		began := time.Now()
		must(t, c.Close())
		must(t, c.Close())
		for range 2 {
			if err := <-errs; !errors.Is(err, domain.ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
		if time.Since(began) != 0 {
			t.Errorf("close took %v", time.Since(began))
		}
		_, pollErr := c.Poll(t.Context(), 1)
		_, lagErr := c.Lag(t.Context())
		_, positionErr := c.Position("orders", 0)
		for call, err := range map[string]error{
			"poll": pollErr, "lag": lagErr, "position": positionErr,
			"assign": c.Assign(t.Context(), "orders", consumer.Start()), "unassign": c.Unassign("orders"),
			"seek":  c.Seek(t.Context(), "orders", 0, consumer.Start()),
			"pause": c.Pause("orders"), "resume": c.Resume("orders"),
		} {
			if !errors.Is(err, domain.ErrClosed) {
				t.Errorf("%s after close: %v", call, err)
			}
		}
	})
}

func TestOutOfRange_IsToldWithBothBoundsAndNeverResets(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		w.append(topic, 0, 10)
		w.append(topic, 1, 10)
		w.trim(topic, 0, 4)
		c := w.reader(t)
		for _, at := range []domain.Offset{0, 3, 11, -1, 1<<63 - 1} {
			must(t, c.Assign(t.Context(), "orders", consumer.At(at), 0))
			for range 3 {
				_, err := poll(t, c, 10)
				var out *domain.OutOfRangeError
				if !errors.As(err, &out) {
					t.Fatalf("at %d: got %v", at, err)
				}
				want := domain.OutOfRangeError{Topic: "orders", Offset: at, LogStart: 4, HighWatermark: 10}
				if *out != want {
					t.Fatalf("got %+v, want %+v", *out, want)
				}
				wantPosition(t, c, "orders", 0, at)
			}
		}
		must(t, c.Seek(t.Context(), "orders", 0, consumer.Start()))
		wantOffsets(t, read(t, c, 6), 0, 4, 10)
	})
}

// corruptAt flips a bit of the batch of partition id that begins at offset base.
func corruptAt(id domain.PartitionID, base domain.Offset, bit int) func(commit.PartitionKey, domain.Offset, *ports.FetchedPartition) {
	return func(k commit.PartitionKey, _ domain.Offset, f *ports.FetchedPartition) {
		if k.Partition == id {
			flip(f.Batches, base, bit)
		}
	}
}

func TestCorruptBatch_IsToldAndNothingOfItOrAfterItIsReturned(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		for range 4 {
			w.append(topic, 0, 5)
		}
		w.append(topic, 1, 100)
		w.fault = corruptAt(0, 10, 8*70)
		tel := w.telemetry()
		c := w.readerWith(t, tel)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		var all []domain.Message
		failures := 0
		for len(all) < 110 || failures < 3 {
			messages, err := poll(t, c, 1)
			all = append(all, messages...)
			if err == nil {
				continue
			}
			failures++
			var where *consumer.PartitionError
			if !errors.As(err, &where) || !errors.Is(err, domain.ErrCorrupt) || where.Topic != "orders" || where.Partition != 0 || where.Offset != 10 {
				t.Fatalf("got %v", err)
			}
		}
		wantOffsets(t, all, 0, 0, 10)
		wantOffsets(t, all, 1, 0, 100)
		wantPosition(t, c, "orders", 0, 10)
		if n := tel.Count(ports.CorruptionFound); n != int64(failures) {
			t.Errorf("%d failures counted, want %d", n, failures)
		}
		w.change(func() { w.fault = nil })
		must(t, c.Seek(t.Context(), "orders", 0, consumer.At(10)))
		wantOffsets(t, read(t, c, 10), 0, 10, 20)
	})
}

func TestFailingPartition_IsToldWithPausesThatGrowToFiveSeconds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		w.append(topic, 0, 1)
		missing := ports.StorageError("read segments/00/x", ports.Definite, ports.ErrObjectNotFound)
		w.fault = func(k commit.PartitionKey, _ domain.Offset, f *ports.FetchedPartition) {
			if k.Partition == 0 {
				f.Batches, f.Err = nil, missing
			}
		}
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		last, want := time.Now(), time.Duration(0)
		for i := range 10 {
			_, err := c.Poll(t.Context(), 1)
			if !errors.Is(err, ports.ErrObjectNotFound) || !errors.Is(err, domain.ErrStorage) {
				t.Fatalf("got %v", err)
			}
			if pause := time.Since(last); pause != want {
				t.Fatalf("failure %d came after %v, want %v", i, pause, want)
			}
			last = time.Now()
			want = min(max(100*time.Millisecond, 2*want), 5*time.Second)
		}
		// The other partition is served at once meanwhile, and a repair is noticed.
		w.append(topic, 1, 1)
		wantOffsets(t, read(t, c, 1), 1, 0, 1)
		w.change(func() { w.fault = nil })
		messages, err := c.Poll(t.Context(), 1)
		must(t, err)
		wantOffsets(t, messages, 0, 0, 1)
		if pause := time.Since(last); pause > 5*time.Second {
			t.Fatalf("repaired partition was read after %v", pause)
		}
	})
}

func TestManyFailingPartitions_DoNotStarveTheOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 100)
		for id := range domain.PartitionID(100) {
			w.append(topic, id, 10)
		}
		w.fault = func(k commit.PartitionKey, _ domain.Offset, f *ports.FetchedPartition) {
			if k.Partition > 0 {
				f.Batches, f.Err = nil, domain.ErrCorrupt
			}
		}
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		messages := 0
		for range 300 {
			got, err := poll(t, c, 1)
			if err != nil && !errors.Is(err, domain.ErrCorrupt) {
				t.Fatal(err)
			}
			if messages += len(got); messages == 10 {
				return
			}
		}
		t.Fatalf("%d of 10 good messages in 300 polls", messages)
	})
}

func TestErrorBehindGoodBatches_ComesAfterTheirRecords(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 10)
		w.fault = func(_ commit.PartitionKey, at domain.Offset, f *ports.FetchedPartition) {
			if at == 10 {
				f.Err = domain.ErrCorrupt
			}
		}
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		for range 10 {
			read(t, c, 1)
			synctest.Wait() // The fetch ahead has failed by now.
		}
		if _, err := poll(t, c, 1); !errors.Is(err, domain.ErrCorrupt) {
			t.Fatalf("got %v", err)
		}
		wantPosition(t, c, "orders", 0, 10)
	})
}

func TestFailedFetch_IsToldOnceAndTriedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		w.append(topic, 0, 1)
		down := ports.MetadataError("plan", ports.Transient, errors.New("down"))
		w.fails = []error{down, down}
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		for range 2 {
			if _, err := poll(t, c, 1); !errors.Is(err, domain.ErrMetadata) {
				t.Fatalf("got %v", err)
			}
		}
		began := time.Now()
		read(t, c, 1)
		if took := time.Since(began); took != 200*time.Millisecond {
			t.Fatalf("third try after %v", took)
		}
	})
}

func TestGapBetweenBatches_IsAnErrorNotASkip(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		for range 3 {
			w.append(topic, 0, 4)
		}
		for _, from := range []domain.Offset{0, 4} {
			w.change(func() {
				w.fault = func(k commit.PartitionKey, at domain.Offset, f *ports.FetchedPartition) {
					if at <= 4 { // Leave the batch at 4 out.
						l := w.log(k)
						f.Batches = append(append([]byte(nil), l.batches[0][:len(l.batches[0])*int(4-at)/4]...), l.batches[2]...)
					}
				}
			})
			c := w.reader(t)
			must(t, c.Assign(t.Context(), "orders", consumer.At(from)))
			if from == 0 {
				wantOffsets(t, read(t, c, 4), 0, 0, 4)
			}
			if _, err := poll(t, c, 10); !errors.Is(err, domain.ErrCorrupt) {
				t.Fatalf("from %d: got %v", from, err)
			}
			wantPosition(t, c, "orders", 0, 4)
		}
	})
}
