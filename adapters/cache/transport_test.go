package cache_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/cache"
	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

// TestTransport_KeepsItsContractOnACache runs the direct transport, as agents do,
// on stores that keep much, or next to nothing.
func TestTransport_KeepsItsContractOnACache(t *testing.T) {
	for name, cfg := range map[string]cache.Config{
		"much":      cache.DefaultConfig(),
		"no recent": small(func(c *cache.Config) { c.RecentBytes = 0 }),
		"little":    small(func(c *cache.Config) { c.RecentBytes, c.BlockBytes = 2000, 2000 }),
	} {
		t.Run(name, func(t *testing.T) { portstest.TestTransport(t, harness(cfg)) })
	}
}

func BenchmarkTransport(b *testing.B) {
	portstest.BenchmarkTransport(b, harness(cache.DefaultConfig()))
}

func harness(cfg cache.Config) portstest.TransportHarness {
	return portstest.TransportHarness{
		Stores: func(t testing.TB) (ports.MetadataStore, ports.SegmentStore) {
			s, _, _ := open(t, cfg)
			return memory.NewMetadata(memory.MetadataOptions{}), s
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
