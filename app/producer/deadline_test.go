package producer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func TestDeliveryTimeout_HoldsWhileTheMetadataStoreHangsOverANewSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 2)
		p := h.open(t, func(c *Config) { c.DeliveryTimeout = 10 * time.Second })
		for id := range domain.PartitionID(2) {
			if _, err := p.Send(t.Context(), toPartition(id)); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(25 * time.Hour)
		h.set(func(h *hooks) {
			h.register = func(ctx context.Context, _ string) (ports.ProducerSession, error) {
				return ports.ProducerSession{}, hang(ctx)
			}
		})
		accepted := time.Now()
		pendings := []*Pending{p.SendAsync(t.Context(), toPartition(0), nil), p.SendAsync(t.Context(), toPartition(1), nil)}
		<-time.After(5 * time.Second)
		late := p.SendAsync(t.Context(), toPartition(0), nil)
		for _, pending := range pendings {
			err := settledBy(t, pending, accepted, 10*time.Second)
			if f := domain.FateOf(err); !errors.Is(err, domain.ErrTimeout) || f.Stored != domain.StoredNo || f.Fatal {
				t.Errorf("error %v with fate %+v, want a timeout, not stored, the producer still of use", err, f)
			}
		}
		settledBy(t, late, accepted.Add(5*time.Second), 10*time.Second)
		h.set(func(h *hooks) { h.register = nil })
		<-time.After(time.Minute) // the hanging call ends with RequestTimeout
		for id := range domain.PartitionID(2) {
			if r, err := p.Send(t.Context(), toPartition(id)); err != nil || r.Offset != 1 {
				t.Errorf("partition %d after the outage: offset %d, error %v, want 1", id, r.Offset, err)
			}
		}
	})
}

func TestDeliveryTimeout_HoldsForEveryBatchWhileTheMetadataStoreHangsOverGivenUpOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 1)
		p := h.open(t, func(c *Config) {
			c.DeliveryTimeout, c.RequestTimeout, c.BatchSize, c.BatchBytes = 10*time.Second, 30*time.Second, 1, 1
		})
		h.append = func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			context.AfterFunc(ctx, func() { settleAll(batches, settle, errLost) })
			return nil
		}
		h.abandon = func(ctx context.Context, _ ports.AbandonedBatch) (commit.Outcome, error) {
			return commit.Outcome{}, hang(ctx)
		}
		accepted := time.Now()
		var pendings []*Pending
		for range 8 { // five in flight, the window, and three behind
			pendings = append(pendings, p.SendAsync(t.Context(), value("v"), nil))
			synctest.Wait()
		}
		for i, pending := range pendings {
			err := settledBy(t, pending, accepted, 10*time.Second)
			want := domain.StoredUnknown
			if i >= 5 {
				want = domain.StoredNo
			}
			if f := domain.FateOf(err); f.Stored != want {
				t.Errorf("record %d: %v says stored %s, want %s", i, err, f.Stored, want)
			}
		}
		accepted = time.Now()
		settledBy(t, p.SendAsync(t.Context(), value("blocked"), nil), accepted, 10*time.Second)
		h.set(func(h *hooks) { h.append, h.abandon = nil, nil })
		<-time.After(time.Minute)
		if r, err := p.Send(t.Context(), value("after")); err != nil || r.Offset != 0 {
			t.Errorf("record after the outage: offset %d, error %v, want 0", r.Offset, err)
		}
	})
}

func TestDeliveryTimeout_HoldsForAllWhileAnAppendHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 2)
		p := h.open(t, func(c *Config) { c.DeliveryTimeout = 20 * time.Second })
		if _, err := p.Send(t.Context(), toPartition(1)); err != nil {
			t.Fatal(err)
		}
		h.append = func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			if batches[0].Partition == 0 {
				settleAll(batches, settle, errDropped)
				return nil
			}
			return hang(ctx)
		}
		accepted := time.Now()
		failing := p.SendAsync(t.Context(), toPartition(0), nil)
		<-time.After(3 * time.Second)
		hanging := p.SendAsync(t.Context(), toPartition(1), nil) // until 23 s
		<-time.After(time.Second)
		waiting := p.SendAsync(t.Context(), toPartition(0), nil)
		if err := settledBy(t, failing, accepted, 20*time.Second); domain.FateOf(err).Stored != domain.StoredNo {
			t.Errorf("%v, want not stored", err)
		}
		settledBy(t, hanging, accepted.Add(3*time.Second), 20*time.Second)
		settledBy(t, waiting, accepted.Add(4*time.Second), 20*time.Second)
		h.set(func(h *hooks) { h.append = nil })
	})
}

func TestDeliveryTimeout_HoldsForWhatWasNeverSentForWantOfRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		topic := h.topic(t, 1)
		p := h.open(t, func(c *Config) { c.DeliveryTimeout, c.BatchBytes = 10*time.Second, 1 })
		h.append = func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			return ports.StorageError("append", ports.Transient, hang(ctx))
		}
		accepted := time.Now()
		var pendings []*Pending
		for range 20 {
			pendings = append(pendings, p.SendAsync(t.Context(), value("v"), nil))
		}
		for _, pending := range pendings {
			if err := settledBy(t, pending, accepted, 10*time.Second); domain.FateOf(err).Stored != domain.StoredNo {
				t.Errorf("%v, want not stored", err)
			}
		}
		h.set(func(h *hooks) { h.append = nil })
		if r, err := p.Send(t.Context(), value("after")); err != nil || r.Offset != 0 || h.stored(t, topic, 0) != 1 {
			t.Errorf("record after the outage: offset %d, error %v, want 0", r.Offset, err)
		}
	})
}

