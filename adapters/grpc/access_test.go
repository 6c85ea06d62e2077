package grpc_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// The tokens of the tests.
const (
	everything = "token-of-everything"
	onlyReads  = "token-that-only-reads"
	onlyWrites = "token-that-only-writes"
	onlyAdmin  = "token-that-only-administers"
	onlyA      = "token-for-topics-of-a"
)

func tokens(t *testing.T) *grpc.Tokens {
	t.Helper()
	all := []string{""}
	authorizer, err := grpc.NewTokens(map[string]grpc.Principal{
		everything: {Name: "root", Scopes: []grpc.Scope{grpc.ScopeRead, grpc.ScopeWrite, grpc.ScopeAdmin}, Topics: all},
		onlyReads:  {Name: "reader", Scopes: []grpc.Scope{grpc.ScopeRead}, Topics: all},
		onlyWrites: {Name: "writer", Scopes: []grpc.Scope{grpc.ScopeWrite}, Topics: all},
		onlyAdmin:  {Name: "admin", Scopes: []grpc.Scope{grpc.ScopeAdmin}, Topics: all},
		onlyA:      {Name: "a", Scopes: []grpc.Scope{grpc.ScopeRead, grpc.ScopeWrite, grpc.ScopeAdmin}, Topics: []string{"a-", "shared"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return authorizer
}

func withTokens(t *testing.T) func(*grpc.Backend, *grpc.ServerConfig) {
	return func(_ *grpc.Backend, cfg *grpc.ServerConfig) { cfg.Authorizer = tokens(t) }
}

// with makes a client that shows token.
func (c *cluster) with(token string) *grpc.Client {
	return c.dial(func(cfg *grpc.ClientConfig) { cfg.Token = token })
}

func newBatch(t testing.TB, key commit.PartitionKey, value string) ports.Batch {
	t.Helper()
	var b batch.Builder
	b.Reset(nil)
	b.Append(1, nil, []byte(value), nil)
	bytes, err := b.Encode(nil, nil, batch.NoProducer)
	if err != nil {
		t.Fatal(err)
	}
	return ports.Batch{PartitionKey: key, Bytes: bytes}
}

// appendAll appends batches through a transport of its own and returns their
// fates.
func appendAll(t testing.TB, client *grpc.Client, batches ...ports.Batch) []ports.AppendResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	transport := client.Transport()
	results := make([]ports.AppendResult, len(batches))
	if err := transport.Append(ctx, batches, func(i int, r ports.AppendResult) { results[i] = r }); err != nil {
		for i := range results {
			results[i] = ports.AppendResult{Base: -1, Err: err}
		}
	}
	if err := transport.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	return results
}

// TestAccess_GoesByScope makes every call with every token.
func TestAccess_GoesByScope(t *testing.T) {
	c := newCluster(t, tcp{})
	c.start("", withTokens(t))
	topic, err := c.metadata.CreateTopic(t.Context(), streamhouse.TopicSpec{Name: "orders", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	key := commit.PartitionKey{Topic: topic.ID}
	calls := map[string]struct {
		allowed string
		call    func(*grpc.Client) error
	}{
		"Append": {"write", func(c *grpc.Client) error { return appendAll(t, c, newBatch(t, key, "x"))[0].Err }},
		"Fetch": {"read", func(c *grpc.Client) error {
			_, err := c.Fetch(t.Context(), ports.FetchRequest{Partitions: []ports.FetchPosition{{PartitionKey: key}}, MaxBytes: 1})
			return err
		}},
		"OffsetAt": {"read", func(c *grpc.Client) error { _, err := c.OffsetAt(t.Context(), key, time.Now()); return err }},
		"CreateTopic": {"admin", func(c *grpc.Client) error {
			_, err := c.CreateTopic(t.Context(), streamhouse.TopicSpec{Name: "new", Partitions: 1})
			return ignore(err, domain.ErrTopicExists)
		}},
		"Topic":              {"read write admin", func(c *grpc.Client) error { _, err := c.Topic(t.Context(), "orders"); return err }},
		"ListTopics":         {"read write admin", func(c *grpc.Client) error { _, err := c.ListTopics(t.Context()); return err }},
		"DescribePartitions": {"read write admin", func(c *grpc.Client) error { _, err := c.DescribePartitions(t.Context(), topic.ID); return err }},
		"WidenTopic":         {"admin", func(c *grpc.Client) error { _, err := c.WidenTopic(t.Context(), topic.ID, 2); return err }},
		"SetRetention": {"admin", func(c *grpc.Client) error {
			_, err := c.SetRetention(t.Context(), topic.ID, domain.Retention{})
			return err
		}},
		"DeleteTopic": {"admin", func(c *grpc.Client) error {
			return ignore(c.DeleteTopic(t.Context(), domain.TopicID{1}), domain.ErrTopicNotFound)
		}},
		"RegisterProducer": {"write", func(c *grpc.Client) error { _, err := c.RegisterProducer(t.Context(), ""); return err }},
		"AbandonBatch": {"write", func(c *grpc.Client) error {
			_, err := c.AbandonBatch(t.Context(), ports.AbandonedBatch{StreamKey: commit.StreamKey{Producer: 1, PartitionKey: key}, Records: 1})
			return err
		}},
		"Agents": {"read write admin", func(c *grpc.Client) error { _, err := c.Agents(t.Context(), ""); return err }},
	}
	for token, scopes := range map[string]string{
		everything: "read write admin", onlyReads: "read", onlyWrites: "write", onlyAdmin: "admin",
		"": "", "token-that-nobody-knows": "", everything + "x": "", strings.ToUpper(everything): "",
	} {
		client := c.with(token)
		for name, k := range calls {
			allowed := false
			for scope := range strings.FieldsSeq(scopes) {
				allowed = allowed || strings.Contains(k.allowed, scope)
			}
			err := k.call(client)
			want := grpc.ErrPermissionDenied
			if scopes == "" {
				want = grpc.ErrUnauthenticated
			}
			switch {
			case allowed && err != nil:
				t.Errorf("%s with scopes %q: %v", name, scopes, err)
			case !allowed && (!errors.Is(err, want) || ports.KindOf(err) != ports.Definite):
				t.Errorf("%s with scopes %q (%q): %v, want a definite %v", name, scopes, token, err, want)
			}
		}
	}
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

func TestAccess_GoesByTopic(t *testing.T) {
	c := newCluster(t, tcp{})
	c.start("", withTokens(t))
	keys := make(map[string]commit.PartitionKey)
	for _, name := range []string{"a-1", "a-2", "b-1", "shared"} {
		topic, err := c.metadata.CreateTopic(t.Context(), streamhouse.TopicSpec{Name: name, Partitions: 1})
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = commit.PartitionKey{Topic: topic.ID}
	}
	client := c.with(onlyA)
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, grpc.ErrPermissionDenied) || ports.KindOf(err) != ports.Definite {
			t.Errorf("%s: %v, want a definite ErrPermissionDenied", what, err)
		}
	}
	results := appendAll(t, client, newBatch(t, keys["a-1"], "x"), newBatch(t, keys["b-1"], "x"), newBatch(t, keys["shared"], "x"))
	if results[0].Err != nil || results[2].Err != nil {
		t.Errorf("own topics: %v, %v", results[0].Err, results[2].Err)
	}
	refused("append", results[1].Err)
	got, err := client.Fetch(t.Context(), ports.FetchRequest{MaxBytes: 1 << 20, Partitions: []ports.FetchPosition{
		{PartitionKey: keys["b-1"]}, {PartitionKey: keys["a-1"]}, {PartitionKey: commit.PartitionKey{Topic: domain.TopicID{9}}},
	}})
	if err != nil || got[1].Err != nil || len(got[1].Batches) == 0 {
		t.Fatalf("fetch: %v, %+v", err, got)
	}
	refused("fetch", got[0].Err)
	if !errors.Is(got[2].Err, domain.ErrTopicNotFound) {
		t.Errorf("fetch of no topic: %v", got[2].Err)
	}
	all, err := client.ListTopics(t.Context())
	if err != nil || len(all) != 3 {
		t.Errorf("it sees %v, %v, want its three topics", all, err)
	}
	b := keys["b-1"].Topic
	_, err = client.Topic(t.Context(), "b-1")
	refused("find", err)
	_, err = client.CreateTopic(t.Context(), streamhouse.TopicSpec{Name: "b-2", Partitions: 1})
	refused("create", err)
	_, err = client.DescribePartitions(t.Context(), b)
	refused("describe", err)
	refused("delete", client.DeleteTopic(t.Context(), b))
	_, err = client.WidenTopic(t.Context(), b, 5)
	refused("widen", err)
	_, err = client.SetRetention(t.Context(), b, domain.Retention{})
	refused("set retention", err)
	_, err = client.OffsetAt(t.Context(), keys["b-1"], time.Now())
	refused("offset at", err)
	_, err = client.AbandonBatch(t.Context(), ports.AbandonedBatch{StreamKey: commit.StreamKey{Producer: 1, PartitionKey: keys["b-1"]}, Records: 1})
	refused("abandon", err)
	if _, err := client.CreateTopic(t.Context(), streamhouse.TopicSpec{Name: "a-3", Partitions: 1}); err != nil {
		t.Errorf("create an own topic: %v", err)
	}
}

func TestTokens_RefuseWhatCannotBeMeant(t *testing.T) {
	good := grpc.Principal{Name: "x", Scopes: []grpc.Scope{grpc.ScopeRead}, Topics: []string{""}}
	for name, tokens := range map[string]map[string]grpc.Principal{
		"short":         {"secret": good},
		"no scope":      {"secret-secret-secret": {Name: "x", Topics: []string{""}}},
		"unknown scope": {"secret-secret-secret": {Name: "x", Scopes: []grpc.Scope{"root"}, Topics: []string{""}}},
		"no topics":     {"secret-secret-secret": {Name: "x", Scopes: good.Scopes}},
	} {
		_, err := grpc.NewTokens(tokens)
		if !errors.Is(err, domain.ErrConfig) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	none, err := grpc.NewTokens(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "x"} {
		if _, err := none.Authorize(t.Context(), grpc.Credentials{Token: token}); err == nil {
			t.Errorf("no token is known, and %q is let in", token)
		}
	}
}

func TestToken_LeavesTheMachineOnlySecured(t *testing.T) {
	cfg := grpc.DefaultClientConfig()
	cfg.Token, cfg.Addresses = everything, []string{"192.0.2.1:7070"}
	cfg.Dialer = func(context.Context, string) (net.Conn, error) {
		t.Error("it is dialled")
		return nil, errors.New("no")
	}
	if _, err := grpc.Dial(t.Context(), cfg); !errors.Is(err, domain.ErrNoAgentsAvailable) || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("a token for an address elsewhere, without TLS: %v", err)
	}
}

// counted counts calls of topics, to see what comes through.
type counted struct {
	ports.Topics
	calls atomic.Int64
}

func (c *counted) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	c.calls.Add(1)
	return c.Topics.ListTopics(ctx)
}

// TestAccess_IsDecidedOnTheMethodThatIsCalled sends paths that no client sends.
// None of them may reach a method without its token.
func TestAccess_IsDecidedOnTheMethodThatIsCalled(t *testing.T) {
	c := newCluster(t, tcp{})
	topics := &counted{Topics: c.metadata}
	a := c.start("", withTokens(t), func(b *grpc.Backend, _ *grpc.ServerConfig) { b.Topics = topics })
	const method = "streamhouse.agent.v1.TopicService/ListTopics"
	for _, path := range []string{
		"/" + method, method, "//" + method, "///" + method, "/" + method + "/", "/" + method + "?x=1", "/" + method + "#x", "", "/", "*", "//",
		"/streamhouse.agent.v1.TopicService//ListTopics", "/streamhouse.agent.v1.TopicService", "/STREAMHOUSE.AGENT.V1.TopicService/ListTopics",
		"/streamhouse.agent.v1.TopicService%2fListTopics", "/%73treamhouse.agent.v1.TopicService/ListTopics",
		"/grpc.health.v1.Health/Check/../../" + method, "/grpc.health.v1.Health/../" + method, "/./" + method, " /" + method, "/" + method + " ",
		"/" + method + "\x00", "/grpc.health.v1.Health/Check\x00/" + method, "http://127.0.0.1/" + method, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	} {
		for _, token := range []string{"", onlyA + "x"} {
			if got := rawCall(t, a.addr, path, token); got == "0" {
				t.Errorf("path %q with token %q is answered with OK", path, token)
			}
		}
	}
	if n := topics.calls.Load(); n != 0 {
		t.Errorf("%d calls came through", n)
	}
	if got := rawCall(t, a.addr, "/grpc.health.v1.Health/Check", ""); got != "0" {
		t.Errorf("the health check is answered with %q", got)
	}
	if got := rawCall(t, a.addr, "/"+method, everything); got != "0" || topics.calls.Load() != 1 {
		t.Errorf("a call with its token is answered with %q", got)
	}
}

// rawCall calls path with an empty message, past every check of a client, and
// returns the status, "" if the stream or the connection was ended.
func rawCall(t *testing.T, address, path, token string) string {
	t.Helper()
	conn, err := tcp{}.dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	var block bytes.Buffer
	headers := hpack.NewEncoder(&block)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "agent"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", "Bearer " + token},
	} {
		if h[0] != "authorization" || token != "" {
			if err := headers.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	err = errors.Join(
		f.WriteSettings(),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
		f.WriteData(1, true, make([]byte, 5)),
	)
	for err == nil {
		var frame http2.Frame
		if frame, err = f.ReadFrame(); err != nil {
			break
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, h := range frame.RegularFields() {
				if h.Name == "grpc-status" {
					return h.Value
				}
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return ""
		}
	}
	return ""
}
