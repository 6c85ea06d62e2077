package grpc_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/grpc"
)

// TestBuilders_TakeAgentsInPlaceOfStores produces and consumes with nothing but
// a client.
func TestBuilders_TakeAgentsInPlaceOfStores(t *testing.T) {
	c := newCluster(t, tcp{})
	c.start("")
	c.start("")
	here, there := c.dial(), c.dial(func(cfg *grpc.ClientConfig) { cfg.Seed = 2 })
	if _, err := streamhouse.NewTopics(here).Create(t.Context(), streamhouse.TopicSpec{Name: "orders", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	p, err := streamhouse.NewProducerBuilder().Agents(here).Name("billing").Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := streamhouse.NewConsumerBuilder().Agents(there).Assign("orders", streamhouse.FromStart()).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		sent, err := p.Send(t.Context(), streamhouse.Record{Topic: "orders", Value: fmt.Append(nil, i)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := consumer.Poll(t.Context(), 1) // the acknowledged record is there for everybody
		if err != nil || len(got) != 1 || string(got[0].Value) != fmt.Sprint(i) || got[0].Offset != sent.Offset {
			t.Fatalf("record %d at %d is read as %+v, %v", i, sent.Offset, got, err)
		}
	}
	younger, err := streamhouse.NewProducerBuilder().Agents(there).Name("billing").Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Send(t.Context(), streamhouse.Record{Topic: "orders"}); !errors.Is(err, streamhouse.ErrFenced) {
		t.Errorf("the older producer of the name: %v", err)
	}
	if _, err := younger.Send(t.Context(), streamhouse.Record{Topic: "nothing"}); !errors.Is(err, streamhouse.ErrTopicNotFound) {
		t.Errorf("no such topic: %v", err)
	}
	for name, err := range map[string]error{"producer": p.Close(t.Context()), "younger": younger.Close(t.Context()), "consumer": consumer.Close()} {
		if err != nil {
			t.Errorf("close %s: %v", name, err)
		}
	}
	if _, err := here.ListTopics(t.Context()); err != nil {
		t.Errorf("a producer has closed the client: %v", err)
	}
}
