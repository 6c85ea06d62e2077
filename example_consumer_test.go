package streamhouse_test

import (
	"context"
	"fmt"
	"log"

	"github.com/streamhouse/streamhouse"
)

// sendInOrder sends the values to partition 0 of orders.
func sendInOrder(ctx context.Context, cluster streamhouse.Cluster, values ...string) {
	p := newProducer(ctx, cluster)
	defer func() { _ = p.Close(ctx) }()
	for _, v := range values {
		if _, err := p.Send(ctx, streamhouse.Record{Topic: "orders", Value: []byte(v), Partition: streamhouse.ToPartition(0)}); err != nil {
			log.Fatal(err)
		}
	}
}

// newConsumer builds a consumer that reads orders from the start.
func newConsumer(ctx context.Context, cluster streamhouse.Cluster) *streamhouse.Consumer {
	c, err := streamhouse.NewConsumerBuilder().Cluster(cluster).Assign("orders", streamhouse.FromStart()).Build(ctx)
	if err != nil {
		log.Fatal(err)
	}
	return c
}

// poll polls once and prints what comes.
func poll(ctx context.Context, c *streamhouse.Consumer) {
	messages, err := c.Poll(ctx, 10)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range messages {
		fmt.Println(m.Offset, string(m.Value))
	}
}

func ExampleConsumerBuilder() {
	ctx := context.Background()
	cluster := newCluster(ctx)
	c, err := streamhouse.NewConsumerBuilder().
		Cluster(cluster).
		Assign("orders", streamhouse.FromStart(), 0, 1).
		Assign("orders", streamhouse.FromEnd(), 2).
		FetchBytes(1 << 20).
		Build(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	position, err := c.Position("orders", 2)
	fmt.Println(position, err)
	// Output: 0 <nil>
}

func ExampleConsumer_Assign() {
	ctx := context.Background()
	cluster := newCluster(ctx)
	sendInOrder(ctx, cluster, "a")
	c := newConsumer(ctx, cluster)
	defer func() { _ = c.Close() }()
	if err := c.Unassign("orders"); err != nil { // all partitions
		log.Fatal(err)
	}
	if err := c.Assign(ctx, "orders", streamhouse.FromStart(), 0); err != nil {
		log.Fatal(err)
	}
	poll(ctx, c)
	// Output: 0 a
}

func ExampleConsumer_ReadToEnd() {
	ctx := context.Background()
	cluster := newCluster(ctx)
	sendInOrder(ctx, cluster, "a", "b")
	c := newConsumer(ctx, cluster)
	defer func() { _ = c.Close() }()
	for m, err := range c.ReadToEnd(ctx) { // up to the end that there is now
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Offset, string(m.Value))
	}
	// Output:
	// 0 a
	// 1 b
}

func ExampleConsumer_Seek() {
	ctx := context.Background()
	cluster := newCluster(ctx)
	sendInOrder(ctx, cluster, "a", "b", "c")
	c := newConsumer(ctx, cluster)
	defer func() { _ = c.Close() }()
	if err := c.Seek(ctx, "orders", 0, streamhouse.FromOffset(2)); err != nil {
		log.Fatal(err)
	}
	poll(ctx, c)
	// Output: 2 c
}

func ExampleConsumer_Pause() {
	ctx := context.Background()
	cluster := newCluster(ctx)
	sendInOrder(ctx, cluster, "a")
	c := newConsumer(ctx, cluster)
	defer func() { _ = c.Close() }()
	if err := c.Pause("orders", 0); err != nil {
		log.Fatal(err)
	}
	for m, err := range c.ReadToEnd(ctx) { // what is paused is left out
		fmt.Println("paused:", m.Offset, err)
	}
	if err := c.Resume("orders", 0); err != nil {
		log.Fatal(err)
	}
	poll(ctx, c)
	// Output: 0 a
}

func ExampleConsumer_Lag() {
	ctx := context.Background()
	cluster := newCluster(ctx)
	sendInOrder(ctx, cluster, "a", "b", "c")
	c := newConsumer(ctx, cluster)
	defer func() { _ = c.Close() }()
	if err := c.Seek(ctx, "orders", 0, streamhouse.FromOffset(1)); err != nil {
		log.Fatal(err)
	}
	lags, err := c.Lag(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range lags {
		fmt.Printf("%s %d: at %d of %d, lag %d\n", l.Topic, l.Partition, l.Position, l.HighWatermark, l.Lag)
	}
	// Output:
	// orders 0: at 1 of 3, lag 2
	// orders 1: at 0 of 0, lag 0
	// orders 2: at 0 of 0, lag 0
}
