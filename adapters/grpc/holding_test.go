package grpc_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// holding is a transport that settles nothing until it is told to, or the
// context ends.
type holding struct {
	mu    sync.Mutex
	calls []*held
	came  chan struct{} // a value for each Append
}

type held struct {
	ctx     context.Context
	batches []ports.Batch
	settle  func(int, ports.AppendResult)
	once    sync.Once
}

func newHolding() *holding { return &holding{came: make(chan struct{}, 1<<16)} }

func (h *holding) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	c := &held{ctx: ctx, batches: batches, settle: settle}
	h.mu.Lock()
	h.calls = append(h.calls, c)
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		c.end(ports.AppendResult{Base: -1, Err: ports.StorageError("append", ports.Transient, context.Cause(ctx))})
	})
	h.came <- struct{}{}
	return nil
}

func (c *held) end(r ports.AppendResult) {
	c.once.Do(func() {
		for i := range c.batches {
			c.settle(i, r)
		}
	})
}

// release settles what was appended so far, at offset 0.
func (h *holding) release() {
	h.mu.Lock()
	calls := h.calls
	h.calls = nil
	h.mu.Unlock()
	for _, c := range calls {
		c.end(ports.AppendResult{})
	}
}

// next waits for the n-th Append and returns it.
func (h *holding) next(t *testing.T, n int) *held {
	t.Helper()
	within(t, h.came, "no append came")
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[n]
}

func (h *holding) Close(context.Context) error { return nil }

// with puts h behind a server.
func (h *holding) with(b *grpc.Backend, _ *grpc.ServerConfig) { b.Transport = h }

// within demands a value of c, or its end, soon.
func within[T any](t testing.TB, c <-chan T, problem string) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatal(problem)
		panic("unreachable")
	}
}

// eventually demands that cond holds soon.
func eventually(t testing.TB, problem string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(problem)
		}
	}
}

// raw connects to the agent without a client of ours.
func raw(t testing.TB, a *agent, options ...grpcgo.DialOption) *grpcgo.ClientConn {
	t.Helper()
	options = append(options, grpcgo.WithTransportCredentials(insecure.NewCredentials()), grpcgo.WithContextDialer(a.c.net.dial))
	conn, err := grpcgo.NewClient("passthrough:///"+a.addr, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// topic makes a topic and returns the key of its first partition.
func (c *cluster) topic(name string) commit.PartitionKey {
	c.t.Helper()
	topic, err := c.metadata.CreateTopic(context.Background(), domain.TopicSpec{Name: name, Partitions: 4})
	if err != nil {
		c.t.Fatal(err)
	}
	return commit.PartitionKey{Topic: topic.ID}
}

// fates collects what became of batches.
type fates chan string

func (f fates) settle(i int, r ports.AppendResult) {
	if r.Err != nil {
		f <- fmt.Sprintf("%d: %v: %v", i, ports.KindOf(r.Err), r.Err)
		return
	}
	f <- fmt.Sprintf("%d: stored at %d", i, r.Base)
}
