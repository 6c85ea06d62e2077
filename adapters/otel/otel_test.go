package otel_test

import (
	"context"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/adapters/otel"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestTelemetry(t *testing.T) {
	portstest.TestTelemetry(t, func(testing.TB) ports.Telemetry { return otel.New(noop.NewTracerProvider(), memory.NewTelemetry()) })
}

func TestRecord_PassesEventsOnToAllOthers(t *testing.T) {
	a, b := memory.NewTelemetry(), memory.NewTelemetry()
	otel.New(noop.NewTracerProvider(), a, b).Record(ports.Event{Kind: ports.SegmentPut})
	if a.Count(ports.SegmentPut) != 1 || b.Count(ports.SegmentPut) != 1 {
		t.Errorf("counted %d and %d times, want once each", a.Count(ports.SegmentPut), b.Count(ports.SegmentPut))
	}
}

func recorded(t *testing.T, do func(tracer ports.Tracer)) []sdktrace.ReadOnlySpan {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	do(otel.New(provider))
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	return spans.Ended()
}

// TestSpans_HaveTheNamesOfTheSemanticConventions holds all kinds to what
// docs/tracing.md says of them.
func TestSpans_HaveTheNamesOfTheSemanticConventions(t *testing.T) {
	segment := domain.SegmentID{1}
	want := map[ports.SpanKind]struct {
		name       string
		kind       trace.SpanKind
		attributes []attribute.KeyValue
	}{
		ports.SendSpan: {"send orders", trace.SpanKindProducer, []attribute.KeyValue{
			attribute.String("messaging.system", "streamhouse"), attribute.String("messaging.operation.name", "send"),
			attribute.String("messaging.operation.type", "send"), attribute.String("messaging.destination.name", "orders"),
			attribute.String("messaging.destination.partition.id", "3"), attribute.Int64("streamhouse.offset", 7),
		}},
		ports.PublishSpan: {"publish orders", trace.SpanKindClient, []attribute.KeyValue{
			attribute.String("messaging.system", "streamhouse"), attribute.String("messaging.operation.name", "publish"),
			attribute.String("messaging.operation.type", "send"), attribute.String("messaging.destination.name", "orders"),
			attribute.Int("messaging.batch.message_count", 5), attribute.Int64("streamhouse.bytes", 100),
		}},
		ports.PutSpan: {"put segment", trace.SpanKindClient, []attribute.KeyValue{
			attribute.Int("streamhouse.batches", 5), attribute.Int64("streamhouse.bytes", 100), attribute.String("streamhouse.segment.id", segment.String()),
		}},
		ports.CommitSpan: {"commit segments", trace.SpanKindClient, []attribute.KeyValue{
			attribute.Int("streamhouse.segments", 5), attribute.String("streamhouse.segment.id", segment.String()),
		}},
		ports.PollSpan: {"poll orders", trace.SpanKindClient, []attribute.KeyValue{
			attribute.String("messaging.system", "streamhouse"), attribute.String("messaging.operation.name", "poll"),
			attribute.String("messaging.operation.type", "receive"), attribute.String("messaging.destination.name", "orders"),
			attribute.Int("messaging.batch.message_count", 5),
		}},
	}
	ends := map[ports.SpanKind]ports.SpanEnd{
		ports.SendSpan:    {Partition: 3, Offset: 7},
		ports.PublishSpan: {Count: 5, Bytes: 100},
		ports.PutSpan:     {Count: 5, Bytes: 100, Segment: segment},
		ports.CommitSpan:  {Count: 5, Segment: segment},
		ports.PollSpan:    {Count: 5},
	}
	for kind := ports.SpanKind(1); int(kind) < ports.SpanKinds; kind++ {
		start := ports.SpanStart{Kind: kind, Topic: "orders", At: time.Unix(1, 0)}
		if kind == ports.PutSpan || kind == ports.CommitSpan {
			start.Topic = ""
		}
		spans := recorded(t, func(tracer ports.Tracer) { tracer.Begin(t.Context(), start).End(ends[kind]) })
		got := spans[0]
		if w := want[kind]; got.Name() != w.name || got.SpanKind() != w.kind || !got.StartTime().Equal(start.At) || attribute.NewSet(got.Attributes()...) != attribute.NewSet(w.attributes...) {
			t.Errorf("kind %d: %q, %s, %v; want %q, %s, %v", kind, got.Name(), got.SpanKind(), got.Attributes(), w.name, w.kind, w.attributes)
		}
	}
}

func TestSpans_ThatFailSayWhy(t *testing.T) {
	cause := &domain.TopicNotFoundError{Topic: "orders"}
	spans := recorded(t, func(tracer ports.Tracer) {
		tracer.Begin(t.Context(), ports.SpanStart{Kind: ports.SendSpan}).End(ports.SpanEnd{Err: cause, Offset: -1})
	})
	got := spans[0]
	if got.Name() != "send" || got.Status() != (sdktrace.Status{Code: codes.Error, Description: cause.Error()}) {
		t.Errorf("%q ended with %+v", got.Name(), got.Status())
	}
	for _, a := range got.Attributes() {
		if a.Key == "streamhouse.offset" {
			t.Errorf("a failed send has %v", a)
		}
	}
}

func TestBegin_IsChildOfTheContextElseOfTheFirst(t *testing.T) {
	first, second := sent(1), sent(2)
	own := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{9}, SpanID: trace.SpanID{9}, TraceFlags: trace.FlagsSampled})
	for name, c := range map[string]struct {
		ctx    context.Context
		parent trace.SpanID
		links  []trace.SpanID
	}{
		"of the first":   {t.Context(), trace.SpanID{1}, []trace.SpanID{{2}}},
		"of the context": {trace.ContextWithSpanContext(t.Context(), own), own.SpanID(), []trace.SpanID{{1}, {2}}},
	} {
		spans := recorded(t, func(tracer ports.Tracer) {
			tracer.Begin(c.ctx, ports.SpanStart{Kind: ports.PollSpan, For: []ports.TraceContext{first, second}}).End(ports.SpanEnd{})
		})
		var links []trace.SpanID
		for _, l := range spans[0].Links() {
			links = append(links, l.SpanContext.SpanID())
		}
		if spans[0].Parent().SpanID() != c.parent || len(links) != len(c.links) || links[len(links)-1] != c.links[len(links)-1] {
			t.Errorf("%s: child of %s, linked with %v; want %s and %v", name, spans[0].Parent().SpanID(), links, c.parent, c.links)
		}
	}
}

func sent(id byte) ports.TraceContext {
	return ports.TraceContext{TraceID: [16]byte{id}, SpanID: [8]byte{id}, Flags: 1}
}

func TestSender_IsWhoSentTheRecordIfItSays(t *testing.T) {
	m := domain.Message{Headers: []domain.Header{{Key: "traceparent", Value: []byte(sent(5).String())}}}
	if got := otel.Sender(m); got.SpanID() != (trace.SpanID{5}) || !got.IsSampled() || !got.IsRemote() {
		t.Errorf("sender %+v", got)
	}
	if got := otel.Sender(domain.Message{}); got.IsValid() {
		t.Errorf("sender of a record that says nothing: %+v", got)
	}
}
