package producer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// A topic that came back would number its batches from 0 again, and the store
// would take new records for old ones: acknowledged, never stored.
func TestSend_LateLookUpDoesNotBringADeletedTopicBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		old := h.topic(t, 1)
		p := h.open(t, nil)
		release := make(chan struct{})
		h.lookUp = func(ctx context.Context, name string) (domain.Topic, error) {
			h.set(func(h *hooks) { h.lookUp = nil })
			found, err := h.wire.Topic(ctx, name)
			<-release
			return found, err
		}
		late := make(chan error)
		go func() {
			_, err := p.Send(t.Context(), value("late"))
			late <- err
		}()
		synctest.Wait()
		if err := h.DeleteTopic(t.Context(), old.ID); err != nil {
			t.Fatal(err)
		}
		fresh := h.topic(t, 1)
		if _, err := p.Send(t.Context(), value("a")); err != nil {
			t.Fatal(err)
		}
		close(release)
		acknowledged := domain.Offset(1)
		if err := <-late; err == nil {
			acknowledged++
		}
		for range 3 {
			if _, err := p.Send(t.Context(), value("b")); err != nil {
				t.Fatal(err)
			}
			acknowledged++
		}
		if n := h.stored(t, fresh, 0); n != acknowledged {
			t.Errorf("%d records acknowledged, %d stored", acknowledged, n)
		}
	})
}

func TestTopics_ReplacedOneTakesNoBatchAndIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		p := w.open(t, nil)
		if _, err := p.Send(t.Context(), value("v")); err != nil {
			t.Fatal(err)
		}
		known := p.topics.find("t")
		if err := w.DeleteTopic(t.Context(), topic.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Send(t.Context(), value("v")); !errors.Is(err, domain.ErrTopicNotFound) {
			t.Fatalf("error %v, want ErrTopicNotFound", err)
		}
		w.topic(t, 1)
		if _, err := p.Send(t.Context(), value("v")); err != nil {
			t.Fatal(err)
		}
		r := value("late")
		if _, err := known.partition(0).append(&r, 100, 0, nil, nil); !errors.Is(err, errTopicReplaced) {
			t.Errorf("batch begun in the replaced topic: %v", err)
		}
		p.topics.prune()
		if n := len(p.topics.all); n != 1 {
			t.Errorf("%d topics are kept, want 1", n)
		}
	})
}

func TestTrySend_EveryMissingTopicIsToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		p := w.open(t, nil)
		told := map[string]int{}
		for range 4 {
			for _, name := range []string{"a", "b", "c"} {
				_, err := p.TrySend(domain.Record{Topic: name}, nil)
				switch {
				case errors.Is(err, domain.ErrTopicNotFound):
					told[name]++
				case !errors.Is(err, domain.ErrWouldBlock):
					t.Errorf("topic %s: %v", name, err)
				}
			}
			synctest.Wait()
		}
		for _, name := range []string{"a", "b", "c"} {
			if told[name] != 2 {
				t.Errorf("topic %s was said to be missing %d times of 4, want 2", name, told[name])
			}
		}
	})
}

func TestTrySend_LookUpsInTheBackgroundAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		p := h.open(t, nil)
		running := 0
		h.lookUp = func(ctx context.Context, _ string) (domain.Topic, error) {
			running++
			return domain.Topic{}, hang(ctx)
		}
		for i := range 2 * maxLookUps {
			if _, err := p.TrySend(domain.Record{Topic: string(rune('a'+i%26)) + string(rune('a'+i/26))}, nil); !errors.Is(err, domain.ErrWouldBlock) {
				t.Errorf("%v, want ErrWouldBlock", err)
			}
			synctest.Wait()
		}
		if running != maxLookUps {
			t.Errorf("%d look-ups run, want %d", running, maxLookUps)
		}
		<-time.After(p.cfg.RequestTimeout)
		synctest.Wait()
		if _, err := p.TrySend(domain.Record{Topic: "zz"}, nil); !errors.Is(err, domain.ErrWouldBlock) {
			t.Errorf("%v, want ErrWouldBlock", err)
		}
		if n := len(p.lookUps.names); n > maxLookUps {
			t.Errorf("%d names are remembered, want %d at most", n, maxLookUps)
		}
	})
}

