package grpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// numbered makes n batches of one record that one producer's session numbers.
func (c *cluster) numbered(key commit.PartitionKey, n int) []ports.Batch {
	c.t.Helper()
	session, err := c.metadata.RegisterProducer(context.Background(), "")
	if err != nil {
		c.t.Fatal(err)
	}
	all := make([]ports.Batch, n)
	for i := range all {
		var b batch.Builder
		b.Reset(nil)
		b.Append(time.Now().UnixMilli(), nil, fmt.Append(nil, i), nil)
		encoded, err := b.Encode(nil, nil, batch.Producer{ID: session.ID, Epoch: session.Epoch, Sequence: domain.Sequence(i)})
		if err != nil {
			c.t.Fatal(err)
		}
		all[i] = ports.Batch{PartitionKey: key, Bytes: encoded}
	}
	return all
}

// TestHedge_KeepsTheOrder has a second agent get, in order, what the first
// does not answer: it stores it all.
func TestHedge_KeepsTheOrder(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	c.start("near", h.with)
	c.start("far")
	transport := c.dial(near, func(cfg *grpc.ClientConfig) { cfg.HedgeAfter = 100 * time.Millisecond }).Transport()
	all := c.numbered(c.topic("orders"), 5)
	got := make(fates, len(all))
	for i := range all {
		if err := transport.Append(t.Context(), all[i:i+1], got.settle); err != nil {
			t.Fatal(err)
		}
		h.next(t, i)
	}
	for i := range all {
		if fate := within(t, got, "a late batch is not hedged"); fate != fmt.Sprintf("0: stored at %d", i) {
			t.Errorf("hedged batch %d: %s", i, fate)
		}
	}
	h.release()
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestFail_GivesBackWhatFollowsInTheQueue breaks the stream of an agent that
// holds one batch of a producer, with the next one waiting for room: sent to another agent, it
// would come before its predecessor.
func TestFail_GivesBackWhatFollowsInTheQueue(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	dies := c.start("near", h.with, func(_ *grpc.Backend, cfg *grpc.ServerConfig) { cfg.ClientBytes = 1 })
	next := c.start("far")
	transport := c.dial(near).Transport()
	all := c.numbered(c.topic("orders"), 2)
	got := make(fates, 2)
	for i := range all {
		if err := transport.Append(t.Context(), all[i:i+1], got.settle); err != nil {
			t.Fatal(err)
		}
	}
	h.next(t, 0)
	dies.kill()
	for _, want := range []string{"ambiguous", "transient"} {
		if fate := within(t, got, "a batch is not settled"); !strings.Contains(fate, want) {
			t.Errorf("%s, want an error that is %s", fate, want)
		}
	}
	if n := next.server.Stats().Batches + next.server.Stats().Refused; n != 0 {
		t.Errorf("the next agent got %d batches", n)
	}
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// registering counts registrations, and fails as if the answer were lost.
type registering struct {
	ports.Producers
	calls *atomic.Int32
}

func (r registering) RegisterProducer(context.Context, string) (ports.ProducerSession, error) {
	r.calls.Add(1)
	return ports.ProducerSession{}, ports.MetadataError("register producer", ports.Fatal, errors.New("the answer is lost"))
}

// TestCall_WithAnEffectIsNotMadeAgain has every agent fail in the middle of a
// call: what may have been done is not done twice.
func TestCall_WithAnEffectIsNotMadeAgain(t *testing.T) {
	c := newCluster(t, tcp{})
	var calls atomic.Int32
	fail := func(b *grpc.Backend, _ *grpc.ServerConfig) { b.Producers = registering{b.Producers, &calls} }
	c.start("near", fail)
	c.start("far", fail)
	_, err := c.dial(near).RegisterProducer(t.Context(), "")
	if err == nil || ports.KindOf(err) != ports.Ambiguous {
		t.Errorf("%v, want an ambiguous error", err)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls reached agents", n)
	}
}

// TestProduce_AnswersWhatBecameOfABatch has a batch refused long after it was
// taken over.
func TestProduce_AnswersWhatBecameOfABatch(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	c.start("", h.with)
	transport, got := c.dial().Transport(), make(fates, 1)
	if err := transport.Append(t.Context(), c.numbered(c.topic("orders"), 1), got.settle); err != nil {
		t.Fatal(err)
	}
	h.next(t, 0).end(ports.AppendResult{Base: -1, Err: ports.StorageError("put", ports.Definite, errors.New("the bucket is full"))})
	if fate := within(t, got, "the batch is not settled"); !strings.Contains(fate, "the bucket is full") {
		t.Errorf("%s, want what became of it", fate)
	}
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestProduce_HandsNoDamagedBatchOn looks behind the server: what damage on the
// way did to a batch is found before anything is made of it.
func TestProduce_HandsNoDamagedBatchOn(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	a := c.start("", h.with)
	damaged := c.numbered(c.topic("orders"), 1)
	damaged[0].Bytes[len(damaged[0].Bytes)-1] ^= 1
	transport, got := c.dial().Transport(), make(fates, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := transport.Append(ctx, damaged, got.settle); err != nil {
		t.Fatal(err)
	}
	select {
	case fate := <-got:
		if !strings.Contains(fate, "definite") || !strings.Contains(fate, "corrupt") {
			t.Errorf("%s, want a definite error that says corrupt", fate)
		}
	case <-h.came:
		t.Error("a damaged batch is handed on")
		h.release()
	}
	if s := a.server.Stats(); s.Batches != 0 {
		t.Errorf("%+v", s)
	}
	if err := transport.Close(ctx); err != nil {
		t.Error(err)
	}
}
