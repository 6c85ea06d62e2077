package grpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// produce opens a raw Produce stream and takes the welcome.
func produce(t testing.TB, conn *grpcgo.ClientConn) agentv1.LogService_ProduceClient {
	t.Helper()
	stream, err := agentv1.NewLogServiceClient(conn).Produce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || m.GetWelcome().GetWindowBytes() == 0 {
		t.Fatalf("welcome: %v, %v", m, err)
	}
	return stream
}

func wireBatch(b ports.Batch) *agentv1.Batch {
	return &agentv1.Batch{TopicId: b.Topic[:], Partition: int32(b.Partition), Data: b.Bytes}
}

// ended takes answers until the stream ends, and returns its status code.
func ended(t testing.TB, stream agentv1.LogService_ProduceClient) codes.Code {
	t.Helper()
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return codes.OK
		} else if err != nil {
			return status.Code(err)
		}
	}
}

func TestProduce_EndsStreamsThatAreNone(t *testing.T) {
	c := newCluster(t, tcp{})
	a := c.start("", func(_ *grpc.Backend, cfg *grpc.ServerConfig) { cfg.MaxBatches = 3 })
	conn := raw(t, a, grpcgo.WithDefaultCallOptions(grpcgo.MaxCallSendMsgSize(1<<30)))
	b := wireBatch(newBatch(t, c.topic("orders"), "x"))
	for name, requests := range map[string][]*agentv1.ProduceRequest{
		"no id":             {{Batches: []*agentv1.Batch{b}}},
		"an id again":       {{Id: 1, Batches: []*agentv1.Batch{b}}, {Id: 1, Batches: []*agentv1.Batch{b}}},
		"a falling id":      {{Id: 5, Batches: []*agentv1.Batch{b}}, {Id: 4, Batches: []*agentv1.Batch{b}}},
		"too many batches":  {{Id: 1, Batches: []*agentv1.Batch{b, b, b, b}}},
		"no topic":          {{Id: 1, Batches: []*agentv1.Batch{{Data: b.GetData()}}}},
		"a short topic id":  {{Id: 1, Batches: []*agentv1.Batch{{TopicId: []byte("orders"), Data: b.GetData()}}}},
		"a long topic id":   {{Id: 1, Batches: []*agentv1.Batch{{TopicId: make([]byte, 17), Data: b.GetData()}}}},
		"a message too big": {{Id: 1, Batches: []*agentv1.Batch{{TopicId: make([]byte, 16), Data: make([]byte, 18<<20)}}}},
	} {
		stream := produce(t, conn)
		for _, r := range requests {
			if err := stream.Send(r); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v", name, err)
			}
		}
		switch code := ended(t, stream); code {
		case codes.InvalidArgument, codes.FailedPrecondition, codes.Internal, codes.ResourceExhausted:
		default:
			t.Errorf("%s: ends with %v", name, code)
		}
	}
	if r := appendAll(t, c.dial(), newBatch(t, c.topic("others"), "x"))[0]; r.Err != nil {
		t.Errorf("another client afterwards: %v", r.Err)
	}
	eventually(t, "the bad streams hold something", func() bool { s := a.server.Stats(); return s.HeldBytes == 0 && s.Streams == 0 })
}

func TestProduce_JudgesBatchesOneByOne(t *testing.T) {
	c := newCluster(t, tcp{})
	a := c.start("")
	key := c.topic("orders")
	good := newBatch(t, key, "x")
	flipped := newBatch(t, key, "x")
	flipped.Bytes[len(flipped.Bytes)-1] ^= 1
	negative, nowhere := good, good
	negative.Partition = -1
	nowhere.Topic = domain.TopicID{1}
	stream := produce(t, raw(t, a))
	if err := stream.Send(&agentv1.ProduceRequest{Id: 7, Batches: []*agentv1.Batch{
		wireBatch(good), wireBatch(flipped), wireBatch(negative), wireBatch(nowhere), {TopicId: key.Topic[:]}, wireBatch(good),
	}}); err != nil {
		t.Fatal(err)
	}
	got := make(map[uint32]*agentv1.Outcome)
	for len(got) < 6 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range m.GetOutcomes() {
			if o.GetRequestId() != 7 || got[o.GetIndex()] != nil {
				t.Fatalf("outcome %v", o)
			}
			got[o.GetIndex()] = o
		}
	}
	if got[0].GetError() != nil || got[5].GetError() != nil || got[0].GetBaseOffset() == got[5].GetBaseOffset() {
		t.Errorf("the good ones: %v, %v", got[0], got[5])
	}
	if got[1].GetError().GetCorrupt() == nil || got[4].GetError().GetCorrupt() == nil || got[2].GetError().GetInvalidPartition() == nil || got[3].GetError() == nil {
		t.Errorf("the bad ones: %v", got)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if code := ended(t, stream); code != codes.OK {
		t.Errorf("the stream ends with %v", code)
	}
}

