package grpc_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
)

// discarding is a segment store that keeps nothing, so that a benchmark measures
// the way to it.
type discarding struct{ *memory.Segments }

func (discarding) Put(context.Context, string, []byte) error { return nil }

// BenchmarkProducer sends records of one size to 16 partitions, with a window
// of 64 MiB, directly and through one agent in the same process. An operation is one
// record.
func BenchmarkProducer(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, compressed := range []bool{false, true} {
			name := fmt.Sprintf("%dB/plain", size)
			if compressed {
				name = fmt.Sprintf("%dB/lz4", size)
			}
			b.Run(name+"/direct", func(b *testing.B) { benchProducer(b, size, compressed, false) })
			b.Run(name+"/agent", func(b *testing.B) { benchProducer(b, size, compressed, true) })
		}
	}
}

func benchProducer(b *testing.B, size int, compressed, throughAgent bool) {
	c := newCluster(b, tcp{})
	c.segments = discarding{memory.NewSegments()}
	if _, err := c.metadata.CreateTopic(b.Context(), streamhouse.TopicSpec{Name: "bench", Partitions: 16}); err != nil {
		b.Fatal(err)
	}
	builder := streamhouse.NewProducerBuilder().CompressionEnabled(compressed)
	if throughAgent {
		c.start("")
		builder.Agents(c.dial())
	} else {
		builder.MetadataStore(c.metadata).SegmentStore(c.segments)
	}
	p, err := builder.Build(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	record := streamhouse.Record{Topic: "bench", Value: bytes.Repeat([]byte("streamhouse "), size/12+1)[:size]}
	var failed atomic.Int64
	b.SetBytes(int64(size))
	for b.Loop() {
		p.SendAsync(b.Context(), record, func(_ streamhouse.SendResult, err error) {
			if err != nil {
				failed.Add(1)
			}
		})
	}
	if err := p.Close(context.Background()); err != nil || failed.Load() > 0 {
		b.Fatalf("%d records failed, close: %v", failed.Load(), err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrecords/s")
}

// BenchmarkIdleClient measures what a client that does nothing costs its agent
// and itself, in memory of both together. An operation is one client.
func BenchmarkIdleClient(b *testing.B) {
	c := newCluster(b, tcp{})
	c.start("", func(_ *grpc.Backend, cfg *grpc.ServerConfig) { cfg.MaxConnections = 1 << 20 })
	key := c.topic("orders")
	var clients []*grpc.Client
	b.ReportAllocs()
	for b.Loop() {
		if len(clients) == 200 { // each has a file descriptor or two
			b.StopTimer()
			for _, client := range clients {
				client.Close()
			}
			clients = clients[:0]
			b.StartTimer()
		}
		cfg := grpc.DefaultClientConfig()
		cfg.Discovery = c.agents
		client, err := grpc.Dial(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		clients = append(clients, client)
		if r := appendAll(b, client, []ports.Batch{newBatch(b, key, "x")}...)[0]; r.Err != nil {
			b.Fatal(r.Err)
		}
	}
	for _, client := range clients {
		client.Close()
	}
}
