package producer

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func TestSend_TransportThatWasClosedEndsTheProducer(t *testing.T) {
	for name, closed := range map[string]error{
		"as it is": domain.ErrClosed, "wrapped": ports.MetadataError("commit", ports.Definite, domain.ErrClosed),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHooks(t)
				h.topic(t, 2)
				p := h.open(t, nil)
				h.append = func(context.Context, []ports.Batch, func(int, ports.AppendResult)) error { return closed }
				for range 3 {
					_, err := p.Send(t.Context(), value("v"))
					if f := domain.FateOf(err); !errors.Is(err, domain.ErrClosed) || f.Stored != domain.StoredNo {
						t.Errorf("error %v with fate %+v, want ErrClosed, not stored", err, f)
					}
				}
			})
		})
	}
}

func TestSend_AfterAFatalErrorIsNotStoredAndWhatWasUnclearStaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 2)
		p := h.open(t, nil)
		h.append = func(_ context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			settleAll(batches, settle, ports.StorageError("put", ports.Fatal, errors.New("disk is gone")))
			return nil
		}
		_, err := p.Send(t.Context(), value("v"))
		if f := domain.FateOf(err); f.Stored != domain.StoredUnknown || !f.Fatal || !errors.Is(err, domain.ErrStorage) {
			t.Errorf("error %v with fate %+v, want unknown and fatal", err, f)
		}
		for range 2 {
			_, err = p.Send(t.Context(), value("v"))
			if f := domain.FateOf(err); f.Stored != domain.StoredNo || !f.Fatal || f.Retry || !errors.Is(err, domain.ErrStorage) {
				t.Errorf("error %v with fate %+v, want not stored and fatal", err, f)
			}
		}
		if _, err := p.TrySend(value("v"), nil); domain.FateOf(err).Stored != domain.StoredNo {
			t.Errorf("TrySend: %v, want not stored", err)
		}
	})
}

func TestClose_WithAnEndedContextTellsEveryRecordItsFate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 4)
		p, err := New(t.Context(), Ports{Topics: h, Producers: h, Transport: h, Telemetry: ports.NoTelemetry{}}, DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		h.append = func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			for i, b := range batches {
				switch b.Partition {
				case 0: // in flight
					context.AfterFunc(ctx, func() { settle(i, ports.AppendResult{Base: -1, Err: errLost}) })
				case 1: // in its back-off
					settle(i, ports.AppendResult{Base: -1, Err: errDropped})
				case 2: // given up
					settle(i, ports.AppendResult{Base: -1, Err: ports.StorageError("put", ports.Definite, errLost)})
				}
			}
			return nil
		}
		h.abandon = func(ctx context.Context, _ ports.AbandonedBatch) (commit.Outcome, error) {
			return commit.Outcome{}, hang(ctx)
		}
		var pendings []*Pending
		for range 3 {
			for id := range domain.PartitionID(3) {
				pendings = append(pendings, p.SendAsync(t.Context(), toPartition(id), nil))
			}
			<-time.After(time.Second)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Close(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("Close returned %v, want the context's error", err)
		}
		for i, pending := range pendings {
			select {
			case <-pending.Done():
			default:
				t.Fatalf("record %d has no fate after Close", i)
			}
			_, err := pending.Wait(t.Context())
			if f := domain.FateOf(err); i%3 == 1 && f.Stored != domain.StoredNo || i == 0 && f.Stored != domain.StoredUnknown {
				t.Errorf("record %d: %v says stored %s", i, err, f.Stored)
			}
		}
		if _, err := p.Send(t.Context(), value("v")); !errors.Is(err, domain.ErrClosed) {
			t.Errorf("send after Close: %v, want ErrClosed", err)
		}
		if used := p.budget.used.Load(); used != 0 {
			t.Errorf("%d bytes of the budget are held", used)
		}
		if err := p.Close(t.Context()); !errors.Is(err, context.Canceled) {
			t.Errorf("second Close returned %v, want what the first did", err)
		}
	})
}

func TestClose_BesideSendersForgetsNoAcceptedRecord(t *testing.T) {
	for round := range 20 {
		synctest.Test(t, func(t *testing.T) {
			h := newHooks(t)
			topic := h.topic(t, 3)
			p := h.open(t, func(c *Config) { c.BufferBytes = 3000 })
			var mu sync.Mutex
			acknowledged := map[domain.PartitionID]domain.Offset{}
			var senders sync.WaitGroup
			for i := range 6 {
				senders.Go(func() {
					for j := 0; ; j++ {
						pending := p.SendAsync(t.Context(), toPartition(domain.PartitionID(i%3)), nil)
						if j%7 == 0 {
							<-time.After(time.Millisecond)
						}
						r, err := pending.Wait(t.Context())
						if err != nil {
							if !errors.Is(err, domain.ErrClosed) || domain.FateOf(err).Stored != domain.StoredNo {
								t.Errorf("%v, want ErrClosed, not stored", err)
							}
							return
						}
						mu.Lock()
						acknowledged[r.Partition]++
						mu.Unlock()
					}
				})
			}
			<-time.After(time.Duration(round) * time.Millisecond)
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
			senders.Wait()
			for id := range domain.PartitionID(3) {
				if n := h.stored(t, topic, id); n != acknowledged[id] {
					t.Errorf("partition %d: %d records acknowledged, %d stored", id, acknowledged[id], n)
				}
			}
		})
	}
}