// TestProduce_CutsAClientThatDoesNotRead lets a client send and never read.
func TestProduce_CutsAClientThatDoesNotRead(t *testing.T) {
	for name, change := range map[string]func(*grpc.ServerConfig){
		"too many answers due": func(cfg *grpc.ServerConfig) { cfg.MaxUnread, cfg.MaxBatches = 20_000, 1000 },
		"an answer takes long": func(cfg *grpc.ServerConfig) { cfg.MaxUnread, cfg.SlowReader = 1<<30, 100*time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, tcp{})
			a := c.start("", func(_ *grpc.Backend, cfg *grpc.ServerConfig) { change(cfg) })
			key := c.topic("orders")
			stream := produce(t, raw(t, a, grpcgo.WithInitialWindowSize(64<<10), grpcgo.WithInitialConnWindowSize(64<<10)))
			bad := make([]*agentv1.Batch, 1000)
			for i := range bad {
				bad[i] = &agentv1.Batch{TopicId: key.Topic[:], Data: []byte("no batch")}
			}
			eventually(t, "the client that does not read is not cut off", func() bool {
				if s := a.server.Stats(); s.Refused < 200_000 {
					_ = stream.Send(&agentv1.ProduceRequest{Id: uint64(s.Refused) + uint64(time.Now().UnixNano()), Batches: bad})
				}
				return a.server.Stats().Cut > 0
			})
			if code := ended(t, stream); code != codes.ResourceExhausted {
				t.Errorf("the stream ends with %v", code)
			}
			if r := appendAll(t, c.dial(), newBatch(t, key, "x"))[0]; r.Err != nil {
				t.Errorf("another client: %v", r.Err)
			}
		})
	}
}

// TestAdmission_BoundsWhatIsHeld fills each bound in turn.
func TestAdmission_BoundsWhatIsHeld(t *testing.T) {
	const size = 1000
	for name, k := range map[string]struct {
		change        func(*grpc.ServerConfig)
		sameTopic     bool // of the batches over the bound
		sameClient    bool
		otherHasRoom  bool
		otherAccepted string
	}{
		"client": {change: func(cfg *grpc.ServerConfig) { cfg.ClientBytes = 3 * size }, sameClient: true, otherHasRoom: true},
		"topic":  {change: func(cfg *grpc.ServerConfig) { cfg.TopicBytes = 3 * size }, sameTopic: true, otherHasRoom: true},
	} {
		t.Run(name, func(t *testing.T) {
			c, h := newCluster(t, tcp{}), newHolding()
			a := c.start("", h.with, func(_ *grpc.Backend, cfg *grpc.ServerConfig) { k.change(cfg) })
			one, two := c.topic("one"), c.topic("two")
			full, other := produce(t, raw(t, a)), produce(t, raw(t, a))
			batchFor := func(key commit.PartitionKey) *agentv1.Batch {
				return wireBatch(newBatch(t, key, strings.Repeat("x", size-100)))
			}
			for id := range uint64(3) {
				if err := full.Send(&agentv1.ProduceRequest{Id: id + 1, Batches: []*agentv1.Batch{batchFor(one)}}); err != nil {
					t.Fatal(err)
				}
				within(t, h.came, "a batch within the bound is not taken")
			}
			overStream, overTopic, freeStream, freeTopic := full, one, other, two
			if !k.sameClient {
				overStream = other
			}
			if !k.sameTopic {
				overTopic = two
			}
			if err := overStream.Send(&agentv1.ProduceRequest{Id: 10, Batches: []*agentv1.Batch{batchFor(overTopic)}}); err != nil {
				t.Fatal(err)
			}
			m, err := overStream.Recv()
			if err != nil || len(m.GetOutcomes()) != 1 {
				t.Fatalf("over the bound: %v, %v", m, err)
			}
			if e := m.GetOutcomes()[0].GetError(); e.GetRetryAfterMs() == 0 || e.GetPort().GetKind() != agentv1.Kind_KIND_TRANSIENT {
				t.Errorf("over the bound: %v, want a transient error with a hint", e)
			}
			if err := freeStream.Send(&agentv1.ProduceRequest{Id: 20, Batches: []*agentv1.Batch{batchFor(freeTopic)}}); err != nil {
				t.Fatal(err)
			}
			within(t, h.came, "what has room is not taken")
			h.release()
			eventually(t, "settled batches are held", func() bool { return a.server.Stats().HeldBytes == 0 })
		})
	}
}

