package producer

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// hooks stands between a producer and a wire. Each function, if it is set, is
// called instead of the wire's; it may call the wire's itself.
type hooks struct {
	*wire
	mu       sync.Mutex
	lookUp   func(ctx context.Context, name string) (domain.Topic, error)
	register func(ctx context.Context, name string) (ports.ProducerSession, error)
	abandon  func(ctx context.Context, b ports.AbandonedBatch) (commit.Outcome, error)
	append   func(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error
	calls    int
}

func newHooks(t testing.TB) *hooks { return &hooks{wire: newWire(t)} }

// set changes hooks while the producer works.
func (h *hooks) set(change func(*hooks)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

func hooked[F any](h *hooks, hook *F) F {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls++
	return *hook
}

func (h *hooks) Topic(ctx context.Context, name string) (domain.Topic, error) {
	if f := hooked(h, &h.lookUp); f != nil {
		return f(ctx, name)
	}
	return h.wire.Topic(ctx, name)
}

func (h *hooks) RegisterProducer(ctx context.Context, name string) (ports.ProducerSession, error) {
	if f := hooked(h, &h.register); f != nil {
		return f(ctx, name)
	}
	return h.wire.RegisterProducer(ctx, name)
}

func (h *hooks) AbandonBatch(ctx context.Context, b ports.AbandonedBatch) (commit.Outcome, error) {
	if f := hooked(h, &h.abandon); f != nil {
		return f(ctx, b)
	}
	return h.wire.AbandonBatch(ctx, b)
}

func (h *hooks) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	if f := hooked(h, &h.append); f != nil {
		return f(ctx, batches, settle)
	}
	return h.wire.Append(ctx, batches, settle)
}

// open makes a producer on h that is closed with the test.
func (h *hooks) open(t testing.TB, change func(*Config)) *Producer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Seed = 1
	if change != nil {
		change(&cfg)
	}
	p, err := New(t.Context(), Ports{Topics: h, Producers: h, Transport: h, Telemetry: ports.NoTelemetry{}}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return p
}

// hang waits for the end of ctx.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// settleAll settles every batch with err.
func settleAll(batches []ports.Batch, settle func(int, ports.AppendResult), err error) {
	for i := range batches {
		settle(i, ports.AppendResult{Base: -1, Err: err})
	}
}

func toPartition(id domain.PartitionID) domain.Record {
	return domain.Record{Topic: "t", Partition: domain.ToPartition(id), Value: []byte("v")}
}

// settledBy fails the test unless pending is settled at most a second after the
// deadline that counts from accepted.
func settledBy(t *testing.T, pending *Pending, accepted time.Time, timeout time.Duration) error {
	t.Helper()
	<-pending.Done()
	if took := time.Since(accepted); took > timeout+time.Second {
		t.Errorf("record was told its fate %s after the deadline", took-timeout)
	}
	_, err := pending.Wait(t.Context())
	return err
}