// One batch that waited nearly up to its deadline must not take its short time
// to all that travel with it.
func TestSend_OldBatchDoesNotCutTheRequestOfOthersShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 3)
		p := h.open(t, func(c *Config) { c.DeliveryTimeout = 10 * time.Second })
		given := map[domain.PartitionID]time.Duration{}
		h.append = func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			if len(given) == 0 {
				<-time.After(9 * time.Second) // there is no room
			}
			for i, b := range batches {
				deadline, _ := ctx.Deadline()
				given[b.Partition] = time.Until(deadline)
				settle(i, ports.AppendResult{})
			}
			return nil
		}
		pendings := []*Pending{p.SendAsync(t.Context(), toPartition(0), nil)}
		synctest.Wait()
		pendings = append(pendings, p.SendAsync(t.Context(), toPartition(1), nil))
		<-time.After(8 * time.Second)
		pendings = append(pendings, p.SendAsync(t.Context(), toPartition(2), nil))
		for i, pending := range pendings {
			if _, err := pending.Wait(t.Context()); err != nil {
				t.Errorf("record %d: %v", i, err)
			}
		}
		if given[1] != time.Second || given[2] != 9*time.Second {
			t.Errorf("the old batch was given %s and the new one %s, want 1s and 9s", given[1], given[2])
		}
	})
}

func TestSend_BatchThatHangsDoesNotHoldTheBudgetOfItsNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 2)
		p := h.open(t, func(c *Config) { c.BufferBytes = 100_000 })
		h.append = func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			for i, b := range batches {
				if b.Partition == 0 {
					context.AfterFunc(ctx, func() { settle(i, ports.AppendResult{Base: -1, Err: errLost}) })
					continue
				}
				settle(i, ports.AppendResult{})
			}
			return nil
		}
		r := toPartition(1)
		r.Value = make([]byte, 20_000)
		for range 5 {
			p.SendAsync(t.Context(), toPartition(0), nil)
			p.SendAsync(t.Context(), r, nil)
			<-time.After(time.Second)
		}
		began := time.Now()
		if _, err := p.Send(t.Context(), toPartition(1)); err != nil || time.Since(began) > time.Second {
			t.Errorf("send beside hanging batches took %s, error %v", time.Since(began), err)
		}
		h.set(func(h *hooks) { h.append = nil })
	})
}

func TestProducer_IdleForADayCallsNobodyAndHoldsNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 4)
		p := h.open(t, nil)
		for range 100 {
			if _, err := p.Send(t.Context(), value("v")); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(p.cfg.DeliveryTimeout + time.Second)
		h.mu.Lock()
		before := h.calls
		h.mu.Unlock()
		if at := p.reaper.at.Load(); at != never {
			t.Errorf("a timer is set for %d", at)
		}
		<-time.After(24 * time.Hour)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.calls != before {
			t.Errorf("an idle producer made %d calls in a day", h.calls-before)
		}
		if used, retained := p.budget.used.Load(), p.retained.Load(); used != 0 || retained != 0 {
			t.Errorf("it holds %d bytes of its budget, %d retained", used, retained)
		}
	})
}

// Found by the property test: a batch that came back unstored waited past its
// deadline for a younger one in flight.
func TestDeliveryTimeout_HoldsForAFailedBatchThatWaitsForAYoungerInFlight(t *testing.T) {
	for name, c := range map[string]struct {
		answer error
		stored domain.Stored
	}{"dropped": {errDropped, domain.StoredNo}, "unclear": {errLost, domain.StoredUnknown}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHooks(t)
				h.topic(t, 1)
				p := h.open(t, func(c *Config) { c.DeliveryTimeout, c.BatchSize = 10*time.Second, 1 })
				h.append = func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
					if len(h.sent()) == 0 {
						h.appends = append(h.appends, nil)
						time.AfterFunc(9500*time.Millisecond, func() { settleAll(batches, settle, c.answer) })
					} else {
						context.AfterFunc(ctx, func() { settleAll(batches, settle, errLost) })
					}
					return nil
				}
				accepted := time.Now()
				first := p.SendAsync(t.Context(), value("first"), nil)
				<-time.After(9 * time.Second)
				p.SendAsync(t.Context(), value("younger"), nil)
				if err := settledBy(t, first, accepted, 10*time.Second); domain.FateOf(err).Stored != c.stored {
					t.Errorf("%v says stored %s, want %s", err, domain.FateOf(err).Stored, c.stored)
				}
				<-time.After(30 * time.Second)
				h.set(func(h *hooks) { h.append = nil })
				if r, err := p.Send(t.Context(), value("after")); err != nil || r.Offset != 0 {
					t.Errorf("after that: offset %d, error %v, want 0", r.Offset, err)
				}
			})
		})
	}
}

func TestErrors_SayWhatEnded(t *testing.T) {
	cause := errors.New("disk is gone")
	for _, err := range []error{notAccepted("t", cause), &endedError{cause}, sessionLost(cause)} {
		if !errors.Is(err, cause) || !strings.HasSuffix(err.Error(), ": disk is gone") {
			t.Errorf("error %q does not say its cause", err)
		}
	}
}