func TestAdmission_BoundsAllClientsTogether(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	total := int64(2*(16<<20) + 1<<10)
	a := c.start("", h.with, func(_ *grpc.Backend, cfg *grpc.ServerConfig) {
		cfg.TotalBytes, cfg.TopicBytes, cfg.ClientBytes = total, 1<<40, 1<<40
	})
	key := c.topic("orders")
	large := newBatch(t, key, strings.Repeat("x", 15<<20))
	got := make(fates, 10)
	client := c.dial(func(cfg *grpc.ClientConfig) { cfg.InFlightBytes = 1 << 30 })
	transport := client.Transport()
	for range 3 {
		if err := transport.Append(t.Context(), []ports.Batch{large}, got.settle); err != nil {
			t.Fatal(err)
		}
	}
	if fate := within(t, got, "the batch over the bound is not refused"); !strings.Contains(fate, "transient") || !strings.Contains(fate, "room") {
		t.Errorf("over the bound: %s", fate)
	}
	if held := a.server.Stats().HeldBytes; held > total {
		t.Errorf("%d bytes are held, over the bound of %d", held, total)
	}
	h.release()
	for range 2 {
		within(t, got, "a batch is not settled")
	}
	if err := transport.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTimeouts_AreWhatIsSensible looks at the time that batches and calls get.
func TestTimeouts_AreWhatIsSensible(t *testing.T) {
	c, h := newCluster(t, tcp{}), newHolding()
	seen := &deadlines{Topics: c.metadata, seen: make(chan time.Duration, 1)}
	a := c.start("", h.with, func(b *grpc.Backend, cfg *grpc.ServerConfig) {
		b.Topics, cfg.DefaultTimeout, cfg.MaxTimeout, cfg.FetchMaxWait = seen, 40*time.Second, time.Minute, 5*time.Second
	})
	conn := raw(t, a)
	stream := produce(t, conn)
	b := wireBatch(newBatch(t, c.topic("orders"), "x"))
	for i, k := range []struct {
		ms           uint32
		least, most  time.Duration
		endsByItself bool
	}{
		{0, 30 * time.Second, 40 * time.Second, false},
		{1<<32 - 1, 50 * time.Second, time.Minute, false},
		{20_000, 10 * time.Second, 20 * time.Second, false},
		{1, -time.Minute, time.Millisecond, true},
	} {
		if err := stream.Send(&agentv1.ProduceRequest{Id: uint64(i + 1), TimeoutMs: k.ms, Batches: []*agentv1.Batch{b}}); err != nil {
			t.Fatal(err)
		}
		ctx := h.next(t, i).ctx
		deadline, ok := ctx.Deadline()
		if left := time.Until(deadline); !ok || left < k.least || left > k.most {
			t.Errorf("a batch with %d ms gets %v", k.ms, left)
		}
		if k.endsByItself {
			within(t, ctx.Done(), "its time does not end")
		}
	}
	topics := agentv1.NewTopicServiceClient(conn)
	for _, timeout := range []time.Duration{0, 10 * 365 * 24 * time.Hour} {
		ctx, cancel := context.WithCancel(t.Context())
		if timeout > 0 {
			ctx, cancel = context.WithTimeout(t.Context(), timeout)
		}
		if _, err := topics.ListTopics(ctx, &agentv1.ListTopicsRequest{}); err != nil {
			t.Fatal(err)
		}
		if left := within(t, seen.seen, "no call came"); left <= 0 || left > time.Minute {
			t.Errorf("a call with a deadline in %v gets %v", timeout, left)
		}
		cancel()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	if _, err := topics.ListTopics(ctx, &agentv1.ListTopicsRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a call with a nanosecond: %v", err)
	}
	if _, err := c.dial().Topic(ctx, "orders"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a client's call with a nanosecond: %v", err)
	}
}

// deadlines tells how much time each call gets.
type deadlines struct {
	ports.Topics
	seen chan time.Duration
}

func (d *deadlines) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	deadline, _ := ctx.Deadline()
	d.seen <- time.Until(deadline)
	return d.Topics.ListTopics(ctx)
}

func TestFetch_AnswersBeforeItsDeadline(t *testing.T) {
	c := newCluster(t, tcp{})
	a := c.start("")
	key := c.topic("orders")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	answer, err := agentv1.NewLogServiceClient(raw(t, a)).Fetch(ctx, &agentv1.FetchRequest{
		Positions: []*agentv1.FetchPosition{{TopicId: key.Topic[:]}}, MaxBytes: 1, MaxWaitMs: 1 << 31,
	})
	if err != nil || len(answer.GetPartitions()) != 1 {
		t.Errorf("a wait past its deadline: %v, %v", answer, err)
	}
	for name, r := range map[string]*agentv1.FetchRequest{
		"negative bytes": {MaxBytes: -1},
		"a bad topic":    {Positions: []*agentv1.FetchPosition{{TopicId: []byte("x")}}},
		"too many":       {Positions: make([]*agentv1.FetchPosition, 10_001)},
	} {
		for i := range r.GetPositions() {
			if r.Positions[i] == nil {
				r.Positions[i] = &agentv1.FetchPosition{TopicId: key.Topic[:]}
			}
		}
		_, err := agentv1.NewLogServiceClient(raw(t, a)).Fetch(t.Context(), r)
		if code := status.Code(err); code != codes.FailedPrecondition && code != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFetch_GivesBackWhatIsNotRead lets clients ask for much and die without
// reading it.
func TestFetch_GivesBackWhatIsNotRead(t *testing.T) {
	c := newCluster(t, tcp{})
	a := c.start("")
	key := c.topic("orders")
	value := strings.Repeat("x", 4<<20)
	if r := appendAll(t, c.dial(), newBatch(t, key, value))[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	for i := range 6 {
		conn := raw(t, a, grpcgo.WithInitialWindowSize(64<<10), grpcgo.WithInitialConnWindowSize(64<<10))
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := conn.NewStream(ctx, &grpcgo.StreamDesc{ServerStreams: true}, agentv1.LogService_Fetch_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(&agentv1.FetchRequest{Positions: []*agentv1.FetchPosition{{TopicId: key.Topic[:]}}, MaxBytes: 8 << 20}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "nothing is booked for an answer that is not read", func() bool { return a.server.Stats().FetchBytes >= 4<<20 })
		if i%2 == 0 { // the call alone ends
			cancel()
		} else {
			conn.Close()
		}
		eventually(t, "what nobody reads stays booked", func() bool { return a.server.Stats().FetchBytes == 0 })
		conn.Close()
		cancel()
	}
	got, err := c.dial().Fetch(t.Context(), ports.FetchRequest{Partitions: []ports.FetchPosition{{PartitionKey: key}}, MaxBytes: 1})
	if err != nil || !bytes.Contains(got[0].Batches, []byte(value)) {
		t.Errorf("another client: %v", err)
	}
	eventually(t, "what was read stays booked", func() bool { return a.server.Stats().FetchBytes == 0 })
}

func TestStreams_InAStormAreBounded(t *testing.T) {
	c := newCluster(t, tcp{})
	const most = 16
	a := c.start("", func(_ *grpc.Backend, cfg *grpc.ServerConfig) { cfg.MaxStreams, cfg.MaxConnections = most, 3 })
	conn := raw(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	opened := make(chan error, 500)
	for range cap(opened) {
		go func() {
			stream, err := agentv1.NewLogServiceClient(conn).Produce(ctx)
			if err == nil {
				_, err = stream.Recv()
			}
			opened <- err
		}()
	}
	eventually(t, "no stream is open", func() bool { return a.server.Stats().Streams == most })
	if r := appendAll(t, c.dial(), newBatch(t, c.topic("orders"), "x"))[0]; r.Err != nil {
		t.Errorf("another client: %v", r.Err)
	}
	eventually(t, "there are more streams than may be", func() bool { return a.server.Stats().Streams <= most })
	cancel()
	failed := 0
	for range cap(opened) {
		if within(t, opened, "a stream neither opens nor fails") != nil {
			failed++
		}
	}
	if failed < cap(opened)/2 {
		t.Errorf("%d of %d streams failed", failed, cap(opened))
	}
	for range 5 {
		_, _ = agentv1.NewTopicServiceClient(raw(t, a)).ListTopics(t.Context(), &agentv1.ListTopicsRequest{})
	}
	if n := a.server.Stats().Connections; n > 3 {
		t.Errorf("%d connections", n)
	}
}
