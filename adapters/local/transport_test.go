package local_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/local"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

// TestTransport runs the direct transport on the stores of one folder.
func TestTransport(t *testing.T) { portstest.TestTransport(t, onFolder()) }

func BenchmarkTransport(b *testing.B) { portstest.BenchmarkTransport(b, onFolder()) }

func onFolder() portstest.TransportHarness {
	return portstest.TransportHarness{
		Stores: func(t testing.TB) (ports.MetadataStore, ports.SegmentStore) {
			store, err := local.Open(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = store.Close() })
			return store.Metadata(), store.Segments()
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
