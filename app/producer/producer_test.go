package producer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSend_ReturnsTheOffsetOfADurableRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		p := w.open(t, nil)
		for i := range 3 {
			r, err := p.Send(t.Context(), value("v"))
			if err != nil {
				t.Fatal(err)
			}
			if r.Offset != domain.Offset(i) || r.Topic != "t" || r.Timestamp.IsZero() {
				t.Errorf("result %+v, want offset %d of topic t with a timestamp", r, i)
			}
		}
		if n := w.stored(t, topic, 0); n != 3 {
			t.Errorf("%d records stored, want 3", n)
		}
	})
}

func TestSend_LoneRecordDoesNotWaitForBatchTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		p := w.open(t, nil)
		began := time.Now()
		for range 5 {
			if _, err := p.Send(t.Context(), value("v")); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("5 lone sends took %s of virtual time, want none", took)
		}
	})
}

func TestSendAsync_RecordsGatherWhileARequestIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		w.hold = make(chan struct{}, 100)
		p := w.open(t, nil)
		first := p.SendAsync(t.Context(), value("first"), nil)
		synctest.Wait()
		var rest []*Pending
		for range 50 {
			rest = append(rest, p.SendAsync(t.Context(), value("v"), nil))
		}
		synctest.Wait()
		if n := len(w.appends); n != 1 {
			t.Fatalf("%d requests before the first is answered, want 1", n)
		}
		w.hold <- struct{}{}
		w.hold <- struct{}{}
		for i, pending := range append([]*Pending{first}, rest...) {
			r, err := pending.Wait(t.Context())
			if err != nil || r.Offset != domain.Offset(i) {
				t.Fatalf("record %d: offset %d, error %v", i, r.Offset, err)
			}
		}
		if n := len(w.appends); n != 2 || w.appends[1][0].Records != 50 {
			t.Errorf("%d requests, want the 50 records in the second", n)
		}
	})
}

func TestSendAsync_BatchSizeTriggersASecondRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		w.hold = make(chan struct{}, 100)
		p := w.open(t, func(c *Config) { c.BatchSize = 10 })
		p.SendAsync(t.Context(), value("first"), nil)
		synctest.Wait()
		for range 9 {
			p.SendAsync(t.Context(), value("v"), nil)
		}
		synctest.Wait()
		if n := len(w.appends); n != 1 {
			t.Fatalf("%d requests with 9 records waiting, want 1", n)
		}
		p.SendAsync(t.Context(), value("tenth"), nil)
		synctest.Wait()
		if n := len(w.appends); n != 2 {
			t.Errorf("%d requests with BatchSize records waiting, want 2", n)
		}
		close(w.hold)
	})
}

// lateWire is a wire that serves each request 400 ms late, any number at once.
type lateWire struct{ *wire }

func (l lateWire) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	go func() {
		<-time.After(400 * time.Millisecond)
		_ = l.wire.Append(ctx, batches, settle) // always nil
	}()
	return nil
}

// Where requests take four times BatchTimeout, one more for each BatchTimeout would
// make small batches of many partitions, and requests slower still.
func TestSendAsync_ManyPartitionsMakeFullerBatchesWhereRequestsAreSlow(t *testing.T) {
	for _, c := range []struct {
		partitions  int32
		least, most int // records of a batch on average
	}{{crowd / 2, 1, 3}, {2 * crowd, 4, 16}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWire(t)
			w.topic(t, c.partitions)
			cfg := DefaultConfig()
			cfg.Seed = 1
			p, err := New(t.Context(), Ports{Topics: w, Producers: w, Transport: lateWire{w}, Telemetry: ports.NoTelemetry{}}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			const rounds = 100
			for range rounds {
				for i := range c.partitions {
					r := value("v")
					r.Partition = domain.ToPartition(domain.PartitionID(i))
					p.SendAsync(t.Context(), r, nil)
				}
				<-time.After(50 * time.Millisecond)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			batches := 0
			for _, request := range w.sent() {
				batches += len(request)
			}
			each := rounds * int(c.partitions) / batches
			if t.Logf("%d partitions: %d records a batch", c.partitions, each); each < c.least || each > c.most {
				t.Errorf("%d partitions: %d records a batch, want %d to %d", c.partitions, each, c.least, c.most)
			}
		})
	}
}