func TestTrySend_NewPartitionIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		p := w.open(t, nil)
		if _, err := p.Send(t.Context(), value("v")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.WidenTopic(t.Context(), topic.ID, 2); err != nil {
			t.Fatal(err)
		}
		<-time.After(topicAge + time.Second)
		if _, err := p.TrySend(toPartition(1), nil); !errors.Is(err, domain.ErrInvalidPartition) {
			t.Fatalf("error %v, want ErrInvalidPartition as far as is known", err)
		}
		synctest.Wait()
		pending, err := p.TrySend(toPartition(1), nil)
		if err != nil {
			t.Fatalf("error %v after the topic was read again", err)
		}
		if r, err := pending.Wait(t.Context()); err != nil || r.Partition != 1 {
			t.Errorf("%+v, error %v", r, err)
		}
	})
}

func TestSend_LookUpThatFailsForGoodIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		p := h.open(t, nil)
		h.lookUp = func(context.Context, string) (domain.Topic, error) {
			return domain.Topic{}, ports.MetadataError("topic", ports.Fatal, errors.New("disk is gone"))
		}
		_, err := p.Send(t.Context(), value("v"))
		if f := domain.FateOf(err); f.Stored != domain.StoredNo || !f.Fatal || f.Retry || errors.Is(err, domain.ErrTimeout) {
			t.Errorf("error %v with fate %+v, want not stored, fatal", err, f)
		}
		h.lookUp = func(ctx context.Context, _ string) (domain.Topic, error) { return domain.Topic{}, hang(ctx) }
		began := time.Now()
		_, err = p.Send(t.Context(), value("v"))
		if f := domain.FateOf(err); f.Stored != domain.StoredNo || !f.Retry || !errors.Is(err, domain.ErrTimeout) || time.Since(began) > 31*time.Second {
			t.Errorf("error %v with fate %+v after %s, want not stored, a timeout", err, f, time.Since(began))
		}
	})
}

func TestSend_PartitionThatTheLogDoesNotHaveFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		topic := h.topic(t, 2)
		p := h.open(t, nil)
		h.append = func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			if batches[0].Partition == 1 {
				settleAll(batches, settle, &domain.InvalidPartitionError{Topic: "t", Partition: 1, Count: 1})
				return nil
			}
			return h.wire.Append(ctx, batches, settle)
		}
		acknowledged := domain.Offset(0)
		for range 3 {
			if _, err := p.Send(t.Context(), toPartition(0)); err != nil {
				t.Fatal(err)
			}
			acknowledged++
			if _, err := p.Send(t.Context(), toPartition(1)); !errors.Is(err, domain.ErrInvalidPartition) || domain.FateOf(err).Stored != domain.StoredNo {
				t.Errorf("%v, want ErrInvalidPartition, not stored", err)
			}
		}
		if n := h.stored(t, topic, 0); n != acknowledged {
			t.Errorf("%d records acknowledged, %d stored", acknowledged, n)
		}
	})
}

// The store says that the batch's topic is gone: what was stored went with it.
func TestSend_UnclearBatchOfADeletedTopicIsNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		w.judgeBy(func(ports.Batch, batch.Header) fate {
			if len(w.sent()) == 1 {
				return loseAnswer
			}
			return deliver
		})
		p := w.open(t, nil)
		pending := p.SendAsync(t.Context(), value("v"), nil)
		synctest.Wait()
		if err := w.DeleteTopic(t.Context(), topic.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := pending.Wait(t.Context()); !errors.Is(err, domain.ErrTopicNotFound) {
			t.Errorf("%v, want ErrTopicNotFound", err)
		}
	})
}
