package producer

import (
	"context"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// spanOverhead is what the span of a sampled record costs in memory until the
// record's fate is known, so that the budget bounds that, too.
const spanOverhead = 1 << 10

// sendSpan begins the span of one record. If it is sampled the record carries its
// trace from then on, in a header of its own, unless it has such a header already or no room
// for one: no record fails because it is traced. The caller's headers are not touched.
func (p *Producer) sendSpan(ctx context.Context, r *domain.Record) ports.Span {
	span := p.tracer.Begin(ctx, ports.SpanStart{Kind: ports.SendSpan, Topic: r.Topic})
	trace := span.Trace()
	if !trace.Sampled() && !mutant.On(mutantTracesAll) || hasTrace(r.Headers) || len(r.Headers) >= domain.MaxHeaders {
		return span
	}
	header := domain.Header{Key: ports.TraceparentHeader, Value: []byte(trace.String())}
	if recordSize(r)+len(header.Key)+len(header.Value) <= domain.MaxRecordBytes {
		if !mutant.On(mutantSharesHeader) {
			r.Headers = slices.Clip(r.Headers)
		}
		r.Headers = append(r.Headers, header)
	}
	return span
}

func hasTrace(headers []domain.Header) bool {
	return slices.ContainsFunc(headers, func(h domain.Header) bool { return h.Key == ports.TraceparentHeader })
}

// endSend ends the span of a record whose fate is known to its sender.
func endSend(span ports.Span, result domain.SendResult, err error) {
	span.End(ports.SpanEnd{Partition: result.Partition, Offset: result.Offset, Err: err})
}

// traceOf is what accept wants to know of a span: nil if nothing follows from it.
func traceOf(span ports.Span) *ports.TraceContext {
	trace := span.Trace()
	if !trace.Sampled() {
		return nil
	}
	return &trace
}

// traced makes a callback that ends the span before it calls the given one, if
// there is one.
func traced(span ports.Span, next Callback) Callback {
	return func(result domain.SendResult, err error) {
		endSend(span, result, err)
		if next != nil {
			next(result, err)
		}
	}
}

// sendTraced is Send with a span around it.
func (p *Producer) sendTraced(ctx context.Context, r domain.Record) (result domain.SendResult, err error) {
	span := p.sendSpan(ctx, &r)
	defer func() { endSend(span, result, err) }()
	pending, err := p.accept(ctx, &r, nil, true, traceOf(span))
	if err != nil {
		return domain.SendResult{Offset: -1}, err
	}
	return pending.Wait(ctx)
}

// sendAsyncTraced is SendAsync and TrySend with a span until the record's fate is
// known.
func (p *Producer) sendAsyncTraced(ctx context.Context, r domain.Record, callback Callback, wait bool) (*Pending, error) {
	span := p.sendSpan(ctx, &r)
	trace := traceOf(span)
	if trace != nil {
		callback = traced(span, callback)
	}
	pending, err := p.accept(ctx, &r, callback, wait, trace)
	if trace == nil || err != nil {
		endSend(span, domain.SendResult{Offset: -1}, err)
	}
	return pending, err
}

// acceptTraced accepts the records of a SendBatch, each with a span. It
// returns what ends the spans that are not ended by then.
func (p *Producer) acceptTraced(ctx context.Context, records []domain.Record, pendings []*Pending, errs []error) (end func(results []domain.SendResult)) {
	spans := make([]ports.Span, len(records))
	for i := range records {
		r := records[i]
		spans[i] = p.sendSpan(ctx, &r)
		pendings[i], errs[i] = p.accept(ctx, &r, nil, true, traceOf(spans[i]))
	}
	return func(results []domain.SendResult) {
		for i, span := range spans {
			endSend(span, results[i], errs[i])
		}
	}
}

// publishSpan begins the span of a request, nil if no sampled record is in it.
func (r *request) publishSpan() ports.Span {
	if len(r.traces) == 0 {
		return nil
	}
	// Not r.p.life: it may carry the span that the producer was built in.
	return r.p.tracer.Begin(context.Background(), ports.SpanStart{Kind: ports.PublishSpan, Topic: r.topic(), For: r.traces})
}

// note keeps the first failure of a batch for the span.
func (r *request) note(err error) { r.failure.CompareAndSwap(nil, &err) }

// endSpan ends the request's span, if it has one, once all is settled. Its error is
// the first of a batch's.
func (r *request) endSpan() {
	if r.span == nil {
		return
	}
	end := ports.SpanEnd{Count: r.records, Bytes: r.sent}
	if err := r.failure.Load(); err != nil {
		end.Err = *err
		if mutant.On(mutantSpanPerBatch) {
			return
		}
	}
	r.span.End(end)
}

// topic is the one topic of the request's batches, "" if they are of several.
func (r *request) topic() string {
	name := r.batches[0].part.topic.name
	for _, o := range r.batches {
		if o.part.topic.name != name {
			return ""
		}
	}
	return name
}