// However long requests usually take, records of many partitions wait for crowdLimit at most.
func TestSendAsync_NoRecordOfManyPartitionsWaitsLongerThanASecondForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 2*crowd)
		w.hold = make(chan struct{})
		p := w.open(t, nil)
		p.dispatcher.mu.Lock()
		p.dispatcher.usual = time.Hour
		p.dispatcher.mu.Unlock()
		p.SendAsync(t.Context(), value("stuck"), nil)
		synctest.Wait()
		began := time.Now()
		for i := range int32(2 * crowd) {
			r := value("v")
			r.Partition = domain.ToPartition(domain.PartitionID(i))
			p.SendAsync(t.Context(), r, nil)
		}
		w.await(t, 2)
		if waited := time.Since(began); waited <= DefaultConfig().BatchTimeout || waited > crowdLimit+time.Millisecond {
			t.Errorf("the records waited for %s, want more than BatchTimeout and at most %s", waited, crowdLimit)
		}
		close(w.hold)
	})
}

func TestSendAsync_NoRecordWaitsLongerThanBatchTimeoutForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		w.hold = make(chan struct{}, 100)
		p := w.open(t, nil)
		p.SendAsync(t.Context(), value("stuck"), nil)
		synctest.Wait()
		began := time.Now()
		p.SendAsync(t.Context(), value("second"), nil)
		for len(w.sent()) < 2 {
			<-time.After(time.Millisecond) // of the bubble's clock
			synctest.Wait()
		}
		if took := time.Since(began); took > 101*time.Millisecond {
			t.Errorf("second record left after %s, want 100ms at most", took)
		}
		close(w.hold)
	})
}

func TestSend_KeepsOrderAndStoresOnceThroughEveryFailure(t *testing.T) {
	for name, bad := range map[string]fate{"refused": drop, "answer lost": loseAnswer, "batch lost": loseBatch} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				topic := w.topic(t, 1)
				calls := 0
				w.judgeBy(func(ports.Batch, batch.Header) fate {
					calls++
					if calls%3 == 1 {
						return bad
					}
					return deliver
				})
				p := w.open(t, nil)
				var pendings []*Pending
				for i := range 200 {
					pendings = append(pendings, p.SendAsync(t.Context(), value(fmt.Sprint(i)), nil))
					if i%7 == 0 {
						synctest.Wait()
					}
				}
				for i, pending := range pendings {
					if r, err := pending.Wait(t.Context()); err != nil || r.Offset != domain.Offset(i) {
						t.Fatalf("record %d: offset %d, error %v", i, r.Offset, err)
					}
				}
				if n := w.stored(t, topic, 0); n != 200 {
					t.Errorf("%d records stored, want 200", n)
				}
			})
		})
	}
}

func TestSend_GivesUpAtDeliveryTimeoutAsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		w.judgeBy(always(drop))
		p := w.open(t, nil)
		began := time.Now()
		_, err := p.Send(t.Context(), value("v"))
		if took := time.Since(began); took < 2*time.Minute || took > 2*time.Minute+time.Second {
			t.Errorf("gave up after %s, want 2 min", took)
		}
		var delivery *domain.DeliveryError
		if !errors.As(err, &delivery) || delivery.Outcome != domain.StoredNo || !errors.Is(err, domain.ErrTimeout) || delivery.Attempts < 2 {
			t.Fatalf("error %v, want a DeliveryError that says: not stored", err)
		}
		w.judgeBy(always(deliver))
		if r, err := p.Send(t.Context(), value("after")); err != nil || r.Offset != 0 {
			t.Errorf("send after the outage: offset %d, error %v, want 0", r.Offset, err)
		}
		if n := w.stored(t, topic, 0); n != 1 {
			t.Errorf("%d records stored, want 1", n)
		}
	})
}

func TestSend_UnclearOutcomeIsSettledWithTheMetadataStore(t *testing.T) {
	for name, bad := range map[string]fate{"was stored": loseAnswer, "was not": loseBatch} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				topic := w.topic(t, 1)
				w.judgeBy(always(bad))
				p := w.open(t, func(c *Config) { c.MaxRetries = 2 })
				r, err := p.Send(t.Context(), value("v"))
				want := domain.Offset(0)
				if bad == loseAnswer {
					if err != nil || r.Offset != 0 {
						t.Fatalf("offset %d, error %v, want it acknowledged at 0", r.Offset, err)
					}
					want = 1
				} else if f := domain.FateOf(err); f.Stored != domain.StoredNo {
					t.Fatalf("error %v says stored %s, want no", err, f.Stored)
				}
				w.judgeBy(always(deliver))
				if r, err := p.Send(t.Context(), value("next")); err != nil || r.Offset != want {
					t.Errorf("next record: offset %d, error %v, want %d", r.Offset, err, want)
				}
				if n := w.stored(t, topic, 0); n != want+1 {
					t.Errorf("%d records stored, want %d", n, want+1)
				}
			})
		})
	}
}

