package grpc_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
)

// exampleAgent serves the cluster on loopback until stop is called. An
// application starts `streamhouse serve` instead.
func exampleAgent(ctx context.Context, cluster streamhouse.Cluster) (address string, stop func()) {
	metadata, segments, agents := cluster.Metadata(), cluster.Segments(), memory.NewAgents()
	writer, err := direct.NewWriter(metadata, segments, ports.NoTelemetry{}, writerConfig())
	if err != nil {
		log.Fatal(err)
	}
	server, err := grpc.NewServer(grpc.Backend{
		Transport: writer, Topics: metadata, Producers: metadata, Agents: agents,
		Fetcher: direct.NewReader(metadata, segments, ports.NoTelemetry{}, direct.DefaultReaderConfig()),
	}, serverConfig())
	if err != nil {
		log.Fatal(err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	address = listener.Addr().String()
	if _, err := agents.Register(ctx, ports.AgentSpec{Group: "default", Address: address}); err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return address, func() {
		if err := server.Drain(ctx); err != nil {
			log.Fatal(err)
		}
		if err := <-served; err != nil {
			log.Fatal(err)
		}
		if err := writer.Close(ctx); err != nil {
			log.Fatal(err)
		}
	}
}

// exampleProgram sends three records and reads them back.
func exampleProgram(ctx context.Context, p *streamhouse.Producer, c *streamhouse.Consumer) {
	for i := range 3 {
		if _, err := p.Send(ctx, streamhouse.Record{Topic: "orders", Key: []byte("user123"), Value: fmt.Appendf(nil, "order %d", i)}); err != nil {
			log.Fatal(err)
		}
	}
	for m, err := range c.ReadToEnd(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d: %s\n", m.Offset, m.Value)
	}
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}
	if err := c.Close(); err != nil {
		log.Fatal(err)
	}
}

func exampleCluster(ctx context.Context) streamhouse.Cluster {
	cluster := memory.NewCluster()
	if _, err := streamhouse.NewTopics(cluster.Metadata()).Create(ctx, streamhouse.TopicSpec{Name: "orders", Partitions: 3}); err != nil {
		log.Fatal(err)
	}
	return cluster
}

// A program that was written for the stores goes through agents by the lines that
// build its producer and its consumer; nothing else changes.
func Example() {
	ctx := context.Background()
	onStores := func(cluster streamhouse.Cluster) {
		p, err := streamhouse.NewProducerBuilder().Cluster(cluster).Build(ctx)
		if err != nil {
			log.Fatal(err)
		}
		c, err := streamhouse.NewConsumerBuilder().Cluster(cluster).Assign("orders", streamhouse.FromStart()).Build(ctx)
		if err != nil {
			log.Fatal(err)
		}
		exampleProgram(ctx, p, c)
	}
	throughAgents := func(address string) {
		client, err := grpc.Dial(ctx, grpc.DefaultClientConfig(address))
		if err != nil {
			log.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		p, err := streamhouse.NewProducerBuilder().Agents(client).Build(ctx)
		if err != nil {
			log.Fatal(err)
		}
		c, err := streamhouse.NewConsumerBuilder().Agents(client).Assign("orders", streamhouse.FromStart()).Build(ctx)
		if err != nil {
			log.Fatal(err)
		}
		exampleProgram(ctx, p, c)
	}

	fmt.Println("on the stores")
	onStores(exampleCluster(ctx))
	fmt.Println("through an agent")
	address, stop := exampleAgent(ctx, exampleCluster(ctx))
	defer stop()
	throughAgents(address)

	// Output:
	// on the stores
	// 0: order 0
	// 1: order 1
	// 2: order 2
	// through an agent
	// 0: order 0
	// 1: order 1
	// 2: order 2
}
