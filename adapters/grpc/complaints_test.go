package grpc_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
)

// lines is a log that tests read.
type lines struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.String()
}

// complainEvery is how often a peer's bad requests are logged in these tests.
const complainEvery = time.Millisecond

// withLog has the server log to l, every bad request that comes complainEvery after the one before.
func withLog(l *lines) func(*grpc.Backend, *grpc.ServerConfig) {
	return func(_ *grpc.Backend, cfg *grpc.ServerConfig) {
		cfg.Log, cfg.ComplainEvery = slog.New(slog.NewTextHandler(l, nil)), complainEvery
	}
}

func TestServer_LogsBadRequestsWithPeerMethodAndReason(t *testing.T) {
	var log lines
	c := newCluster(t, tcp{})
	a := c.start("", withTokens(t), withLog(&log))
	conn := raw(t, a, grpcgo.WithDefaultCallOptions(grpcgo.MaxCallSendMsgSize(1<<30)))
	const secret = "not-a-token-at-all"
	with := func(token string) *grpcgo.ClientConn { return raw(t, a, grpcgo.WithPerRPCCredentials(bearer(token))) }

	anew := func() { <-time.After(2 * complainEvery) } // what comes then is logged
	topics := agentv1.NewTopicServiceClient(with(everything))
	_, invalidName := topics.CreateTopic(t.Context(), &agentv1.CreateTopicRequest{Name: []byte("../x\n"), Partitions: 1})
	anew()
	_, unknown := agentv1.NewTopicServiceClient(with(secret)).ListTopics(t.Context(), &agentv1.ListTopicsRequest{})
	anew()
	_, forbidden := agentv1.NewTopicServiceClient(with(onlyReads)).CreateTopic(t.Context(), &agentv1.CreateTopicRequest{Name: []byte("x"), Partitions: 1})
	anew()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+everything)
	_, large := agentv1.NewTopicServiceClient(conn).CreateTopic(ctx, &agentv1.CreateTopicRequest{Name: make([]byte, 20<<20)})
	for name, err := range map[string]error{"invalid name": invalidName, "unknown token": unknown, "forbidden": forbidden, "large": large} {
		if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if r := appendAll(t, c.with(everything), newBatch(t, c.topic("orders"), "x"))[0]; r.Err != nil {
		t.Error(r.Err)
	}
	anew()
	flipped := newBatch(t, c.topic("others"), "x")
	flipped.Bytes[len(flipped.Bytes)-1] ^= 1
	stream, err := agentv1.NewLogServiceClient(conn).Produce(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&agentv1.ProduceRequest{Id: 1, Batches: []*agentv1.Batch{wireBatch(flipped)}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`code=InvalidArgument reason="topic name \"../x\\n\" is not valid`, "code=Unauthenticated", "code=PermissionDenied", "code=ResourceExhausted",
		"code=DataLoss", "topic_id=" + flipped.Topic.String() + " partition=0", "method=/streamhouse.agent.v1.TopicService/CreateTopic", "peer=127.0.0.1:",
	} {
		eventually(t, "no line with "+want+" in\n"+log.String(), func() bool { return strings.Contains(log.String(), want) })
	}
	if got := log.String(); strings.Contains(got, secret) || strings.Contains(got, everything) || strings.Contains(got, onlyReads) {
		t.Errorf("a token is in the log:\n%s", got)
	}
	if n := a.server.Stats().Bad; n != 5 {
		t.Errorf("%d bad requests are counted, want 5:\n%s", n, log.String())
	}
}

func TestServer_LogsNothingOfGoodRequests(t *testing.T) {
	var log lines
	c := newCluster(t, tcp{})
	a := c.start("", withLog(&log))
	if r := appendAll(t, c.dial(), newBatch(t, c.topic("orders"), "x"))[0]; r.Err != nil {
		t.Error(r.Err)
	}
	a.drain()
	if got := log.String(); got != "" || a.server.Stats().Bad != 0 {
		t.Errorf("the log says:\n%s", got)
	}
}

// bearer is a token that a connection shows with every call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }
