package direct

import (
	"context"

	"github.com/streamhouse/streamhouse/ports"
)

// span begins a span for the given traces, nil if there are none.
func (w *Writer) span(kind ports.SpanKind, traces []ports.TraceContext) ports.Span {
	if len(traces) == 0 {
		return nil
	}
	return w.tracer.Begin(context.Background(), ports.SpanStart{Kind: kind, For: traces})
}

// commitSpan begins the span of a commit of the group, nil if nothing sampled is
// in it.
func (w *Writer) commitSpan(group []*draft) ports.Span {
	if w.tracer == nil {
		return nil
	}
	var traces []ports.TraceContext
	for _, s := range group {
		for _, t := range s.traces {
			traces = ports.AddTrace(traces, t)
		}
	}
	return w.span(ports.CommitSpan, traces)
}

func commitEnd(group []*draft, err error) ports.SpanEnd {
	end := ports.SpanEnd{Count: len(group), Err: err}
	if len(group) == 1 {
		end.Segment = group[0].ref.ID
	}
	return end
}
