package grpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// ofSession makes the batch number n of a new session on key.
func (c *cluster) ofSession(key commit.PartitionKey) ports.Batch {
	c.t.Helper()
	s, err := c.metadata.RegisterProducer(context.Background(), "")
	if err != nil {
		c.t.Fatal(err)
	}
	var b batch.Builder
	b.Reset(nil)
	b.Append(1, nil, []byte("x"), nil)
	bytes, err := b.Encode(nil, nil, batch.Producer{ID: s.ID, Epoch: s.Epoch})
	if err != nil {
		c.t.Fatal(err)
	}
	return ports.Batch{PartitionKey: key, Bytes: bytes}
}

func near(cfg *grpc.ClientConfig) { cfg.Zone = "near" }

func TestClient_PrefersItsZoneAndStaysWithOneAgent(t *testing.T) {
	c := newCluster(t, tcp{})
	var there []string
	for range 4 {
		c.start("far")
		there = append(there, c.start("near").addr)
	}
	used := make(map[string]int)
	for range 30 {
		client := c.dial(near)
		first := client.Address()
		if !slices.Contains(there, first) {
			t.Fatalf("it chose %s, which is far", first)
		}
		for range 3 {
			if _, err := client.ListTopics(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if client.Address() != first {
			t.Errorf("it went from %s to %s", first, client.Address())
		}
		used[first]++
	}
	if len(used) < 3 {
		t.Errorf("30 clients use %v of 4 agents", used)
	}
}

func TestClient_GoesBackToItsZone(t *testing.T) {
	c := newCluster(t, tcp{})
	first := c.start("near")
	far := c.start("far")
	client := c.dial(near, func(cfg *grpc.ClientConfig) { cfg.RefreshInterval = 10 * time.Millisecond })
	call := func() bool {
		if _, err := client.ListTopics(t.Context()); err != nil {
			t.Fatal(err)
		}
		return true
	}
	first.kill()
	if call(); client.Address() != far.addr {
		t.Errorf("it uses %q, want the far one", client.Address())
	}
	again := c.start("near")
	eventually(t, "it stays far away", func() bool { return call() && client.Address() == again.addr })
}

// TestClient_IsNotHeldUpByAnAgentThatItCannotReach lists a near agent whose
// address leads nowhere.
func TestClient_IsNotHeldUpByAnAgentThatItCannotReach(t *testing.T) {
	c := newCluster(t, tcp{})
	c.start("far")
	const nowhere = "127.0.0.1:1"
	if _, err := c.agents.Register(t.Context(), ports.AgentSpec{Group: "default", Zone: "near", Address: nowhere}); err != nil {
		t.Fatal(err)
	}
	tried := make(chan struct{}, 1000)
	client := c.dial(near, func(cfg *grpc.ClientConfig) {
		cfg.RefreshInterval, cfg.ConnectTimeout = 5*time.Millisecond, time.Second
		cfg.Dialer = func(ctx context.Context, address string) (net.Conn, error) {
			if address != nowhere {
				return c.net.dial(ctx, address)
			}
			tried <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	within(t, tried, "the near agent is not even tried")
	for range 50 {
		start := time.Now()
		if _, err := client.ListTopics(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 800*time.Millisecond {
			t.Errorf("a call took %v", took)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestClient_LearnsOfAgentsFromTheOneItKnows(t *testing.T) {
	c := newCluster(t, tcp{})
	known := c.start("")
	c.start("")
	client := c.dial(impatient, func(cfg *grpc.ClientConfig) { cfg.Discovery, cfg.Addresses = nil, []string{known.addr} })
	known.kill()
	if _, err := client.ListTopics(t.Context()); err != nil {
		t.Errorf("the agent it was told of is gone: %v", err)
	}
	if client.Address() == known.addr {
		t.Error("it uses an agent that is gone")
	}
}

func TestClient_SaysWhichGroupHasNoAgents(t *testing.T) {
	c := newCluster(t, tcp{})
	cfg := grpc.DefaultClientConfig()
	cfg.Discovery, cfg.Group = c.agents, "billing"
	none := func(what string, err error, group string) {
		t.Helper()
		var e *domain.NoAgentsAvailableError
		if !errors.As(err, &e) || e.Group != group || ports.KindOf(err) != ports.Transient || domain.FateOf(err).Stored != domain.StoredNo {
			t.Errorf("%s: %v, want a transient NoAgentsAvailableError of group %s", what, err, group)
		}
	}
	_, err := grpc.Dial(t.Context(), cfg)
	none("dial", err, "billing")
	a := c.start("")
	client := c.dial(impatient)
	transport := client.Transport()
	a.kill()
	_, err = client.ListTopics(t.Context())
	none("list topics", err, "default")
	got := make(chan ports.AppendResult, 1)
	err = transport.Append(t.Context(), []ports.Batch{newBatch(t, commit.PartitionKey{}, "x")}, func(_ int, r ports.AppendResult) { got <- r })
	if err == nil {
		err = within(t, got, "the batch is not settled").Err
	}
	none("append", err, "default")
	c.start("")
	eventually(t, "an agent that came later is not found", func() bool { _, err := client.ListTopics(t.Context()); return err == nil })
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := grpc.Dial(t.Context(), grpc.ClientConfig{}); !errors.Is(err, domain.ErrConfig) || !errors.Is(err, domain.ErrInvalidName) {
		t.Errorf("dial with nothing: %v", err)
	}
}

// TestClient_LeavesASilentAgent has an agent that takes batches and never
// answers.
func TestClient_LeavesASilentAgent(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	c.start("near", h.with)
	c.start("far")
	client := c.dial(near, impatient)
	key := c.topic("orders")
	transport, got := client.Transport(), make(fates, 2)
	b := c.ofSession(key)
	if err := transport.Append(t.Context(), []ports.Batch{b}, got.settle); err != nil {
		t.Fatal(err)
	}
	if fate := within(t, got, "the batch is not settled"); !strings.Contains(fate, "ambiguous") {
		t.Errorf("an agent says nothing: %s, want an ambiguous error", fate)
	}
	if err := transport.Append(t.Context(), []ports.Batch{b}, got.settle); err != nil {
		t.Fatal(err)
	}
	if fate := within(t, got, "the batch is not settled"); fate != "0: stored at 0" {
		t.Errorf("sent again: %s", fate)
	}
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestClient_LeavesAnAgentThatDoesNotRead has an agent that stops in the middle
// of more data than the connection takes.
func TestClient_LeavesAnAgentThatDoesNotRead(t *testing.T) {
	g := newGates(tcp{})
	c := newCluster(t, g)
	stops := c.start("near")
	c.start("far")
	client := c.dial(near, impatient)
	key := c.topic("orders")
	transport, got := client.Transport(), make(fates, 100)
	one := c.ofSession(key)
	if err := transport.Append(t.Context(), []ports.Batch{one}, got.settle); err != nil {
		t.Fatal(err)
	}
	within(t, got, "the first batch is not settled")
	g.pause(stops.addr)
	defer g.resume(stops.addr)
	large := newBatch(t, key, strings.Repeat("x", 2<<20))
	for range 12 {
		if err := transport.Append(t.Context(), []ports.Batch{large}, got.settle); err != nil {
			t.Fatal(err)
		}
	}
	for range 12 {
		within(t, got, "a batch is not settled though its agent stopped")
	}
	if err := transport.Append(t.Context(), []ports.Batch{one}, got.settle); err != nil {
		t.Fatal(err)
	}
	if fate := within(t, got, "a batch for the other agent is not settled"); fate != "0: stored at 0" {
		t.Errorf("through the other agent: %s", fate)
	}
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHedge_RacesALateAnswerThroughAnotherAgent(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	c.start("near", h.with)
	c.start("far")
	hedge := func(cfg *grpc.ClientConfig) { cfg.HedgeAfter = 20 * time.Millisecond }
	key := c.topic("orders")
	transport, got := c.dial(near, hedge).Transport(), make(fates, 3)
	if err := transport.Append(t.Context(), []ports.Batch{c.ofSession(key), c.ofSession(key)}, got.settle); err != nil {
		t.Fatal(err)
	}
	h.next(t, 0)
	fates := []string{within(t, got, "a late batch is not hedged"), within(t, got, "a late batch is not hedged")}
	slices.Sort(fates)
	if want := []string{"0: stored at 0", "1: stored at 1"}; !slices.Equal(fates, want) {
		t.Errorf("hedged: %q, want %q", fates, want)
	}
	h.release() // late answers, which nobody waits for
	if err := transport.Append(t.Context(), []ports.Batch{c.ofSession(key)}, got.settle); err != nil {
		t.Fatal(err)
	}
	if fate := within(t, got, "a batch is not settled"); fate != "0: stored at 2" {
		t.Errorf("after it: %s", fate)
	}
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHedge_LeavesBatchesWithoutAProducerAlone(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	c.start("near", h.with)
	other := c.start("far")
	transport := c.dial(near, func(cfg *grpc.ClientConfig) { cfg.HedgeAfter = 5 * time.Millisecond }).Transport()
	got := make(fates, 1)
	if err := transport.Append(t.Context(), []ports.Batch{newBatch(t, c.topic("orders"), "x")}, got.settle); err != nil {
		t.Fatal(err)
	}
	h.next(t, 0)
	select {
	case fate := <-got:
		t.Errorf("settled: %s", fate)
	case <-time.After(100 * time.Millisecond):
	}
	if n := other.server.Stats().Batches; n != 0 {
		t.Errorf("the other agent got %d batches", n)
	}
	h.release()
	within(t, got, "the batch is not settled")
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAppend_ThatIsCancelledIsWithdrawn(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	a := c.start("", h.with)
	transport, got := c.dial().Transport(), make(fates, 1)
	ctx, cancel := context.WithCancel(t.Context())
	if err := transport.Append(ctx, []ports.Batch{newBatch(t, c.topic("orders"), "x")}, got.settle); err != nil {
		t.Fatal(err)
	}
	call := h.next(t, 0)
	cancel()
	if fate := within(t, got, "the batch is not settled"); !strings.Contains(fate, "ambiguous") {
		t.Errorf("cancelled: %s", fate)
	}
	within(t, call.ctx.Done(), "the agent is not told")
	eventually(t, "it is still held", func() bool { return a.server.Stats().HeldBytes == 0 })
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestClient_SlowsDownWhereThereIsNoRoom(t *testing.T) {
	c := newCluster(t, tcp{})
	c.slowDown(4 * time.Millisecond)
	a := c.start("", func(_ *grpc.Backend, cfg *grpc.ServerConfig) {
		cfg.TopicBytes, cfg.RetryAfter = 2<<10, time.Millisecond
	})
	w := newWorkload(t, c, 4)
	const records = 4000
	w.send(c.dial(), records, 0)
	w.check(records)
	if s := a.server.Stats(); s.Refused == 0 || s.HeldBytes != 0 {
		t.Errorf("%+v: nothing was refused, which proves nothing, or something is held", s)
	}
}

func TestDrain_AnswersWhatItTook(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	a := c.start("", h.with)
	client := c.dial()
	key := c.topic("orders")
	transport, got := client.Transport(), make(fates, 2)
	if err := transport.Append(t.Context(), []ports.Batch{newBatch(t, key, "x")}, got.settle); err != nil {
		t.Fatal(err)
	}
	h.next(t, 0)
	fetched := make(chan error, 1)
	go func() {
		_, err := client.Fetch(t.Context(), ports.FetchRequest{Partitions: []ports.FetchPosition{{PartitionKey: key}}, MaxBytes: 1, MaxWait: 2 * time.Second})
		fetched <- err
	}()
	health, err := grpc_health_v1.NewHealthClient(raw(t, a)).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := health.Recv(); err != nil || m.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", m, err)
	}
	next := c.start("")
	drained := make(chan struct{})
	go func() { a.drain(); close(drained) }()
	if m, err := health.Recv(); err == nil && m.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health while draining: %v", m)
	}
	eventually(t, "the client does not leave", func() bool { return client.Address() != a.addr })
	if err := transport.Append(t.Context(), []ports.Batch{newBatch(t, key, "y")}, got.settle); err != nil {
		t.Fatal(err)
	}
	select {
	case fate := <-got:
		if !strings.HasPrefix(fate, "0: stored") {
			t.Errorf("while draining: %s", fate)
		}
	case <-drained:
		t.Error("it is gone with a batch that it took")
	case <-time.After(20 * time.Millisecond):
	}
	h.release()
	if fate := within(t, got, "the batch is not answered"); fate != "0: stored at 0" {
		t.Errorf("what it took: %s", fate)
	}
	within(t, drained, "the agent does not end")
	within(t, fetched, "a fetch hangs")
	within(t, got, "the batch for the next agent is not answered")
	if n := a.server.Stats().Batches + next.server.Stats().Batches; n != 2 {
		t.Errorf("the two agents got %d batches", n)
	}
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDrain_ObeysItsContext(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	a := c.start("", h.with)
	transport, got := c.dial(impatient).Transport(), make(fates, 1)
	if err := transport.Append(t.Context(), []ports.Batch{newBatch(t, c.topic("orders"), "x")}, got.settle); err != nil {
		t.Fatal(err)
	}
	h.next(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.server.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain: %v", err)
	}
	if fate := within(t, got, "the batch is not settled"); !strings.Contains(fate, "ambiguous") {
		t.Errorf("what it took: %s, want an ambiguous error", fate)
	}
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestReady_IsTold(t *testing.T) {
	c := newCluster(t, tcp{})
	c.start("far")
	a := c.start("near")
	key := c.topic("orders")
	client := c.dial(near)
	a.server.SetReady(errors.New("the bucket is away"))
	m, err := grpc_health_v1.NewHealthClient(raw(t, a)).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || m.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health: %v, %v", m, err)
	}
	transport, got := client.Transport(), make(fates, 1)
	asked := c.dial(near)
	if _, err := asked.ListTopics(t.Context()); err != nil || asked.Address() == a.addr {
		t.Errorf("a call goes to %s: %v", asked.Address(), err)
	}
	alone := c.dial(func(cfg *grpc.ClientConfig) {
		cfg.Discovery, cfg.Addresses, cfg.Group = nil, []string{a.addr}, "lonely"
	})
	_, err = alone.ListTopics(t.Context())
	if !errors.Is(err, domain.ErrNoAgentsAvailable) || !strings.Contains(err.Error(), "the bucket is away") {
		t.Errorf("with no other agent: %v", err)
	}
	for i, want := range []string{"the bucket is away", "stored at 0"} {
		if err := transport.Append(t.Context(), []ports.Batch{newBatch(t, key, "x")}, got.settle); err != nil {
			t.Fatal(err)
		}
		if fate := within(t, got, "the batch is not settled"); !strings.Contains(fate, want) || i == 0 && !strings.Contains(fate, "transient") {
			t.Errorf("append %d: %s, want %s", i, fate, want)
		}
	}
	a.server.SetReady(nil)
	if m, err = grpc_health_v1.NewHealthClient(raw(t, a)).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil || m.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", m, err)
	}
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAppend_KeepsTheOrderAcrossFailures sends batches of one producer without
// waiting while agents die, and looks at what is settled how.
func TestAppend_KeepsTheOrderAcrossFailures(t *testing.T) {
	c := newCluster(t, tcp{})
	c.slowDown(10 * time.Millisecond)
	key := c.topic("orders")
	for round := range 5 {
		a, b := c.start("near"), c.start("far")
		transport, got := c.dial(near, impatient).Transport(), make(fates, 200)
		for i := range 100 {
			if i == 50 {
				go a.kill()
			}
			if err := transport.Append(t.Context(), []ports.Batch{newBatch(t, key, fmt.Sprintf("%d/%03d", round, i))}, got.settle); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			within(t, got, "a batch is not settled")
		}
		if err := transport.Close(t.Context()); err != nil {
			t.Error(err)
		}
		b.kill()
	}
	reader := c.start("")
	fetched, err := c.dial(func(cfg *grpc.ClientConfig) { cfg.Discovery, cfg.Addresses = nil, []string{reader.addr} }).Fetch(t.Context(),
		ports.FetchRequest{Partitions: []ports.FetchPosition{{PartitionKey: key}}, MaxBytes: 8 << 20})
	if err != nil || fetched[0].Err != nil {
		t.Fatal(err, fetched)
	}
	last := ""
	for b := fetched[0].Batches; len(b) > 0; {
		h, err := batch.ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		records, err := batch.NewDecoder().Decode(b[:h.Length])
		if err != nil {
			t.Fatal(err)
		}
		for r := (batch.Record{}); records.Next(&r); {
			if string(r.Value) <= last {
				t.Fatalf("%s follows %s", r.Value, last)
			}
			last = string(r.Value)
		}
		b = b[h.Length:]
	}
}
