package producer

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// The registration is in force before its answer arrives: until then the
// producer's own batches are refused as fenced, and nobody else fenced them.
func TestSend_RenewingANamedSessionDoesNotFenceItself(t *testing.T) {
	for name, lose := range map[string]bool{"answer is slow": false, "answer is lost": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHooks(t)
				h.topic(t, 2)
				p := h.open(t, func(c *Config) { c.Name = "billing" })
				for id := range domain.PartitionID(2) {
					if _, err := p.Send(t.Context(), toPartition(id)); err != nil {
						t.Fatal(err)
					}
				}
				<-time.After(25 * time.Hour)
				h.set(func(h *hooks) {
					h.register = func(ctx context.Context, name string) (ports.ProducerSession, error) {
						s, err := h.wire.RegisterProducer(ctx, name)
						<-time.After(time.Second)
						if lose {
							h.set(func(h *hooks) { h.register = nil })
							return ports.ProducerSession{}, errLost
						}
						return s, err
					}
				})
				first := p.SendAsync(t.Context(), toPartition(0), nil)
				<-time.After(time.Second / 2)
				second := p.SendAsync(t.Context(), toPartition(1), nil)
				for i, pending := range []*Pending{first, second} {
					if r, err := pending.Wait(t.Context()); err != nil || r.Offset != 1 {
						t.Errorf("record of partition %d: offset %d, error %v, want 1", i, r.Offset, err)
					}
				}
				if _, err := h.wire.RegisterProducer(t.Context(), "billing"); err != nil {
					t.Fatal(err)
				}
				if _, err := p.Send(t.Context(), toPartition(0)); !errors.Is(err, domain.ErrFenced) {
					t.Errorf("another's session: %v, want ErrFenced", err)
				}
			})
		})
	}
}

func TestSend_GivenUpBatchOfARenewedSessionFencesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 2)
		p := h.open(t, func(c *Config) { c.Name, c.MaxRetries = "billing", 0 })
		if _, err := p.Send(t.Context(), toPartition(0)); err != nil {
			t.Fatal(err)
		}
		h.judgeBy(always(loseBatch))
		h.abandon = func(context.Context, ports.AbandonedBatch) (commit.Outcome, error) {
			return commit.Outcome{}, errLost
		}
		if _, err := p.Send(t.Context(), toPartition(1)); !errors.Is(err, domain.ErrOutcomeUnknown) {
			t.Fatalf("error %v, want ErrOutcomeUnknown", err)
		}
		h.judgeBy(always(deliver))
		<-time.After(25 * time.Hour)
		if r, err := p.Send(t.Context(), toPartition(0)); err != nil || r.Offset != 1 {
			t.Fatalf("offset %d, error %v, want 1 in a new session", r.Offset, err)
		}
		h.set(func(h *hooks) { h.abandon = nil })
		<-time.After(time.Minute)
		for id, want := range []domain.Offset{2, 0} {
			if r, err := p.Send(t.Context(), toPartition(domain.PartitionID(id))); err != nil || r.Offset != want {
				t.Errorf("partition %d: offset %d, error %v, want %d", id, r.Offset, err, want)
			}
		}
	})
}

func TestSend_UnclearBatchOfALostSessionGetsItsFateThoughNoSessionCanBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 1)
		p := h.open(t, func(c *Config) { c.DeliveryTimeout = 10 * time.Second })
		attempts := 0
		h.append = func(_ context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			if attempts++; attempts == 1 {
				settleAll(batches, settle, errLost)
			} else {
				settleAll(batches, settle, domain.ErrSessionExpired)
			}
			return nil
		}
		away := ports.MetadataError("register", ports.Transient, errors.New("store is away"))
		h.register = func(context.Context, string) (ports.ProducerSession, error) {
			return ports.ProducerSession{}, away
		}
		accepted := time.Now()
		pending := p.SendAsync(t.Context(), value("v"), nil)
		err := settledBy(t, pending, accepted, 10*time.Second)
		if f := domain.FateOf(err); f.Stored != domain.StoredUnknown || f.Fatal || !errors.Is(err, away) {
			t.Errorf("error %v with fate %+v, want unknown, not fatal, with its cause", err, f)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if attempts > 3 {
			t.Errorf("%d attempts without a session", attempts)
		}
		h.set(func(h *hooks) { h.append, h.register = nil, nil })
		if r, err := p.Send(t.Context(), value("after")); err != nil || r.Offset != 0 {
			t.Errorf("after the outage: offset %d, error %v, want 0", r.Offset, err)
		}
	})
}

