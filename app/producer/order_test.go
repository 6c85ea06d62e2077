package producer

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// Found by the simulator, seed 466: the second batch came back stored behind
// the first, whose answer was lost; both were given up, and the second was said not
// to be stored.
func TestSend_BatchStoredBehindAnUnclearOneIsNotSaidToBeUnstored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		w.hold = make(chan struct{})
		seen := map[domain.Sequence]bool{}
		w.judgeBy(func(_ ports.Batch, h batch.Header) fate {
			again := seen[h.Producer.Sequence]
			seen[h.Producer.Sequence] = true
			switch {
			case again:
				return drop
			case h.Producer.Sequence == 0:
				return loseAnswer
			}
			return deliver
		})
		p := w.open(t, func(c *Config) { c.BatchSize, c.MaxRetries = 1, 1 })
		first := p.SendAsync(t.Context(), value("a"), nil)
		synctest.Wait()
		second := p.SendAsync(t.Context(), value("b"), nil)
		synctest.Wait()
		close(w.hold)
		for i, pending := range []*Pending{first, second} {
			if r, err := pending.Wait(t.Context()); err != nil || r.Offset != domain.Offset(i) {
				t.Errorf("record %d: offset %d, error %v, want it acknowledged where it is", i, r.Offset, err)
			}
		}
	})
}

// refusing is a transport that takes the first batch for out of order: it lost
// the one before it.
type refusing struct {
	*wire
	refused bool
}

func (r *refusing) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	if r.refused {
		return r.wire.Append(ctx, batches, settle)
	}
	r.refused = true
	r.queue <- func() {
		for i := range batches {
			settle(i, ports.AppendResult{Base: -1, Err: domain.ErrOutOfOrder})
		}
	}
	return nil
}

// Found by the simulator, seed 15: the producer went round and round for a new
// session, which a batch without a number cannot take.
func TestSend_OutOfOrderWithoutIdempotenceIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		cfg := DefaultConfig()
		cfg.Idempotence = false
		p, err := New(t.Context(), Ports{Topics: w, Producers: w, Transport: &refusing{wire: w}, Telemetry: ports.NoTelemetry{}}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := p.Send(t.Context(), value("v")); err != nil || r.Offset != 0 {
			t.Errorf("offset %d, error %v, want it stored at 0", r.Offset, err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// registrationAway is a metadata store that opens no sessions while set.
type registrationAway struct {
	ports.Producers
	away atomic.Bool
}

func (r *registrationAway) RegisterProducer(ctx context.Context, name string) (ports.ProducerSession, error) {
	if r.away.Load() {
		return ports.ProducerSession{}, errDropped
	}
	return r.Producers.RegisterProducer(ctx, name)
}

// Found by the simulator, seed 8047: a batch in doubt was given up while its
// expired session could not be replaced, and was never heard of again.
func TestSend_GivenUpBatchOfALostSessionHearsThatItsFateIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		p := w.open(t, nil)
		sessions := &registrationAway{Producers: w}
		p.producers = sessions
		if _, err := p.Send(t.Context(), value("first")); err != nil {
			t.Fatal(err)
		}
		<-time.After(ports.ProducerExpiry + time.Minute)
		attempts := 0
		w.judgeBy(func(ports.Batch, batch.Header) fate {
			if attempts++; attempts == 1 {
				return loseBatch
			}
			return deliver
		})
		sessions.away.Store(true)
		began := time.Now()
		_, err := p.Send(t.Context(), value("second"))
		if took := time.Since(began); took > p.cfg.DeliveryTimeout+6*time.Second {
			t.Errorf("told after %s", took)
		}
		if domain.FateOf(err).Stored != domain.StoredUnknown {
			t.Errorf("error %v, want one that says that the outcome is unknown", err)
		}
		sessions.away.Store(false)
		if r, err := p.Send(t.Context(), value("third")); err != nil || r.Offset != 1 {
			t.Errorf("third record: offset %d, error %v", r.Offset, err)
		}
	})
}
