package streamhouse_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/memory"
)

// newCluster returns an empty cluster with the topic orders of 3 partitions.
// An application opens a folder instead: local.Open(ctx, "data").
func newCluster(ctx context.Context) streamhouse.Cluster {
	cluster := memory.NewCluster()
	_, err := streamhouse.NewTopics(cluster.Metadata()).Create(ctx, streamhouse.TopicSpec{Name: "orders", Partitions: 3})
	if err != nil {
		log.Fatal(err)
	}
	return cluster
}

// newProducer builds a producer with the defaults.
func newProducer(ctx context.Context, cluster streamhouse.Cluster) *streamhouse.Producer {
	p, err := streamhouse.NewProducerBuilder().Cluster(cluster).Build(ctx)
	if err != nil {
		log.Fatal(err)
	}
	return p
}

// The seed's simple_producer: 18 records by key, by partition and in a row, all
// read back with their offsets.
func Example_simpleProducer() {
	ctx := context.Background()
	cluster := newCluster(ctx)
	p := newProducer(ctx, cluster)
	defer func() { _ = p.Close(ctx) }()

	for i := range 10 {
		key := fmt.Sprintf("user%d", i)
		if _, err := p.Send(ctx, streamhouse.Record{Topic: "orders", Key: []byte(key), Value: fmt.Appendf(nil, "order %d", i)}); err != nil {
			log.Fatal(err)
		}
	}
	for i := range 3 {
		partition := streamhouse.ToPartition(streamhouse.PartitionID(i))
		if _, err := p.Send(ctx, streamhouse.Record{Topic: "orders", Value: fmt.Appendf(nil, "to partition %d", i), Partition: partition}); err != nil {
			log.Fatal(err)
		}
	}
	for i := range 5 {
		if _, err := p.Send(ctx, streamhouse.Record{Topic: "orders", Value: fmt.Appendf(nil, "row %d", i), Partition: streamhouse.ToPartition(0)}); err != nil {
			log.Fatal(err)
		}
	}

	c, err := streamhouse.NewConsumerBuilder().Cluster(cluster).Assign("orders", streamhouse.FromStart()).Build(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var lines []string
	for m, err := range c.ReadToEnd(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%d/%02d %s", m.Partition, m.Offset, m.Value))
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
	// Output:
	// 0/00 order 1
	// 0/01 order 3
	// 0/02 order 4
	// 0/03 order 6
	// 0/04 order 7
	// 0/05 order 8
	// 0/06 to partition 0
	// 0/07 row 0
	// 0/08 row 1
	// 0/09 row 2
	// 0/10 row 3
	// 0/11 row 4
	// 1/00 order 0
	// 1/01 order 5
	// 1/02 to partition 1
	// 2/00 order 2
	// 2/01 order 9
	// 2/02 to partition 2
}

func ExampleProducer_Send() {
	ctx := context.Background()
	p := newProducer(ctx, newCluster(ctx))
	defer func() { _ = p.Close(ctx) }()

	res, err := p.Send(ctx, streamhouse.Record{Topic: "orders", Key: []byte("user123"), Value: []byte("order data")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Partition, res.Offset)
	// Output: 2 0
}

func ExampleProducer_SendAsync() {
	ctx := context.Background()
	p := newProducer(ctx, newCluster(ctx))

	// With a Pending to wait for:
	pending := p.SendAsync(ctx, streamhouse.Record{Topic: "orders", Value: []byte("one"), Partition: streamhouse.ToPartition(1)}, nil)
	res, err := pending.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("waited:", res.Offset)

	// With a callback:
	p.SendAsync(ctx, streamhouse.Record{Topic: "orders", Value: []byte("two"), Partition: streamhouse.ToPartition(1)},
		func(res streamhouse.SendResult, err error) { fmt.Println("called:", res.Offset, err) })
	if err := p.Close(ctx); err != nil { // flushes
		log.Fatal(err)
	}
	// Output:
	// waited: 0
	// called: 1 <nil>
}

func ExampleProducer_TrySend() {
	ctx := context.Background()
	p := newProducer(ctx, newCluster(ctx))
	defer func() { _ = p.Close(ctx) }()

	// TrySend does not even wait for a topic to be looked up: try again.
	for {
		pending, err := p.TrySend(streamhouse.Record{Topic: "orders", Partition: streamhouse.ToPartition(0)}, nil)
		if errors.Is(err, streamhouse.ErrWouldBlock) || errors.Is(err, streamhouse.ErrBufferFull) {
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		res, err := pending.Wait(ctx)
		fmt.Println(res.Offset, err)
		return
	}
	// Output: 0 <nil>
}

func ExampleProducer_SendBatch() {
	ctx := context.Background()
	p := newProducer(ctx, newCluster(ctx))
	defer func() { _ = p.Close(ctx) }()

	results, err := p.SendBatch(ctx, []streamhouse.Record{
		{Topic: "orders", Key: []byte("user123"), Value: []byte("good")},
		{Topic: "orders", Value: []byte("bad"), Partition: streamhouse.ToPartition(7)},
		{Topic: "orders", Key: []byte("user123"), Value: []byte("good too")},
	})
	var failed *streamhouse.BatchError
	if errors.As(err, &failed) {
		fmt.Println("the second:", failed.Errors[1])
	}
	fmt.Println("the others:", results[0].Offset, results[2].Offset)
	// Output:
	// the second: partition 7 of topic "orders" does not exist: it has 3, numbered from 0
	// the others: 0 1
}

func ExampleProducer_Flush() {
	ctx := context.Background()
	p := newProducer(ctx, newCluster(ctx))
	defer func() { _ = p.Close(ctx) }()

	durable := 0
	for range 1000 {
		p.SendAsync(ctx, streamhouse.Record{Topic: "orders", Partition: streamhouse.ToPartition(0)}, func(_ streamhouse.SendResult, err error) {
			if err == nil {
				durable++ // one partition's callbacks run one after the other
			}
		})
	}
	if err := p.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(durable)
	// Output: 1000
}

func ExampleProducerBuilder() {
	ctx := context.Background()
	cluster := newCluster(ctx)
	// A durable name: building it again, anywhere, fences this producer.
	p, err := streamhouse.NewProducerBuilder().
		Cluster(cluster).
		Name("billing").
		BatchTimeout(20 * time.Millisecond).
		BufferBytes(16 << 20).
		Partitioner(streamhouse.NewMurmur2Partitioner()).
		Build(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = p.Close(ctx) }()

	// Every fault of a configuration is reported at once.
	_, err = streamhouse.NewProducerBuilder().Cluster(cluster).BatchSize(0).RequestTimeout(-time.Second).Build(ctx)
	fmt.Println(err)
	// Output:
	// BatchSize is 0: want 1 record or more
	// RequestTimeout is -1s: want more than zero
}

func ExampleFateOf() {
	ctx := context.Background()
	p := newProducer(ctx, newCluster(ctx))
	defer func() { _ = p.Close(ctx) }()

	_, err := p.Send(ctx, streamhouse.Record{Topic: "missing"})
	fate := streamhouse.FateOf(err)
	fmt.Println("stored:", fate.Stored)
	fmt.Println("retry helps:", fate.Retry)
	// Output:
	// stored: no
	// retry helps: false
}

func ExampleConsumer_Poll() {
	ctx := context.Background()
	cluster := newCluster(ctx)
	p := newProducer(ctx, cluster)
	defer func() { _ = p.Close(ctx) }()
	if _, err := p.Send(ctx, streamhouse.Record{Topic: "orders", Key: []byte("user123"), Value: []byte("paid")}); err != nil {
		log.Fatal(err)
	}

	c, err := streamhouse.NewConsumerBuilder().Cluster(cluster).Assign("orders", streamhouse.FromStart(), 2).Build(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	messages, err := c.Poll(ctx, 10)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range messages {
		fmt.Printf("%s: %s\n", m.Key, m.Value)
	}
	// Output: user123: paid
}

func ExampleConsumer_Records() {
	ctx := context.Background()
	cluster := newCluster(ctx)
	p := newProducer(ctx, cluster)
	defer func() { _ = p.Close(ctx) }()
	for i := range 3 {
		if _, err := p.Send(ctx, streamhouse.Record{Topic: "orders", Value: fmt.Append(nil, i), Partition: streamhouse.ToPartition(0)}); err != nil {
			log.Fatal(err)
		}
	}

	c, err := streamhouse.NewConsumerBuilder().Cluster(cluster).Assign("orders", streamhouse.FromOffset(1), 0).Build(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for m, err := range c.Records(ctx) { // follows the log for ever
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Offset, string(m.Value))
		if m.Offset == 2 {
			break
		}
	}
	// Output:
	// 1 1
	// 2 2
}

func ExampleTopics() {
	ctx := context.Background()
	topics := streamhouse.NewTopics(memory.NewCluster().Metadata())
	_, err := topics.Create(ctx, streamhouse.TopicSpec{
		Name: "clicks", Partitions: 2, Retention: streamhouse.Retention{Age: 7 * 24 * time.Hour},
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := topics.Widen(ctx, "clicks", 4); err != nil {
		log.Fatal(err)
	}
	if _, err := topics.SetRetention(ctx, "clicks", streamhouse.Retention{Age: 24 * time.Hour}); err != nil {
		log.Fatal(err)
	}
	description, err := topics.Describe(ctx, "clicks")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(description.Name, description.Partitions, description.Retention.Age)
	if err := topics.Delete(ctx, "clicks"); err != nil {
		log.Fatal(err)
	}
	left, err := topics.List(ctx)
	fmt.Println(len(left), err)
	// Output:
	// clicks 4 24h0m0s
	// 0 <nil>
}
