package grpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// The frames of a release stay in testdata/frames. `make publish-protocol` keeps
// those of the next one; what is there is never changed.
var keepFrames = flag.String("keep-frames", "", "write what client and agent say today to testdata/frames/`NAME`.json")

const framesFolder = "testdata/frames"

// conversation is what a client and an agent have said, byte for byte, and what
// the client made of it.
type conversation struct {
	Saw   []string
	Calls []*recorded
}

// recorded is one call.
type recorded struct {
	Method string
	Frames []frame
	// Status is the end of the call as gRPC sends it: a google.rpc.Status. A
	// stream that the client left has none.
	Status []byte
}

// frame is one message.
type frame struct {
	ToAgent bool `json:",omitempty"`
	Data    []byte
}

// first is the first message of the client.
func (r *recorded) first() []byte {
	for _, f := range r.Frames {
		if f.ToAgent {
			return f.Data
		}
	}
	return nil
}

// bytesCodec leaves messages as they are.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// rawServer serves every method with handle. It ends with the test.
func rawServer(t *testing.T, handle grpcgo.StreamHandler) (address string) {
	t.Helper()
	s := grpcgo.NewServer(grpcgo.ForceServerCodecV2(bytesCodec{}), grpcgo.UnknownServiceHandler(handle), grpcgo.WaitForHandlers(true))
	l := tcp{}.listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpcgo.ErrServerStopped) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// rawConn is a connection for bytesCodec.
