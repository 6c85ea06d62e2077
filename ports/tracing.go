package ports

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

// Tracer is a Telemetry that makes spans as well. A part that is given one asks
// for it with TracerOf; without one it makes no spans and pays nothing for them.
//
// Parts make spans only around what belongs to a sampled SendSpan, so who samples nothing
// sees nothing.
type Tracer interface {
	Telemetry
	// Begin starts a span. It is a child of the span that ctx carries in the
	// tracer's own way; if there is none, of the first of s.For; if there is none either, it is
	// the first of a trace. It is linked with the others of s.For, which is not kept. Begin
	// must be quick and must not block.
	Begin(ctx context.Context, s SpanStart) Span
}

// Span is something that takes time and was begun.
type Span interface {
	// Trace is what the span's children and those linked to it need to know of
	// it.
	Trace() TraceContext
	// End ends the span. It is called once, never with a mutex held.
	End(e SpanEnd)
}

// SpanKind says what a span is about.
type SpanKind uint8

const (
	// SendSpan: one record, from Send until its fate is known.
	SendSpan SpanKind = iota + 1
	// PublishSpan: one request of a producer to its transport, from the hand-over
	// until its last batch is settled. A batch that is sent again is in another one.
	PublishSpan
	// PutSpan: the upload of one segment, all attempts together.
	PutSpan
	// CommitSpan: one attempt to commit segments.
	CommitSpan
	// PollSpan: one poll that returned records of traced senders.
	PollSpan

	spanKinds
)

// SpanKinds is the number of kinds plus one, for arrays indexed by kind.
const SpanKinds = int(spanKinds)

// MaxSpanLinks is the most spans that one span is begun for. Of more than that
// the first ones are linked.
const MaxSpanLinks = 32

// SpanStart is what is known of a span when it begins.
type SpanStart struct {
	Kind SpanKind
	// Topic is the one topic that it is about, if it is one.
	Topic string
	// For are the spans that it works for, at most MaxSpanLinks.
	For []TraceContext
	// At is when it began. Zero: now.
	At time.Time
}

// SpanEnd is what is known of a span when it ends. What does not apply to its
// kind is left 0.
type SpanEnd struct {
	// Partition and Offset are where the record of a SendSpan without Err is.
	Partition domain.PartitionID
	Offset    domain.Offset
	// Count is of records in a PublishSpan or a PollSpan, of batches in a
	// PutSpan, of segments in a CommitSpan.
	Count int
	// Bytes is the encoded size of batches, or that of a segment.
	Bytes int64
	// Segment is the one segment that it was about, if it was one.
	Segment domain.SegmentID
	// Err is nil if it went well.
	Err error
}

// TracerOf returns t as a Tracer, nil if it makes no spans.
func TracerOf(t Telemetry) Tracer {
	tracer, _ := t.(Tracer)
	return tracer
}

// TraceparentHeader is the record header that carries the trace of the sender.
// Its name and value are those of W3C Trace Context.
const TraceparentHeader = "traceparent"

// traceparentSize is that of version 00: "00-", trace id, "-", span id, "-", flags.
const traceparentSize = 55

// TraceContext names a span to others: version 00 of W3C Trace Context. The zero
// value names none.
type TraceContext struct {
	TraceID [16]byte
	SpanID  [8]byte
	// Flags: bit 0 says that the span is sampled, that is kept.
	Flags byte
}

// Valid reports whether t names a span.
func (t TraceContext) Valid() bool {
	return t.TraceID != [16]byte{} && t.SpanID != [8]byte{}
}

// Sampled reports whether t names a span that is kept.
func (t TraceContext) Sampled() bool { return t.Flags&1 != 0 && t.Valid() }

// AppendText appends t as a traceparent, nothing if it is not valid. The error
// is always nil.
func (t TraceContext) AppendText(dst []byte) ([]byte, error) {
	if !t.Valid() {
		return dst, nil
	}
	dst = hex.AppendEncode(append(dst, "00-"...), t.TraceID[:])
	dst = hex.AppendEncode(append(dst, '-'), t.SpanID[:])
	return hex.AppendEncode(append(dst, '-'), []byte{t.Flags}), nil
}

// String is t as a traceparent, "" if it is not valid.
func (t TraceContext) String() string {
	b, _ := t.AppendText(nil)
	return string(b)
}

// ParseTraceparent reads a traceparent. It returns the zero value if b is none:
// what comes with a request or a record is no reason to refuse it.
func ParseTraceparent(b []byte) TraceContext {
	var t TraceContext
	var version, flags [1]byte
	if len(b) < traceparentSize || b[2] != '-' || b[35] != '-' || b[52] != '-' ||
		!lowerHex(version[:], b[:2]) || version[0] == 0xff ||
		len(b) > traceparentSize && (version[0] == 0 || b[traceparentSize] != '-') ||
		!lowerHex(t.TraceID[:], b[3:35]) || !lowerHex(t.SpanID[:], b[36:52]) || !lowerHex(flags[:], b[53:55]) {
		return TraceContext{}
	}
	if t.Flags = flags[0] & 1; !t.Valid() {
		return TraceContext{}
	}
	return t
}

// lowerHex decodes b, which may have no capital letters, into dst.
func lowerHex(dst, b []byte) bool {
	for _, c := range b {
		if 'A' <= c && c <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(dst, b)
	return err == nil
}

// TraceOfHeaders returns the trace that a record carries, the zero value if it
// carries none.
func TraceOfHeaders(headers []domain.Header) TraceContext {
	for i := range headers {
		if headers[i].Key == TraceparentHeader {
			return ParseTraceparent(headers[i].Value)
		}
	}
	return TraceContext{}
}

// traceKey is the context key of ContextWithTrace.
type traceKey struct{}

// ContextWithTrace returns a ctx that says to the port called with it for whose
// span it works.
func ContextWithTrace(ctx context.Context, t TraceContext) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceOf returns what ContextWithTrace put into ctx, the zero value if nothing.
func TraceOf(ctx context.Context) TraceContext {
	t, _ := ctx.Value(traceKey{}).(TraceContext)
	return t
}

// AddTrace appends t to traces if it is sampled and not there yet, as long as
// they are fewer than MaxSpanLinks.
func AddTrace(traces []TraceContext, t TraceContext) []TraceContext {
	if !t.Sampled() || len(traces) >= MaxSpanLinks {
		return traces
	}
	for i := range traces {
		if traces[i] == t {
			return traces
		}
	}
	return append(traces, t)
}