func TestSend_AFailingPartitionDoesNotStallTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 2)
		w.judgeBy(func(b ports.Batch, _ batch.Header) fate {
			if b.Partition == 0 {
				return drop
			}
			return deliver
		})
		p := w.open(t, nil)
		stuck := p.SendAsync(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(0)}, nil)
		began := time.Now()
		for range 100 {
			if _, err := p.Send(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(1)}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("100 sends beside a failing partition took %s", took)
		}
		select {
		case <-stuck.Done():
			t.Error("the record of the failing partition is settled")
		default:
		}
		w.judgeBy(always(deliver))
		if _, err := stuck.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestSendAsync_CallbacksRunInOrderAndASlowOneDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 2)
		p := w.open(t, nil)
		var mu sync.Mutex
		var seen []domain.Offset
		slow := make(chan struct{})
		p.SendAsync(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(0)}, func(domain.SendResult, error) { <-slow })
		for range 10 {
			p.SendAsync(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(0)}, func(r domain.SendResult, err error) {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, r.Offset)
			})
		}
		for range 10 {
			if _, err := p.Send(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(0)}); err != nil {
				t.Fatal(err)
			}
		}
		mu.Lock()
		if len(seen) != 0 {
			t.Errorf("%d callbacks overtook the slow one", len(seen))
		}
		mu.Unlock()
		close(slow)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, offset := range seen {
			if offset != domain.Offset(i+1) {
				t.Fatalf("callbacks saw offsets %v, want 1 to 10 in order", seen)
			}
		}
		if len(seen) != 10 {
			t.Errorf("%d callbacks ran before Flush returned, want 10", len(seen))
		}
	})
}

// However many callbacks are slow, those of the other partitions run.
func TestSendAsync_ASlowCallbackHoldsUpItsPartitionOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions, slow = 8, 3
		w := newWire(t)
		w.topic(t, partitions)
		p := w.open(t, nil)
		end := make(chan struct{})
		var called [partitions]atomic.Int32
		for range 2 {
			for id := range domain.PartitionID(partitions) {
				p.SendAsync(t.Context(), domain.Record{Topic: "t", Partition: domain.ToPartition(id)}, func(domain.SendResult, error) {
					if id < slow {
						<-end
					}
					called[id].Add(1)
				})
			}
			synctest.Wait()
		}
		for id := range called {
			want := int32(2)
			if id < slow {
				want = 0
			}
			if n := called[id].Load(); n != want {
				t.Errorf("%d callbacks of partition %d have run, want %d", n, id, want)
			}
		}
		close(end)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSend_BadInputIsRefusedAndOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 2)
		p := w.open(t, nil)
		records := []domain.Record{
			value("good"),
			{Topic: "t", Value: make([]byte, domain.MaxRecordBytes+1)},
			{Topic: "t", Headers: make([]domain.Header, domain.MaxHeaders+1)},
			{Topic: "t", Partition: domain.ToPartition(2)},
			{Topic: "t", Partition: domain.ToPartition(-1)},
			{Topic: "missing"},
			{Topic: "../t"},
			{Topic: "t", Value: make([]byte, domain.MaxRecordBytes)},
		}
		wants := []error{nil, domain.ErrRecordTooLarge, domain.ErrRecordTooLarge, domain.ErrInvalidPartition, domain.ErrInvalidPartition, domain.ErrTopicNotFound, domain.ErrInvalidName, nil}
		results, err := p.SendBatch(t.Context(), records)
		var failed *BatchError
		if !errors.As(err, &failed) {
			t.Fatalf("error %v, want a *BatchError", err)
		}
		for i, want := range wants {
			if !errors.Is(failed.Errors[i], want) {
				t.Errorf("record %d: error %v, want %v", i, failed.Errors[i], want)
			}
			if want != nil && domain.FateOf(failed.Errors[i]).Stored != domain.StoredNo {
				t.Errorf("record %d: %v does not say that it was not stored", i, failed.Errors[i])
			}
			if (results[i].Offset >= 0) != (want == nil) {
				t.Errorf("record %d: offset %d, error %v", i, results[i].Offset, failed.Errors[i])
			}
		}
		if !strings.HasPrefix(err.Error(), "6 of 8 records failed") {
			t.Errorf("error %q does not begin with the count", err)
		}
		var partition *domain.InvalidPartitionError
		if !errors.As(failed.Errors[3], &partition) || partition.Count != 2 || partition.Partition != 2 {
			t.Errorf("error %v does not name partition and count", failed.Errors[3])
		}
	})
}

func TestSend_ContextBoundsTheWaitAndDoesNotWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		topic := w.topic(t, 1)
		w.hold = make(chan struct{}, 10)
		p := w.open(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Send(ctx, value("v"))
		if !errors.Is(err, domain.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v, want ErrOutcomeUnknown and the context's", err)
		}
		close(w.hold)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := w.stored(t, topic, 0); n != 1 {
			t.Errorf("%d records stored, want 1", n)
		}
	})
}
