package consumer_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
)

// toEnd reads to the end and fails on an error.
func toEnd(t *testing.T, c *consumer.Consumer) (all []domain.Message) {
	t.Helper()
	for m, err := range c.ReadToEnd(t.Context()) {
		must(t, err)
		check(t, m)
		all = append(all, m)
	}
	return all
}

func TestReadToEnd_StopsExactlyAtTheWatermarksOfItsStart(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 5)
		w.append(topic, 0, 10) // Partition 1 is empty.
		w.append(topic, 2, 7)  // 2 is trimmed wholly, 3 in a batch.
		w.trim(topic, 2, 7)
		w.append(topic, 3, 6)
		w.trim(topic, 3, 4)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		var all []domain.Message
		for m, err := range c.ReadToEnd(t.Context()) {
			must(t, err)
			if len(all) == 0 {
				for id := range domain.PartitionID(5) {
					w.append(topic, id, 20)
				}
			}
			all = append(all, m)
		}
		for id, bounds := range [][2]domain.Offset{{0, 10}, {0, 0}, {7, 7}, {4, 6}, {0, 0}} {
			wantOffsets(t, all, domain.PartitionID(id), bounds[0], bounds[1])
			wantPosition(t, c, "orders", domain.PartitionID(id), bounds[1])
		}
		wantOffsets(t, toEnd(t, c), 0, 10, 30)
		if rest := toEnd(t, c); len(rest) != 0 {
			t.Fatalf("%d messages behind the end", len(rest))
		}
	})
}

func TestReadToEnd_StopsWithinABatchThatGrewIntoTheFetch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 10)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		// The watermark lies in the middle of a batch: no store does that today.
		w.change(func() { w.log(key(topic, 0)).end = 6 })
		n := 0
		for _, err := range c.ReadToEnd(t.Context()) {
			must(t, err)
			n++
		}
		if n != 6 {
			t.Fatalf("read %d, want 6", n)
		}
		w.change(func() { w.log(key(topic, 0)).end = 10 })
		wantOffsets(t, read(t, c, 4), 0, 6, 10)
	})
}

func TestReadToEnd_OfNothingEndsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 3)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		began := time.Now()
		if all := toEnd(t, c); len(all) != 0 || time.Since(began) != 0 {
			t.Fatalf("%d messages after %v", len(all), time.Since(began))
		}
	})
}

func TestReadToEnd_ReadsPartitionsThatWereAddedBeforeIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		_, err := w.WidenTopic(t.Context(), topic.ID, 2)
		must(t, err)
		w.append(topic, 1, 3)
		wantOffsets(t, toEnd(t, c), 1, 0, 3)
	})
}

// A poll has left a fetch behind that waits for long, and knows nothing of the new partition.
func TestReadToEnd_InterruptsTheWaitOfAFetchForPartitionsThatWereAdded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		for range 5 { // each look at the topic doubles the time until the next
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			if _, err := c.Poll(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		widened, err := w.WidenTopic(t.Context(), topic.ID, 2)
		must(t, err)
		w.append(widened, 1, 3)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		n := 0
		for _, err := range c.ReadToEnd(ctx) {
			must(t, err)
			n++
		}
		if n != 3 {
			t.Errorf("%d messages, want 3", n)
		}
	})
}

func TestReadToEnd_DoesNotWaitForAPausedPartition(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		w.append(topic, 0, 3)
		w.append(topic, 1, 3)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		must(t, c.Pause("orders", 1))
		wantOffsets(t, toEnd(t, c), 0, 0, 3)
		must(t, c.Resume("orders", 1))
		wantOffsets(t, toEnd(t, c), 1, 0, 3)
	})
}

func TestReadToEnd_TellsOfPositionsOutOfRangeAndReadsTheRest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		w.append(topic, 0, 3)
		w.append(topic, 1, 9)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.At(5)))
		var all []domain.Message
		failures := 0
		for m, err := range c.ReadToEnd(t.Context()) {
			if err == nil {
				all = append(all, m)
				continue
			}
			var out *domain.OutOfRangeError
			if !errors.As(err, &out) || *out != (domain.OutOfRangeError{Topic: "orders", Offset: 5, HighWatermark: 3}) {
				t.Fatalf("got %v", err)
			}
			failures++
		}
		if failures != 1 {
			t.Errorf("told %d times", failures)
		}
		wantOffsets(t, all, 1, 5, 9)
	})
}

func TestReadToEnd_RefusesAnotherAndLetsPollsWaitAtItsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 2)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		n := 0
		for _, err := range c.ReadToEnd(t.Context()) {
			must(t, err)
			for _, err := range c.ReadToEnd(t.Context()) {
				if !errors.Is(err, consumer.ErrBusy) {
					t.Fatalf("got %v", err)
				}
			}
			if n++; n == 2 {
				w.append(topic, 0, 1)
				wantQuiet(t, c)
			}
		}
		wantOffsets(t, read(t, c, 1), 0, 2, 3)
	})
}

func TestReadToEnd_OfADeletedTopicIsAnError(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		must(t, w.DeleteTopic(t.Context(), topic.ID))
		n := 0
		for _, err := range c.ReadToEnd(t.Context()) {
			if n++; n > 1 || !errors.Is(err, domain.ErrTopicNotFound) {
				t.Fatalf("%d: got %v", n, err)
			}
		}
	})
}

func TestRecords_StoppedInTheMiddleGoesOnWhereItStopped(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 100)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		var all []domain.Message
		for len(all) < 90 {
			for m, err := range c.Records(t.Context()) {
				must(t, err)
				all = append(all, m)
				wantPosition(t, c, "orders", 0, m.Offset+1)
				if len(all)%7 == 0 {
					break
				}
			}
		}
		all = append(all, read(t, c, 100-len(all))...)
		wantOffsets(t, all, 0, 0, 100)
	})
}

func TestRecords_ObeysASeekAndAPauseInItsLoop(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		w.append(topic, 0, 10)
		w.append(topic, 1, 10)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		sought, want := false, domain.Offset(0)
		for m, err := range c.Records(t.Context()) {
			must(t, err)
			if m.Partition == 1 {
				must(t, c.Pause("orders", 1))
				continue
			}
			if m.Offset != want {
				t.Fatalf("got %d, want %d", m.Offset, want)
			}
			if want++; want == 5 && !sought {
				sought, want = true, 2
				must(t, c.Seek(t.Context(), "orders", 0, consumer.At(2)))
			}
			if want == 10 {
				break
			}
		}
		if at, err := c.Position("orders", 1); err != nil || at > 1 {
			t.Fatalf("paused partition is at %d, %v", at, err)
		}
	})
}

func TestRecords_EndsAfterTheContextsErrorAndAfterClose(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		c := w.reader(t)
		for _, err := range c.Records(t.Context()) {
			if !errors.Is(err, consumer.ErrNotAssigned) {
				t.Fatalf("got %v", err)
			}
		}
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, err := range c.Records(ctx) {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v", err)
			}
		}
		ended := make(chan error, 2)
		go func() {
			for _, err := range c.Records(context.Background()) {
				ended <- err
			}
			close(ended)
		}()
		synctest.Wait()
		must(t, c.Close())
		if err := <-ended; !errors.Is(err, domain.ErrClosed) {
			t.Fatalf("got %v", err)
		}
		if err, more := <-ended; more {
			t.Fatalf("went on with %v", err)
		}
	})
}
