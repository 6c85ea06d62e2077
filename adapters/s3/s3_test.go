package s3

import (
	"testing"

	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

// openReal opens an empty store at the real server.
func openReal(tb testing.TB) *Store {
	tb.Helper()
	return openWith(tb, realConfig(tb))
}

func openWith(tb testing.TB, cfg Config) *Store {
	tb.Helper()
	s, err := Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func TestStore_KeepsTheContract(t *testing.T) {
	portstest.TestSegmentStore(t, func(t testing.TB) ports.SegmentStore { return openReal(t) })
}

func BenchmarkStore(b *testing.B) {
	portstest.BenchmarkSegmentStore(b, func(b testing.TB) ports.SegmentStore { return openReal(b) })
}
