package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// collector is where spans go, and keeps what it gets.
type collector struct {
	*httptest.Server
	mu   sync.Mutex
	body bytes.Buffer
}

// newCollector makes a collector that the variables of OpenTelemetry name.
func newCollector(t *testing.T) *collector {
	c := new(collector)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, err := io.Copy(&c.body, r.Body); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("a request for %s: %v", r.URL.Path, err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	return c
}

// take returns what came since the last time.
func (c *collector) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.body.Reset()
	return c.body.String()
}

func TestTraces_GoToTheEndpointOfTheEnvironment(t *testing.T) {
	traces, c := newCollector(t), newTool(t)
	c.ok("v\n", "produce", "orders", "--create")
	if sent := traces.take(); sent != "" {
		t.Errorf("without a variable %d bytes were sent", len(sent))
	}
	c.env = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + traces.URL}
	c.ok("v\n", "produce", "orders")
	sent := traces.take()
	for _, want := range []string{"service.name", "streamhouse", "send orders", "publish orders", "put segment", "commit segments"} {
		if !strings.Contains(sent, want) {
			t.Errorf("no %q in the %d bytes that were sent", want, len(sent))
		}
	}
	c.ok("", "consume", "orders")
	if sent := traces.take(); !strings.Contains(sent, "poll orders") || strings.Count(sent, "poll orders") != 1 {
		t.Errorf("the consumer has sent %q, want one poll: of the record that carries a trace", sent)
	}
	out := c.ok("", "consume", "orders", "--output", "json")
	if n := strings.Count(out, "traceparent"); n != 1 {
		t.Errorf("%d records carry a trace, want 1: %s", n, out)
	}
}

func TestTraces_ThatNobodyTakesFailNoCommand(t *testing.T) {
	traces, c := newCollector(t), newTool(t)
	traces.Close()
	c.env = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + traces.URL}
	r := c.run("v\n", "produce", "orders", "--create")
	if r.code != exitOK || !strings.Contains(r.stderr, "streamhouse: traces: ") {
		t.Errorf("exit code %d, standard error %q", r.code, r.stderr)
	}
}

func TestTraces_AreRefusedOverAProtocolThatThereIsNot(t *testing.T) {
	c := newTool(t)
	c.env = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"}
	for _, args := range [][]string{{"produce", "orders", "--create"}, {"consume", "orders"}, {"serve"}} {
		if r := c.run("", args...); r.code != exitUsage || !strings.Contains(r.stderr, "OTEL_EXPORTER_OTLP_PROTOCOL") {
			t.Errorf("%q: exit code %d: %s", args, r.code, r.stderr)
		}
	}
}
