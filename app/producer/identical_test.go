package producer

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// copies is a transport that keeps the bytes of every attempt.
type copies struct {
	*wire
	mu       sync.Mutex
	attempts map[batch.Producer][][]byte // by session and first sequence
}

func (c *copies) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	c.mu.Lock()
	for _, b := range batches {
		if h, err := batch.Verify(b.Bytes); err == nil {
			c.attempts[h.Producer] = append(c.attempts[h.Producer], bytes.Clone(b.Bytes))
		}
	}
	c.mu.Unlock()
	return c.wire.Append(ctx, batches, settle)
}

// A retry that was built anew could hold other records under the same sequence,
// which the log would take for the first ones.
func TestSend_RetriesAreByteIdentical(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		w.topic(t, 1)
		random := rand.New(rand.NewPCG(1, 27))
		w.judgeBy(func(ports.Batch, batch.Header) fate { return fate(random.IntN(4)) })
		c := &copies{wire: w, attempts: map[batch.Producer][][]byte{}}
		cfg := DefaultConfig()
		cfg.Seed, cfg.BatchSize = 1, 3
		p, err := New(t.Context(), Ports{Topics: w, Producers: w, Transport: c, Telemetry: ports.NoTelemetry{}}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			// Records keep coming, so that a batch built anew would hold more of them.
			r := domain.Record{Topic: "t", Value: fmt.Appendf(nil, "%d", i), Headers: []domain.Header{{Key: "i", Value: []byte{byte(i)}}}}
			p.SendAsync(t.Context(), r, func(_ domain.SendResult, err error) {
				if err != nil {
					t.Error(err)
				}
			})
			if i%7 == 0 {
				synctest.Wait()
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		retried := 0
		for id, attempts := range c.attempts {
			for _, b := range attempts[1:] {
				retried++
				if !bytes.Equal(b, attempts[0]) {
					t.Errorf("two attempts of the batch at sequence %d differ", id.Sequence)
				}
			}
		}
		if retried < 20 {
			t.Errorf("only %d attempts were retries", retried)
		}
	})
}
