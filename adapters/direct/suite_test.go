package direct_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestTransport(t *testing.T) { portstest.TestTransport(t, harness()) }

func BenchmarkTransport(b *testing.B) { portstest.BenchmarkTransport(b, harness()) }

func harness() portstest.TransportHarness {
	return portstest.TransportHarness{
		Stores: func(testing.TB) (ports.MetadataStore, ports.SegmentStore) {
			return memory.NewMetadata(memory.MetadataOptions{}), memory.NewSegments()
		},
		Open: func(t testing.TB, meta ports.MetadataStore, segments ports.SegmentStore) (ports.Transport, ports.Fetcher) {
			w, err := direct.NewWriter(meta, segments, ports.NoTelemetry{}, direct.DefaultConfig())
			if err != nil {
				t.Fatal(err)
			}
			return w, direct.NewReader(meta, segments, ports.NoTelemetry{}, direct.DefaultReaderConfig())
		},
	}
}