func TestSend_UnclearBatchOfALostSessionIsUnknownAndCallbacksKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 1)
		p := h.open(t, func(c *Config) { c.BatchBytes = 1 })
		appends := 0
		h.append = func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			switch appends++; appends {
			case 1: // so that the next ones travel together
				context.AfterFunc(ctx, func() { settleAll(batches, settle, errDropped) })
			case 2:
				settle(0, ports.AppendResult{Base: -1, Err: domain.ErrOutOfOrder})
				settle(1, ports.AppendResult{Base: -1, Err: errLost})
				settle(2, ports.AppendResult{Base: -1, Err: domain.ErrOutOfOrder})
			case 3:
				settleAll(batches, settle, domain.ErrSessionExpired)
			default:
				return h.wire.Append(ctx, batches, settle)
			}
			return nil
		}
		var seen []domain.Stored
		count := func(_ domain.SendResult, err error) { seen = append(seen, domain.FateOf(err).Stored) }
		p.SendAsync(t.Context(), value("a"), count)
		synctest.Wait()
		p.SendAsync(t.Context(), value("b"), count)
		unclear := p.SendAsync(t.Context(), value("c"), count)
		last := p.SendAsync(t.Context(), value("d"), count)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := unclear.Wait(t.Context()); !errors.Is(err, domain.ErrOutcomeUnknown) || !errors.Is(err, domain.ErrSessionExpired) && domain.FateOf(err).Fatal {
			t.Errorf("unclear record: %v, want ErrOutcomeUnknown", err)
		}
		if r, err := last.Wait(t.Context()); err != nil || r.Offset != 2 {
			t.Errorf("last record: offset %d, error %v, want 2", r.Offset, err)
		}
		want := []domain.Stored{domain.StoredYes, domain.StoredYes, domain.StoredUnknown, domain.StoredYes}
		if len(seen) != 4 || seen[0] != want[0] || seen[1] != want[1] || seen[2] != want[2] || seen[3] != want[3] {
			t.Errorf("callbacks were told %v, want %v in order", seen, want)
		}
	})
}

// picky is a codec that fails on records that hold a word.
type picky struct{ word []byte }

func (picky) ID() batch.CodecID { return 3 }
func (c picky) Compress(dst, src []byte) ([]byte, error) {
	if bytes.Contains(src, c.word) {
		return nil, errors.New("will not")
	}
	return append(dst, src...), nil
}
func (picky) Decompress(dst, src []byte, _ int) ([]byte, error) { return append(dst, src...), nil }

func TestSend_BatchThatCannotBeEncodedFailsAloneEvenAsTheSessionIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(t)
		h.topic(t, 1)
		p := h.open(t, func(c *Config) { c.BatchBytes, c.Codec = 1, picky{[]byte("bad")} })
		appends := 0
		h.append = func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
			switch appends++; appends {
			case 1:
				go func() {
					<-time.After(time.Second / 20)
					_ = h.wire.Append(ctx, batches, settle)
				}()
			case 2:
				settleAll(batches, settle, domain.ErrSessionExpired)
			default:
				return h.wire.Append(ctx, batches, settle)
			}
			return nil
		}
		var pendings []*Pending
		for _, v := range []string{"first", "good", "bad", "last"} {
			pendings = append(pendings, p.SendAsync(t.Context(), value(v), nil))
			if v == "first" {
				synctest.Wait()
			}
		}
		for i, want := range []domain.Offset{0, 1, -1, 2} {
			r, err := pendings[i].Wait(t.Context())
			if r.Offset != want || (err != nil) != (want < 0) {
				t.Errorf("record %d: offset %d, error %v, want %d", i, r.Offset, err, want)
			}
			if want < 0 && (!errors.Is(err, domain.ErrCompression) || domain.FateOf(err).Stored != domain.StoredNo) {
				t.Errorf("record %d: %v, want ErrCompression, not stored", i, err)
			}
		}
	})
}
