package consumer

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// traceFrom returns when a poll begins, if polls are traced.
func (c *Consumer) traceFrom() time.Time {
	if c.tracer == nil {
		return time.Time{}
	}
	return time.Now()
}

// trace makes the span of a poll that began at began, if it has brought messages
// of sampled senders. It is told afterwards, since most polls bring none.
func (c *Consumer) trace(ctx context.Context, began time.Time, messages []domain.Message) {
	if c.tracer == nil {
		return
	}
	var senders []ports.TraceContext
	for i := range messages {
		senders = ports.AddTrace(senders, ports.TraceOfHeaders(messages[i].Headers))
	}
	if len(senders) == 0 {
		return
	}
	span := c.tracer.Begin(ctx, ports.SpanStart{Kind: ports.PollSpan, Topic: topicOf(messages), For: senders, At: began})
	span.End(ports.SpanEnd{Count: len(messages)})
}

// topicOf is the one topic of the messages, "" if they are of several.
func topicOf(messages []domain.Message) string {
	name := messages[0].Topic
	for i := range messages {
		if messages[i].Topic != name {
			return ""
		}
	}
	return name
}
