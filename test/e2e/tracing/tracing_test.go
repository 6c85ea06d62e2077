// Package tracing follows records from Send to Poll by the spans that they leave.
package tracing

import (
	"context"
	"net"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/adapters/otel"
	"github.com/streamhouse/streamhouse/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// process is one process's tracing, with what it has made.
type process struct {
	provider *sdktrace.TracerProvider
	spans    *tracetest.SpanRecorder
}

func newProcess(t *testing.T, sampler sdktrace.Sampler) process {
	p := process{spans: tracetest.NewSpanRecorder()}
	p.provider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p.spans), sdktrace.WithSampler(sampler))
	t.Cleanup(func() {
		if err := p.provider.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// named returns the ended spans of the name.
func (p process) named(name string) (found []sdktrace.ReadOnlySpan) {
	for _, s := range p.spans.Ended() {
		if s.Name() == name {
			found = append(found, s)
		}
	}
	return found
}

// way is how an application reaches the log.
type way struct {
	app, log process // the application's and whose puts and commits
	producer *streamhouse.Producer
	consumer *streamhouse.Consumer
}

// open makes a topic, a producer and a consumer that trace themselves if tel is
// not nil, over stores in memory or over an agent in front of them.
func open(t *testing.T, agent bool, sampler sdktrace.Sampler, traced bool) *way {
	t.Helper()
	cluster := memory.NewCluster()
	t.Cleanup(func() { _ = cluster.Close() }) // memory has nothing to fail
	w := &way{app: newProcess(t, sampler)}
	w.log = w.app
	producer, consumer := streamhouse.NewProducerBuilder(), streamhouse.NewConsumerBuilder()
	if agent {
		w.log = newProcess(t, sdktrace.ParentBased(sdktrace.NeverSample())) // it decides nothing by itself
		client := dial(t, serve(t, cluster, otel.New(w.log.provider)))
		producer.Agents(client)
		consumer.Agents(client)
	} else {
		producer.Cluster(cluster)
		consumer.Cluster(cluster)
	}
	if traced {
		producer.Telemetry(otel.New(w.app.provider))
		consumer.Telemetry(otel.New(w.app.provider))
	}
	if _, err := streamhouse.NewTopics(cluster.Metadata()).Create(t.Context(), streamhouse.TopicSpec{Name: "orders", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.producer, err = producer.Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.consumer, err = consumer.Assign("orders", streamhouse.FromStart()).Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// close ends both, so that all spans are ended.
func (w *way) close(t *testing.T) {
	t.Helper()
	if err := w.producer.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := w.consumer.Close(); err != nil {
		t.Error(err)
	}
}

func serve(t *testing.T, cluster *memory.Cluster, tel ports.Telemetry) (address string) {
	t.Helper()
	writer, err := direct.NewWriter(cluster.Metadata(), cluster.Segments(), tel, direct.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	discovery := memory.NewAgents()
	cfg := grpc.DefaultServerConfig()
	cfg.TotalBytes = 40 << 20
	server, err := grpc.NewServer(grpc.Backend{
		Transport: writer, Fetcher: direct.NewReader(cluster.Metadata(), cluster.Segments(), tel, direct.DefaultReaderConfig()),
		Topics: cluster.Metadata(), Producers: cluster.Metadata(), Agents: discovery,
	}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := writer.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string) *grpc.Client {
	t.Helper()
	cfg := grpc.DefaultClientConfig()
	cfg.Addresses = []string{address}
	client, err := grpc.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// ways are the two that there are, under the same test.
func ways(t *testing.T, f func(t *testing.T, agent bool)) {
	t.Run("stores", func(t *testing.T) { f(t, false) })
	t.Run("agent", func(t *testing.T) { f(t, true) })
}

func (w *way) poll(ctx context.Context, t *testing.T, n int) (all []streamhouse.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for len(all) < n {
		got, err := w.consumer.Poll(ctx, n-len(all))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got...)
	}
	return all
}

func isChild(t *testing.T, child sdktrace.ReadOnlySpan, parent trace.SpanContext) {
	t.Helper()
	if got := child.Parent(); got.SpanID() != parent.SpanID() || child.SpanContext().TraceID() != parent.TraceID() {
		t.Errorf("%q is a child of %s in trace %s, want %s in %s", child.Name(), got.SpanID(), child.SpanContext().TraceID(), parent.SpanID(), parent.TraceID())
	}
}

func isLinked(t *testing.T, s sdktrace.ReadOnlySpan, to trace.SpanContext) {
	t.Helper()
	if links := s.Links(); len(links) != 1 || links[0].SpanContext.SpanID() != to.SpanID() || links[0].SpanContext.TraceID() != to.TraceID() {
		t.Errorf("%q has the links %+v, want one to %s", s.Name(), s.Links(), to.SpanID())
	}
}

func TestTrace_LeadsFromSendToPutAndCommitAndToPoll(t *testing.T) {
	ways(t, func(t *testing.T, agent bool) {
		w := open(t, agent, sdktrace.AlwaysSample(), true)
		tracer := w.app.provider.Tracer("application")
		ctx, checkout := tracer.Start(t.Context(), "checkout")
		if _, err := w.producer.Send(ctx, streamhouse.Record{Topic: "orders", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		checkout.End()
		if _, err := w.producer.Send(ctx, streamhouse.Record{Topic: "orders", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		message := w.poll(t.Context(), t, 1)[0]
		working, work := tracer.Start(t.Context(), "work")
		w.poll(working, t, 1)
		work.End()
		w.close(t)

		sends := w.app.named("send orders")
		if len(sends) != 2 {
			t.Fatalf("%d sends, want 2", len(sends))
		}
		for i, send := range sends {
			isChild(t, send, checkout.SpanContext())
			publish := w.app.named("publish orders")[i]
			isChild(t, publish, send.SpanContext())
			isChild(t, w.log.named("put segment")[i], publish.SpanContext())
			isChild(t, w.log.named("commit segments")[i], publish.SpanContext())
		}
		if sends[0].SpanKind() != trace.SpanKindProducer {
			t.Errorf("a send is of kind %s", sends[0].SpanKind())
		}
		if got := otel.Sender(message); got.SpanID() != sends[0].SpanContext().SpanID() || !got.IsRemote() || !got.IsSampled() {
			t.Errorf("the record carries %s, want %s", got.SpanID(), sends[0].SpanContext().SpanID())
		}
		polls := w.app.named("poll orders")
		if len(polls) != 2 {
			t.Fatalf("%d polls, want 2", len(polls))
		}
		isChild(t, polls[0], sends[0].SpanContext())
		isChild(t, polls[1], work.SpanContext())
		isLinked(t, polls[1], sends[1].SpanContext())
	})
}

func TestTrace_LinksABatchWithAllItsSenders(t *testing.T) {
	ways(t, func(t *testing.T, agent bool) {
		w := open(t, agent, sdktrace.AlwaysSample(), true)
		records := make([]streamhouse.Record, 20)
		for i := range records {
			records[i].Topic = "orders"
		}
		if _, err := w.producer.SendBatch(t.Context(), records); err != nil {
			t.Fatal(err)
		}
		w.poll(t.Context(), t, len(records))
		w.close(t)
		served(t, w.app.named("publish orders"), w.app.named("send orders"))
		served(t, w.log.named("put segment"), w.app.named("publish orders"))
		served(t, w.log.named("commit segments"), w.app.named("publish orders"))
		served(t, w.app.named("poll orders"), w.app.named("send orders"))
	})
}

// served demands that each of the senders is the parent of one of the workers, or
// linked with one.
func served(t *testing.T, workers, senders []sdktrace.ReadOnlySpan) {
	t.Helper()
	known := make(map[trace.SpanID]bool)
	for _, w := range workers {
		known[w.Parent().SpanID()] = true
		for _, l := range w.Links() {
			known[l.SpanContext.SpanID()] = true
		}
	}
	if len(senders) == 0 {
		t.Error("there are no senders")
	}
	for _, s := range senders {
		if !known[s.SpanContext().SpanID()] {
			t.Errorf("%d spans %q, none for a %q", len(workers), workers[0].Name(), s.Name())
		}
	}
}

func TestTrace_OfWhatIsNotSampledLeavesNoSpanAndNoHeader(t *testing.T) {
	ways(t, func(t *testing.T, agent bool) {
		for name, w := range map[string]*way{
			"never sampled": open(t, agent, sdktrace.NeverSample(), true),
			"off":           open(t, agent, sdktrace.AlwaysSample(), false),
		} {
			if _, err := w.producer.Send(t.Context(), streamhouse.Record{Topic: "orders"}); err != nil {
				t.Fatal(err)
			}
			message := w.poll(t.Context(), t, 1)[0]
			w.close(t)
			if n := len(w.app.spans.Ended()) + len(w.log.spans.Ended()); n != 0 || len(message.Headers) != 0 {
				t.Errorf("%s: %d spans, headers %v", name, n, message.Headers)
			}
		}
	})
}
