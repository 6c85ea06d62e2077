package otel_test

import (
	"context"
	"fmt"
	"log"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/adapters/otel"
)

// Example sends a record within a span and goes on in its trace where the record
// is worked on.
func Example() {
	ctx := context.Background()
	provider := sdktrace.NewTracerProvider() // with an exporter, in a program
	tracer := provider.Tracer("shop")

	store := memory.NewCluster()
	if _, err := streamhouse.NewTopics(store.Metadata()).Create(ctx, streamhouse.TopicSpec{Name: "orders", Partitions: 1}); err != nil {
		log.Fatal(err)
	}
	p, err := streamhouse.NewProducerBuilder().Cluster(store).Telemetry(otel.New(provider)).Build(ctx)
	if err != nil {
		log.Fatal(err)
	}
	checkout, span := tracer.Start(ctx, "checkout")
	if _, err := p.Send(checkout, streamhouse.Record{Topic: "orders", Value: []byte("order data")}); err != nil {
		log.Fatal(err)
	}
	span.End()

	c, err := streamhouse.NewConsumerBuilder().Cluster(store).Telemetry(otel.New(provider)).Assign("orders", streamhouse.FromStart()).Build(ctx)
	if err != nil {
		log.Fatal(err)
	}
	messages, err := c.Poll(ctx, 1)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range messages {
		_, work := tracer.Start(trace.ContextWithRemoteSpanContext(ctx, otel.Sender(m)), "work")
		fmt.Println("one trace:", work.SpanContext().TraceID() == span.SpanContext().TraceID())
		work.End()
	}
	for _, closing := range []func() error{
		func() error { return p.Close(ctx) }, c.Close, store.Close,
		func() error { return provider.Shutdown(ctx) }, // last: what is closed has ended its spans
	} {
		if err := closing(); err != nil {
			log.Fatal(err)
		}
	}
	// Output: one trace: true
}
