package localfs

import (
	"testing"

	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// openNamed opens a store that behaves as on a file system without nameless
// files.
func openNamed(t testing.TB) *Store {
	t.Helper()
	s := openStore(t)
	s.named.Store(true)
	return s
}

func TestStore_KeepsTheContract(t *testing.T) {
	portstest.TestSegmentStore(t, func(t testing.TB) ports.SegmentStore { return openStore(t) })
}

func TestStore_KeepsTheContractWithTemporaryNames(t *testing.T) {
	portstest.TestSegmentStore(t, func(t testing.TB) ports.SegmentStore { return openNamed(t) })
}

func BenchmarkStore(b *testing.B) {
	portstest.BenchmarkSegmentStore(b, func(b testing.TB) ports.SegmentStore { return openStore(b) })
}

func BenchmarkStoreWithTemporaryNames(b *testing.B) {
	portstest.BenchmarkSegmentStore(b, func(b testing.TB) ports.SegmentStore { return openNamed(b) })
}
