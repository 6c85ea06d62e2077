// Package otel turns what StreamHouse does for sampled records into OpenTelemetry
// spans. docs/tracing.md shows which there are and how they hang together.
//
// Give New's result to the builders as Telemetry. A record that is sent within a sampled span
// then carries its trace in the header traceparent, and Sender finds it again in
// what a consumer polls.
package otel

import (
	"context"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// scope names the instrumentation in what it makes.
const scope = "github.com/streamhouse/streamhouse/adapters/otel"

// Attributes that the semantic conventions have no name for.
const (
	offsetKey   = attribute.Key("streamhouse.offset")
	segmentKey  = attribute.Key("streamhouse.segment.id")
	segmentsKey = attribute.Key("streamhouse.segments")
	batchesKey  = attribute.Key("streamhouse.batches")
	bytesKey    = attribute.Key("streamhouse.bytes")
)

// kind is how one kind of span is told.
type kind struct {
	name  string // the topic follows it, if there is one
	kind  trace.SpanKind
	begin []attribute.KeyValue
	count attribute.Key // of SpanEnd.Count; empty leaves it out
}

func messaging(name string, operation attribute.KeyValue) []attribute.KeyValue {
	return []attribute.KeyValue{semconv.MessagingSystemKey.String("streamhouse"), semconv.MessagingOperationName(name), operation}
}

var kinds = [ports.SpanKinds]kind{
	ports.SendSpan:    {"send", trace.SpanKindProducer, messaging("send", semconv.MessagingOperationTypeSend), ""},
	ports.PublishSpan: {"publish", trace.SpanKindClient, messaging("publish", semconv.MessagingOperationTypeSend), semconv.MessagingBatchMessageCountKey},
	ports.PutSpan:     {"put segment", trace.SpanKindClient, nil, batchesKey},
	ports.CommitSpan:  {"commit segments", trace.SpanKindClient, nil, segmentsKey},
	ports.PollSpan:    {"poll", trace.SpanKindClient, messaging("poll", semconv.MessagingOperationTypeReceive), semconv.MessagingBatchMessageCountKey},
}

// Telemetry is a ports.Tracer on a tracer of OpenTelemetry.
type Telemetry struct {
	tracer trace.Tracer
	others []ports.Telemetry
}

var _ ports.Tracer = (*Telemetry)(nil)

// New makes spans with a tracer of provider, which the caller shuts down after
// what uses them is closed. Events, of which it makes nothing, are passed on to the others,
// such as metrics.
func New(provider trace.TracerProvider, others ...ports.Telemetry) *Telemetry {
	return &Telemetry{tracer: provider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)), others: others}
}

// Record implements ports.Telemetry.
func (t *Telemetry) Record(e ports.Event) {
	for _, o := range t.others {
		o.Record(e)
	}
}

// Begin implements ports.Tracer. The span that ctx carries is OpenTelemetry's
// own, as trace.ContextWithSpan puts it there.
func (t *Telemetry) Begin(ctx context.Context, s ports.SpanStart) ports.Span {
	k := kinds[s.Kind]
	others := s.For
	if len(others) > 0 && !trace.SpanContextFromContext(ctx).IsValid() {
		ctx, others = trace.ContextWithRemoteSpanContext(ctx, spanContext(others[0])), others[1:]
	}
	name, attributes := k.name, k.begin
	if s.Topic != "" {
		name += " " + s.Topic
		attributes = append(attributes[:len(attributes):len(attributes)], semconv.MessagingDestinationName(s.Topic))
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(k.kind), trace.WithAttributes(attributes...)}
	if len(others) > 0 {
		links := make([]trace.Link, len(others))
		for i, o := range others {
			links[i].SpanContext = spanContext(o)
		}
		options = append(options, trace.WithLinks(links...))
	}
	if !s.At.IsZero() {
		options = append(options, trace.WithTimestamp(s.At))
	}
	_, begun := t.tracer.Start(ctx, name, options...)
	return &span{begun, s.Kind}
}

// span is one span of either library.
type span struct {
	otel trace.Span
	kind ports.SpanKind
}

// Trace implements ports.Span.
func (s *span) Trace() ports.TraceContext {
	c := s.otel.SpanContext()
	return ports.TraceContext{TraceID: c.TraceID(), SpanID: c.SpanID(), Flags: byte(c.TraceFlags() & trace.FlagsSampled)}
}

// End implements ports.Span.
func (s *span) End(e ports.SpanEnd) {
	if s.otel.IsRecording() {
		s.otel.SetAttributes(s.attributes(e)...)
		if e.Err != nil {
			s.otel.SetAttributes(semconv.ErrorType(e.Err))
			s.otel.SetStatus(codes.Error, e.Err.Error())
		}
	}
	s.otel.End()
}

func (s *span) attributes(e ports.SpanEnd) []attribute.KeyValue {
	var all []attribute.KeyValue
	if s.kind == ports.SendSpan && e.Err == nil {
		all = append(all, semconv.MessagingDestinationPartitionID(strconv.Itoa(int(e.Partition))), offsetKey.Int64(int64(e.Offset)))
	}
	if count := kinds[s.kind].count; count != "" {
		all = append(all, count.Int(e.Count))
	}
	if e.Bytes > 0 {
		all = append(all, bytesKey.Int64(e.Bytes))
	}
	if e.Segment != (domain.SegmentID{}) {
		all = append(all, segmentKey.String(e.Segment.String()))
	}
	return all
}

// Sender returns the span in which m was sent, to continue its trace or to link
// with it; it is not valid if m carries none.
//
//	ctx = trace.ContextWithRemoteSpanContext(ctx, otel.Sender(m))
func Sender(m domain.Message) trace.SpanContext {
	return spanContext(ports.TraceOfHeaders(m.Headers))
}

// spanContext is t as a span of another process.
func spanContext(t ports.TraceContext) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: t.TraceID, SpanID: t.SpanID, TraceFlags: trace.TraceFlags(t.Flags), Remote: true,
	})
}
