package local_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/local"
)

// The library in ten lines; the README shows them.
func Example() {
	parent, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(parent) }()
	if err := tour(context.Background(), filepath.Join(parent, "data")); err != nil {
		log.Fatal(err)
	}
	// Output:
	// partition 2, offset 0
	// user123: order data
}

func tour(ctx context.Context, dir string) error {
	store, err := local.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = streamhouse.NewTopics(store.Metadata()).Create(ctx, streamhouse.TopicSpec{Name: "orders", Partitions: 3})
	if err != nil {
		return err
	}
	p, err := streamhouse.NewProducerBuilder().Cluster(store).Build(ctx)
	if err != nil {
		return err
	}
	defer p.Close(ctx)
	res, err := p.Send(ctx, streamhouse.Record{Topic: "orders", Key: []byte("user123"), Value: []byte("order data")})
	if err != nil {
		return err
	}
	fmt.Printf("partition %d, offset %d\n", res.Partition, res.Offset)
	c, err := streamhouse.NewConsumerBuilder().Cluster(store).Assign("orders", streamhouse.FromStart()).Build(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for m, err := range c.ReadToEnd(ctx) {
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", m.Key, m.Value)
	}
	return nil
}
