package consumer_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

func TestNew_ReportsEveryFaultAtOnce(t *testing.T) {
	cfg := consumer.Config{FetchBytes: -1, FetchMaxWait: 1e18, RetryBackoff: time.Hour, Codecs: []batch.Codec{nil}}
	_, err := consumer.New(consumer.Ports{}, cfg)
	if !errors.Is(err, domain.ErrConfig) {
		t.Fatalf("got %v", err)
	}
	for _, field := range []string{"metadata store", "fetcher", "fetch bytes is -1", "fetch max wait", "topic refresh is 0s", "retry backoff", "max poll is 0", "codecs"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%q is missing in:\n%v", field, err)
		}
	}
	if err := consumer.DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

func TestAssign_BeginsAtEachPosition(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 6)
		w.append(topic, 0, 4)
		w.trim(topic, 0, 2)
		for _, test := range []struct {
			pos  consumer.Position
			from domain.Offset
		}{
			{consumer.Position{}, 2},
			{consumer.Start(), 2},
			{consumer.End(), 10},
			{consumer.At(2), 2}, // in the middle of a batch
			{consumer.At(5), 5},
			{consumer.At(6), 6},
			{consumer.At(10), 10},
			{consumer.Since(time.Unix(0, 0)), 2},
			{consumer.Since(time.Unix(4, 1)), 5},
			{consumer.Since(time.Unix(9, 0)), 9},
			{consumer.Since(time.Unix(10, 0)), 10},
		} {
			c := w.reader(t)
			must(t, c.Assign(t.Context(), "orders", test.pos))
			wantPosition(t, c, "orders", 0, test.from)
			wantOffsets(t, read(t, c, int(10-test.from)), 0, test.from, 10)
			wantQuiet(t, c)
			must(t, c.Seek(t.Context(), "orders", 0, test.pos))
			wantOffsets(t, read(t, c, int(10-test.from)), 0, test.from, 10)
			must(t, c.Close())
		}
	})
}

func TestAssign_RefusesWhatTheTopicDoesNotHave(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		w.append(topic, 0, 1)
		c := w.reader(t)
		for _, id := range []domain.PartitionID{-1, 2} {
			err := c.Assign(t.Context(), "orders", consumer.Start(), 0, id)
			var invalid *domain.InvalidPartitionError
			if !errors.As(err, &invalid) || *invalid != (domain.InvalidPartitionError{Topic: "orders", Partition: id, Count: 2}) {
				t.Errorf("partition %d: got %v", id, err)
			}
		}
		var missing *domain.TopicNotFoundError
		if err := c.Assign(t.Context(), "ghost", consumer.Start()); !errors.As(err, &missing) || missing.Topic != "ghost" {
			t.Errorf("got %v", err)
		}
		if err := c.Assign(t.Context(), "../x", consumer.Start()); !errors.Is(err, domain.ErrInvalidName) {
			t.Errorf("got %v", err)
		}
		if _, err := poll(t, c, 1); !errors.Is(err, consumer.ErrNotAssigned) {
			t.Errorf("a refused assignment left something: %v", err)
		}
	})
}

func TestAssign_AddsPartitionsAndMovesThoseItNames(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 3)
		for id := range domain.PartitionID(3) {
			w.append(topic, id, 10)
		}
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.At(4), 0))
		must(t, c.Assign(t.Context(), "orders", consumer.At(7), 1, 1))
		all := read(t, c, 9)
		wantOffsets(t, all, 0, 4, 10)
		wantOffsets(t, all, 1, 7, 10)
		wantQuiet(t, c)
		must(t, c.Assign(t.Context(), "orders", consumer.At(8), 1))
		wantOffsets(t, read(t, c, 2), 1, 8, 10)
		must(t, c.Unassign("orders", 1, 2))
		if _, err := c.Position("orders", 1); !errors.Is(err, consumer.ErrNotAssigned) {
			t.Errorf("unassigned partition: %v", err)
		}
		wantPosition(t, c, "orders", 0, 10)
		if err := c.Seek(t.Context(), "orders", 1, consumer.Start()); !errors.Is(err, consumer.ErrNotAssigned) {
			t.Errorf("seek in an unassigned partition: %v", err)
		}
	})
}

func TestSeek_DropsWhatIsBufferedAndTakesEffectAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		for range 5 {
			w.append(topic, 0, 10)
		}
		w.append(topic, 1, 50)
		c := w.reader(t, func(cfg *consumer.Config) { cfg.FetchBytes = 1 })
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		for _, at := range []domain.Offset{35, 5, 49, 0} {
			read(t, c, 7)
			synctest.Wait()
			must(t, c.Seek(t.Context(), "orders", 0, consumer.At(at)))
			must(t, c.Pause("orders", 1))
			began := time.Now()
			wantOffsets(t, read(t, c, 1), 0, at, at+1)
			if time.Since(began) != 0 {
				t.Fatalf("seek to %d took %v", at, time.Since(began))
			}
			must(t, c.Resume("orders", 1))
		}
	})
}

func TestSeek_WhileAFetchWaitsAtTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 10)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.End()))
		time.AfterFunc(time.Second, func() {
			if err := c.Seek(context.Background(), "orders", 0, consumer.At(3)); err != nil {
				t.Error(err)
			}
		})
		began := time.Now()
		messages, err := c.Poll(t.Context(), 100)
		must(t, err)
		wantOffsets(t, messages, 0, 3, 10)
		if time.Since(began) != time.Second {
			t.Fatalf("returned after %v", time.Since(began))
		}
	})
}

func TestPause_LeavesAPartitionOutAndLosesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		for range 10 {
			w.append(topic, 0, 5)
			w.append(topic, 1, 5)
		}
		c := w.reader(t, func(cfg *consumer.Config) { cfg.FetchBytes = 1 })
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		all := read(t, c, 13)
		must(t, c.Pause("orders", 0))
		more := read(t, c, 30)
		for _, m := range more {
			if m.Partition == 0 {
				t.Fatal("a paused partition was polled")
			}
		}
		must(t, c.Resume("orders"))
		all = append(append(all, more...), read(t, c, 57)...)
		wantOffsets(t, all, 0, 0, 50)
		wantOffsets(t, all, 1, 0, 50)
		must(t, c.Pause("orders"))
		w.append(topic, 0, 1)
		wantQuiet(t, c)
		must(t, c.Resume("orders", 0))
		wantOffsets(t, read(t, c, 1), 0, 50, 51)
		if err := c.Pause("orders", 7); !errors.Is(err, consumer.ErrNotAssigned) {
			t.Errorf("got %v", err)
		}
		if err := c.Resume("ghost"); !errors.Is(err, consumer.ErrNotAssigned) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPauseAndResumeAroundEveryPoll_DoNotFetchTheSameAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 100)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		for range 100 {
			must(t, c.Pause("orders"))
			must(t, c.Resume("orders"))
			read(t, c, 1)
		}
		if n := w.fetches.Load(); n > 3 {
			t.Fatalf("%d fetches for one batch", n)
		}
	})
}

func TestDeletedAndRecreatedTopic_IsNotFoundUntilItIsAssignedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		old := w.topic("orders", 16)
		other := w.topic("audit", 1)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		must(t, c.Assign(t.Context(), "audit", consumer.Start()))
		w.append(old, 0, 3)
		read(t, c, 3)
		must(t, w.DeleteTopic(t.Context(), old.ID))
		again := w.topic("orders", 1)
		w.append(again, 0, 5)
		failures := 0
		deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for {
			messages, err := c.Poll(deadline, 10)
			if len(messages) > 0 {
				t.Fatalf("read %+v", messages[0])
			}
			if errors.Is(err, context.DeadlineExceeded) {
				break
			}
			var missing *domain.TopicNotFoundError
			if !errors.As(err, &missing) || missing.Topic != "orders" {
				t.Fatalf("got %v", err)
			}
			failures++
		}
		if failures < 5 || failures > 25 {
			t.Errorf("told %d times in a minute, want once each back-off for the whole topic", failures)
		}
		w.append(other, 0, 1)
		for {
			messages, err := poll(t, c, 10)
			if err == nil {
				wantOffsets(t, messages, 0, 0, 1)
				break
			}
		}
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		wantOffsets(t, read(t, c, 5), 0, 0, 5)
		wantQuiet(t, c)
	})
}

func TestWidenedTopic_IsReadFromTheStartOfItsNewPartitionsWithinTheRefresh(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 2)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.End()))
		wantQuiet(t, c)
		_, err := w.WidenTopic(t.Context(), topic.ID, 3)
		must(t, err)
		w.append(topic, 2, 4)
		began := time.Now()
		messages, err := c.Poll(t.Context(), 10)
		must(t, err)
		wantOffsets(t, messages, 2, 0, 4)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("noticed after %v", took)
		}
		w.append(topic, 1, 1)
		wantOffsets(t, read(t, c, 1), 1, 0, 1)

		only := w.reader(t)
		must(t, only.Assign(t.Context(), "orders", consumer.Start(), 0))
		read(t, only, 2)
		_, err = w.WidenTopic(t.Context(), topic.ID, 4)
		must(t, err)
		w.append(topic, 3, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := only.Poll(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an assignment of one partition got another: %v", err)
		}
	})
}

func TestWidenedTopic_IsNoticedThoughAllItsOtherPartitionsArePaused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		must(t, c.Pause("orders"))
		wantQuiet(t, c)
		_, err := w.WidenTopic(t.Context(), topic.ID, 2)
		must(t, err)
		w.append(topic, 1, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		messages, err := c.Poll(ctx, 1)
		must(t, err)
		wantOffsets(t, messages, 1, 0, 1)
	})
}

func TestFailedRefresh_IsToldAndTriedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		down := &downTopics{Topics: w}
		c, err := consumer.New(consumer.Ports{Topics: down, Fetcher: w}, settings())
		must(t, err)
		defer c.Close()
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		down.fail = 1
		if _, err := c.Poll(t.Context(), 1); !errors.Is(err, domain.ErrMetadata) {
			t.Fatalf("got %v", err)
		}
		w.append(topic, 0, 1)
		read(t, c, 1)
	})
}

type downTopics struct {
	ports.Topics
	fail int
}

func (d *downTopics) Topic(ctx context.Context, name string) (domain.Topic, error) {
	if d.fail > 0 {
		d.fail--
		return domain.Topic{}, ports.MetadataError("find topic", ports.Transient, errors.New("down"))
	}
	return d.Topics.Topic(ctx, name)
}

func TestLag_CountsFromThePositionToTheFreshHighWatermark(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 2)
		w.append(topic, 0, 10)
		w.trim(topic, 0, 3)
		c := w.reader(t)
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		read(t, c, 2)
		w.append(topic, 0, 5)
		lags, err := c.Lag(t.Context())
		must(t, err)
		want := consumer.PartitionLag{Topic: "orders", Partition: 0, Position: 5, LogStart: 3, HighWatermark: 15, Lag: 10}
		if len(lags) != 2 || lags[0] != want || lags[1].Lag != 0 || lags[1].Partition != 1 {
			t.Fatalf("got %+v", lags)
		}
		must(t, w.DeleteTopic(t.Context(), topic.ID))
		if lags, err := c.Lag(t.Context()); !errors.Is(err, domain.ErrTopicNotFound) || len(lags) != 0 {
			t.Errorf("after deletion: %v, %v", lags, err)
		}
	})
}