func rawConn(t *testing.T, address string) *grpcgo.ClientConn {
	t.Helper()
	conn, err := grpcgo.NewClient("passthrough:///"+address, grpcgo.WithTransportCredentials(insecure.NewCredentials()),
		grpcgo.WithDefaultCallOptions(grpcgo.ForceCodecV2(bytesCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

var bothWays = &grpcgo.StreamDesc{ClientStreams: true, ServerStreams: true}

// recorder passes calls on to an agent and keeps what is said.
type recorder struct {
	conn *grpcgo.ClientConn
	mu   sync.Mutex // guards calls, and the frames of each
	all  []*recorded
}

func (r *recorder) handle(_ any, in grpcgo.ServerStream) error {
	method, _ := grpcgo.MethodFromServerStream(in)
	call := &recorded{Method: method}
	r.mu.Lock()
	r.all = append(r.all, call)
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	out, err := r.conn.NewStream(ctx, bothWays, method)
	if err != nil {
		return err
	}
	keep := func(toAgent bool, data []byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		call.Frames = append(call.Frames, frame{toAgent, slices.Clone(data)})
	}
	go func() { // ends with in
		for {
			var data []byte
			if err := in.RecvMsg(&data); err != nil {
				_ = out.CloseSend()
				return
			}
			keep(true, data)
			_ = out.SendMsg(&data) // RecvMsg tells
		}
	}()
	for {
		var data []byte
		err := out.RecvMsg(&data)
		if err == nil {
			keep(false, data)
			err = in.SendMsg(&data)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if in.Context().Err() == nil { // else the client left, and the agent said nothing
				call.Status = statusBytes(err)
			}
			return err
		}
	}
}

// golden are the conversations that are kept.
func golden(t *testing.T) map[string]*conversation {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(framesFolder, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no frames in %s: %v", framesFolder, err)
	}
	all := make(map[string]*conversation)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c := new(conversation)
		if err := json.Unmarshal(text, c); err != nil || len(c.Calls) < 10 {
			t.Fatalf("%s: %d calls: %v", name, len(c.Calls), err)
		}
		all[filepath.Base(name)] = c
	}
	return all
}

// TestFrames_OfTodayAreKept lets a client and an agent of today talk, and writes
// down what they say if that is asked for.
func TestFrames_OfTodayAreKept(t *testing.T) {
	c := newCluster(t, tcp{})
	a := c.start("")
	if _, err := c.agents.Register(t.Context(), ports.AgentSpec{Group: "listed", Zone: "z", Address: "10.0.0.7:7070", Version: "v"}); err != nil {
		t.Fatal(err)
	}
	r := &recorder{conn: rawConn(t, a.addr)}
	talk := &conversation{Saw: tour(t, rawServer(t, r.handle))}
	r.mu.Lock()
	defer r.mu.Unlock()
	talk.Calls = r.all
	methods := make(map[string]bool)
	for _, call := range talk.Calls {
		methods[call.Method] = true
	}
	if len(methods) < 13 {
		t.Errorf("the tour goes through %d methods: %v", len(methods), methods)
	}
	if *keepFrames == "" {
		return
	}
	name := filepath.Join(framesFolder, *keepFrames+".json")
	if _, err := os.Stat(name); err == nil {
		t.Fatalf("%s is there already: frames that are kept are not changed", name)
	}
	text, err := json.MarshalIndent(talk, "", "\t")
	if err == nil {
		err = errors.Join(os.MkdirAll(framesFolder, 0o755), os.WriteFile(name, append(text, '\n'), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tour uses everything that a client can do with the agent at the address, and
// says what it saw, but for times and for ids that differ from run to run.
func tour(t *testing.T, address string) (saw []string) {
	t.Helper()
	cfg := grpc.DefaultClientConfig()
	cfg.Addresses, cfg.Group = []string{address}, "tour" // lists nobody: the address is used
	client, err := grpc.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	see := func(what string, v ...any) { saw = append(saw, what+": "+fmt.Sprintln(v...)) }
	ctx := t.Context()
	topic, err := client.CreateTopic(ctx, domain.TopicSpec{Name: "orders", Partitions: 2, Retention: domain.Retention{Age: time.Hour, Bytes: 1 << 30}})
	see("create", topic.Name, topic.Partitions, topic.Retention, err)
	_, err = client.CreateTopic(ctx, domain.TopicSpec{Name: "orders", Partitions: 2})
	see("create again", errorOf(err))
	_, err = client.CreateTopic(ctx, domain.TopicSpec{Name: "no/name", Partitions: 2})
	see("create without a name", errorOf(err))
	_, err = client.Topic(ctx, "nothing")
	see("find nothing", errorOf(err))
	found, err := client.Topic(ctx, "orders")
	see("find", found.ID == topic.ID, found.Partitions, err)
	key := commit.PartitionKey{Topic: topic.ID, Partition: 1}
	session, err := client.RegisterProducer(ctx, "worker")
	see("register", session.Epoch, err)
	p := batch.Producer{ID: session.ID, Epoch: session.Epoch}
	saw = append(saw, tourOfRecords(t, client, key, p)...)
	outcome, err := client.AbandonBatch(ctx, ports.AbandonedBatch{
		StreamKey: commit.StreamKey{PartitionKey: key, Producer: p.ID}, Epoch: p.Epoch, FirstSequence: 0, Records: 2,
	})
	see("abandon what is stored", outcome, err)
	states, err := client.DescribePartitions(ctx, topic.ID)
	see("describe", states, err)
	topic, err = client.WidenTopic(ctx, topic.ID, 3)
	see("widen", topic.Partitions, err)
	topic, err = client.SetRetention(ctx, topic.ID, domain.Retention{Age: time.Minute})
	see("retain", topic.Retention, err)
	all, err := client.ListTopics(ctx)
	see("list", len(all), err)
	agents, err := client.Agents(ctx, "listed")
	for _, a := range agents {
		see("agent", a.AgentSpec, a.Draining)
	}
	see("agents", err)
	see("delete", client.DeleteTopic(ctx, topic.ID))
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	return saw
}

// tourOfRecords appends a batch, appends it again, and reads.
func tourOfRecords(t *testing.T, client *grpc.Client, key commit.PartitionKey, p batch.Producer) (saw []string) {
	t.Helper()
	see := func(what string, v ...any) { saw = append(saw, what+": "+fmt.Sprintln(v...)) }
	var b batch.Builder
	b.Reset(nil)
	b.Append(1_000, []byte("key"), []byte("value"), []domain.Header{{Key: "h", Value: []byte("v")}})
	b.Append(2_000, nil, nil, nil)
	data, err := b.Encode(nil, nil, p)
	if err != nil {
		t.Fatal(err)
	}
	broken := slices.Clone(data)
	broken[len(broken)-1] ^= 1
	unknown := commit.PartitionKey{Topic: domain.TopicID{1}}
	for _, one := range []struct {
		what string
		ports.Batch
	}{
		{"append", ports.Batch{PartitionKey: key, Bytes: data}},
		{"append again", ports.Batch{PartitionKey: key, Bytes: data}},
		{"append what is broken", ports.Batch{PartitionKey: key, Bytes: broken}},
		{"append to nothing", ports.Batch{PartitionKey: unknown, Bytes: data}},
	} {
		r := appendAll(t, client, one.Batch)[0]
		see(one.what, r.Base, errorOf(r.Err))
	}
	read, err := client.Fetch(t.Context(), ports.FetchRequest{
		Partitions: []ports.FetchPosition{{PartitionKey: key}, {PartitionKey: key, Offset: 77}, {PartitionKey: unknown}}, MaxBytes: 1 << 20, MaxWait: time.Second,
	})
	for _, f := range read {
		see("fetch", f.LogStart, f.HighWatermark, len(f.Batches), errorOf(f.Err))
	}
	see("fetch", err)
	at, err := client.OffsetAt(t.Context(), key, time.UnixMilli(1_500))
	see("offset at", at, err)
	return saw
}

// errorOf is what callers may rely on of an error: its class and its fate, not
// its words.
func errorOf(err error) string {
	if err == nil {
		return "no error"
	}
	classes := []string{}
	for _, class := range []error{domain.ErrTopicNotFound, domain.ErrTopicExists, domain.ErrInvalidName, domain.ErrCorrupt, domain.ErrOutOfRange, domain.ErrMetadata, domain.ErrAgent} {
		if errors.Is(err, class) {
			classes = append(classes, class.Error())
		}
	}
	var out *domain.OutOfRangeError
	if errors.As(err, &out) {
		classes = append(classes, fmt.Sprint(out.Offset, out.LogStart, out.HighWatermark))
	}
	return fmt.Sprintf("%q, %v, %+v", classes, ports.KindOf(err), domain.FateOf(err))
}

// statusBytes is the end of a call.
func statusBytes(err error) []byte {
	s, _ := status.FromError(err)
	return marshal(s.Proto())
}
