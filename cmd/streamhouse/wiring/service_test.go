package wiring

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/domain"
)

// anAgent starts an agent on the folder of cfg.
func anAgent(t *testing.T, cfg Config) *Service {
	t.Helper()
	cfg.Serve.Listen, cfg.Serve.Admin = "127.0.0.1:0", "127.0.0.1:0"
	var s *Service
	system, err := Open(t.Context(), cfg, &s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := system.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// through makes what the targets point to, for a client of the agents of the
// group.
func through(t *testing.T, agent *Service, targets ...any) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Agents.Addresses, cfg.Agents.Group = []string{agent.Address}, agent.Status().Group
	system, err := Open(t.Context(), cfg, targets...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := system.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// metric asks the agent for the value of a metric.
func metric(t *testing.T, agent *Service, name string) float64 {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+agent.Admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("the agent has no metric %s", name)
	return 0
}

const (
	recentHits = `streamhouse_cache_recent_hits_total{outcome="ok"}`
	misses     = `streamhouse_cache_misses_total{outcome="ok"}`
	storeReads = `streamhouse_cache_reads_total{outcome="ok"}`
)

func makeTopic(t *testing.T, agent *Service) {
	t.Helper()
	var tp *topics.Topics
	through(t, agent, &tp)
	if _, err := tp.Create(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 4}); err != nil {
		t.Fatal(err)
	}
}

// TestService_ServesTheEndOfTheLogFromMemory follows a log through the agent that
// writes it.
func TestService_ServesTheEndOfTheLogFromMemory(t *testing.T) {
	agent := anAgent(t, inFolder(t))
	makeTopic(t, agent)
	var p *producer.Producer
	var c *consumer.Consumer
	through(t, agent, &p, &c)
	if err := c.Assign(t.Context(), "orders", consumer.Start()); err != nil {
		t.Fatal(err)
	}
	const records = 50
	for i := range records {
		if _, err := p.Send(t.Context(), domain.Record{Topic: "orders", Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
		messages, err := c.Poll(t.Context(), 10)
		if err != nil || len(messages) != 1 || string(messages[0].Value) != strconv.Itoa(i) {
			t.Fatalf("record %d: polled %v, %v", i, messages, err)
		}
	}
	if n := metric(t, agent, recentHits); n < records {
		t.Errorf("%v reads from memory of %d records", n, records)
	}
	if m, r := metric(t, agent, misses), metric(t, agent, storeReads); m != 0 || r != 0 {
		t.Errorf("%v misses and %v reads of segments, want none", m, r)
	}
}

// TestService_ShowsAtOnceWhatAnotherAgentAcknowledged reads each record through
// the other agent of a log as soon as it is acknowledged, without waiting for it.
func TestService_ShowsAtOnceWhatAnotherAgentAcknowledged(t *testing.T) {
	cfg := inFolder(t)
	cfg.Serve.CacheBytes = 32 << 20 // with blocks, too
	cfg.Serve.Group = "writing"     // a group each: clients go to any agent of theirs
	writing := anAgent(t, cfg)
	cfg.Serve.Group = "reading"
	reading := anAgent(t, cfg)
	makeTopic(t, writing)
	var p *producer.Producer
	through(t, writing, &p)
	var c *consumer.Consumer
	through(t, reading, &c)
	if err := c.Assign(t.Context(), "orders", consumer.Start()); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		sent, err := p.Send(t.Context(), domain.Record{Topic: "orders", Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)})
		if err != nil {
			t.Fatal(err)
		}
		var got []domain.Message
		for m, err := range c.ReadToEnd(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m)
		}
		if len(got) != 1 || got[0].Offset != sent.Offset || string(got[0].Value) != strconv.Itoa(i) {
			t.Fatalf("record %d, acknowledged at %d: read %v", i, sent.Offset, got)
		}
	}
	if n := metric(t, reading, recentHits); n != 0 {
		t.Errorf("%v reads came from segments that the agent has not put", n)
	}
	if n := metric(t, writing, misses); n != 0 {
		t.Errorf("%v reads went to the agent that writes", n)
	}
}

func TestCache_IsAsLargeAsItIsSaidToBe(t *testing.T) {
	for name, k := range map[string]struct {
		segments             string
		bytes, recent, block int64
	}{
		"bucket":               {"s3://bucket", -1, 64 << 20, 128 << 20},
		"folder":               {"", -1, 64 << 20, 0},
		"folder, by its URL":   {"file:x", -1, 64 << 20, 0},
		"as said, in a folder": {"", 300, 100, 200},
		"as said, in a bucket": {"s3://bucket", 300, 100, 200},
		"none":                 {"s3://bucket", 0, 0, 0},
	} {
		b := &builder{cfg: DefaultConfig()}
		b.cfg.Segments, b.cfg.Serve.CacheBytes = k.segments, k.bytes
		if cfg := b.cacheConfig(); cfg.RecentBytes != k.recent || cfg.BlockBytes != k.block {
			t.Errorf("%s: %d and %d bytes", name, cfg.RecentBytes, cfg.BlockBytes)
		}
	}
}
