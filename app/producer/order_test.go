package producer

import (
	"context"
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

// Found by the simulator, seed 331: a producer that gives up at the first failure
// gave up all its records for want of a session, and never took another one.
func TestSend_ExpiredSessionIsReplacedThoughNothingIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		p := w.open(t, func(c *Config) { c.MaxRetries = 0 })
		if _, err := p.Send(t.Context(), value("first")); err != nil {
			t.Fatal(err)
		}
		<-time.After(ports.ProducerExpiry + time.Minute)
		for i, v := range []string{"second", "third"} {
			if r, err := p.Send(t.Context(), value(v)); err != nil || r.Offset != domain.Offset(i+1) {
				t.Errorf("%s record: offset %d, error %v; to learn that the session is gone is no attempt", v, r.Offset, err)
			}
		}
	})
}

// Found by the simulator, seed 491027: a record joined a batch that had waited behind
// slow ones for nearly its whole delivery time, and was given up with it before an attempt.
func TestSend_RecordDoesNotJoinABatchThatHasWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		w.hold = make(chan struct{})
		p := w.open(t, func(c *Config) { c.BatchSize, c.DeliveryTimeout = 1, 16*time.Second })
		var pendings []*Pending
		for range 9 { // until none of them is sent any more
			pendings = append(pendings, p.SendAsync(t.Context(), value("early"), nil))
			<-time.After(p.cfg.BatchTimeout + time.Millisecond)
		}
		<-time.After(3 * time.Second)
		pendings = append(pendings, p.SendAsync(t.Context(), value("late"), nil))
		close(w.hold)
		for i, pending := range pendings {
			if r, err := pending.Wait(t.Context()); err != nil || r.Offset != domain.Offset(i) {
				t.Errorf("record %d: offset %d, error %v", i, r.Offset, err)
			}
		}
		requests := w.sent()
		if last := requests[len(requests)-1]; last[len(last)-1].Records != 1 {
			t.Errorf("the late record's batch has %d records: it joined the early", last[len(last)-1].Records)
		}
	})
}
