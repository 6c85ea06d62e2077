package grpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// These tests run over pipes in virtual time, so that keepalives of their real
// lengths are judged to the second.

// closing is what gRPC takes at most to close a connection whose other end does
// not read.
const closing = 6 * time.Second

// TestKeepalive_ClientLeavesASilentConnection has an agent's connection fall
// silent under a client that would wait an hour for answers: the keepalive notices in its time, and
// the next batch goes to another agent.
func TestKeepalive_ClientLeavesASilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates(newPipes())
		c := newCluster(t, g)
		silent := c.start("near")
		c.start("far")
		client := c.dial(near, func(cfg *grpc.ClientConfig) {
			cfg.KeepaliveTime, cfg.KeepaliveTimeout = 10*time.Second, 3*time.Second
			cfg.StallAfter, cfg.RequestTimeout = time.Hour, time.Hour
		})
		transport, got := client.Transport(), make(fates, 1)
		all := c.numbered(c.topic("orders"), 2)
		if err := transport.Append(t.Context(), all[:1], got.settle); err != nil {
			t.Fatal(err)
		}
		if fate := <-got; fate != "0: stored at 0" {
			t.Fatalf("before it: %s", fate)
		}
		g.pause(silent.addr)
		defer g.resume(silent.addr)
		begin := time.Now()
		if err := transport.Append(t.Context(), all[1:], got.settle); err != nil {
			t.Fatal(err)
		}
		if fate, took := <-got, time.Since(begin); !strings.Contains(fate, "ambiguous") || took > 13*time.Second+closing {
			t.Errorf("after %v: %s, want an ambiguous error within the keepalive's time", took, fate)
		}
		if err := transport.Append(t.Context(), all[1:], got.settle); err != nil {
			t.Fatal(err)
		}
		if fate := <-got; fate != "0: stored at 1" {
			t.Errorf("sent again: %s", fate)
		}
		if client.Address() == silent.addr {
			t.Error("the client stays with the agent that is silent")
		}
		if err := transport.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestKeepalive_ServerLeavesASilentConnection has a client fall silent with a
// batch under way: the server gives up the connection and what it held for it.
func TestKeepalive_ServerLeavesASilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates(newPipes())
		c, h := newCluster(t, g), newHolding()
		a := c.start("", h.with, func(_ *grpc.Backend, cfg *grpc.ServerConfig) {
			cfg.KeepaliveTime, cfg.KeepaliveTimeout, cfg.DefaultTimeout, cfg.MaxTimeout = 10*time.Second, 3*time.Second, time.Hour, time.Hour
		})
		stream := produce(t, raw(t, a, grpcgo.WithContextDialer(g.dial)))
		if err := stream.Send(&agentv1.ProduceRequest{Id: 1, Batches: []*agentv1.Batch{wireBatch(newBatch(t, c.topic("orders"), "x"))}}); err != nil {
			t.Fatal(err)
		}
		call := h.next(t, 0)
		g.pause(a.addr)
		defer g.resume(a.addr)
		begin := time.Now()
		<-call.ctx.Done()
		if took := time.Since(begin); took > 13*time.Second+closing {
			t.Errorf("the batch of a silent client is withdrawn after %v", took)
		}
		time.Sleep(closing)
		if s := a.server.Stats(); s.Connections != 0 || s.Streams != 0 || s.HeldBytes != 0 {
			t.Errorf("it holds %+v", s)
		}
	})
}

// TestKeepalive_TooManyPingsAreSentAway has a client ask more often than the
// server allows, and one of ours that keeps to its defaults.
func TestKeepalive_TooManyPingsAreSentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newPipes())
		a := c.start("", func(_ *grpc.Backend, cfg *grpc.ServerConfig) { cfg.KeepaliveMinimum = 15 * time.Second })
		transport, got := c.dial().Transport(), make(fates, 1)
		all := c.numbered(c.topic("orders"), 2)
		if err := transport.Append(t.Context(), all[:1], got.settle); err != nil {
			t.Fatal(err)
		}
		<-got
		stream := produce(t, raw(t, a, grpcgo.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: time.Second})))
		begin := time.Now()
		_, err := stream.Recv()
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "too_many_pings") {
			t.Errorf("it is sent away with %v", err)
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("it is sent away after %v", took)
		}
		time.Sleep(3 * time.Hour) // an idle stream was once cut off after one, as if its client did not read
		if s := a.server.Stats(); s.Streams != 1 || s.Cut != 0 {
			t.Errorf("after three hours: %+v, want the stream of the client that keeps to its defaults", s)
		}
		if err := transport.Append(t.Context(), all[1:], got.settle); err != nil {
			t.Fatal(err)
		}
		if fate := <-got; fate != "0: stored at 1" {
			t.Errorf("through it: %s", fate)
		}
		if err := transport.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// hanging never answers.
type hanging struct {
	ports.Producers
	ports.Topics
}

func (hanging) RegisterProducer(ctx context.Context, _ string) (ports.ProducerSession, error) {
	<-ctx.Done()
	return ports.ProducerSession{}, ports.MetadataError("register producer", ports.Ambiguous, ctx.Err())
}

func (hanging) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	<-ctx.Done()
	return nil, ports.MetadataError("list topics", ports.Transient, ctx.Err())
}

// TestDeadline_SaysWhatMayHaveBeenDone lets the deadlines of calls pass at an
// agent that does not answer: each ends then, and says whether it may have had its effect.
func TestDeadline_SaysWhatMayHaveBeenDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGates(newPipes()), newHolding()
		c := newCluster(t, g)
		all := c.numbered(c.topic("orders"), 2)
		a := c.start("", func(b *grpc.Backend, _ *grpc.ServerConfig) {
			b.Transport, b.Producers, b.Topics = h, hanging{Producers: b.Producers}, hanging{Topics: b.Topics}
		})
		client := c.dial(func(cfg *grpc.ClientConfig) { cfg.InFlightBytes = int64(len(all[0].Bytes)) })
		ends := func(what string, kind ports.Kind, call func(context.Context) error) {
			t.Helper()
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err := call(ctx)
			took := time.Since(begin)
			if !errors.Is(err, context.DeadlineExceeded) || ports.KindOf(err) != kind || took > 6*time.Second {
				t.Errorf("%s ends after %v with %v (%v), want %v at its deadline", what, took, err, ports.KindOf(err), kind)
			}
		}
		ends("a call with an effect", ports.Ambiguous, func(ctx context.Context) error {
			_, err := client.RegisterProducer(ctx, "")
			return err
		})
		ends("a call without", ports.Transient, func(ctx context.Context) error {
			_, err := client.ListTopics(ctx)
			return err
		})
		transport := client.Transport()
		ends("a batch that was sent", ports.Ambiguous, func(ctx context.Context) error {
			fate := make(chan error, 1)
			if err := transport.Append(ctx, all[:1], func(_ int, r ports.AppendResult) { fate <- r.Err }); err != nil {
				return err
			}
			h.next(t, 0)
			g.pause(a.addr) // or the agent would say, in time, what became of it
			defer g.resume(a.addr)
			ends("a batch that waits for room", ports.Transient, func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				return transport.Append(ctx, all[1:], func(int, ports.AppendResult) { t.Error("it is settled though it was refused") })
			})
			return <-fate
		})
		if err := transport.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
