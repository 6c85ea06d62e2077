package grpc_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestTransport(t *testing.T) {
	for name, n := range networks() {
		t.Run(name, func(t *testing.T) { portstest.TestTransport(t, harness(n())) })
	}
}

func BenchmarkTransport(b *testing.B) { portstest.BenchmarkTransport(b, harness(tcp{})) }

// harness opens a transport and a fetcher through one agent.
func harness(n network) portstest.TransportHarness {
	return portstest.TransportHarness{
		Stores: func(testing.TB) (ports.MetadataStore, ports.SegmentStore) {
			return memory.NewMetadata(memory.MetadataOptions{}), memory.NewSegments()
		},
		Open: func(t testing.TB, meta ports.MetadataStore, segments ports.SegmentStore) (ports.Transport, ports.Fetcher) {
			c := newCluster(t, n)
			c.metadata, c.segments = meta, segments
			c.start("")
			client := c.dial()
			return client.NewTransport(), client
		},
	}
}
