package memory_test

import (
	"sync/atomic"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

var seeds atomic.Uint64

func openMetadata(t *testing.T) ports.MetadataStore {
	m := memory.NewMetadata(memory.MetadataOptions{Seed: seeds.Add(1)})
	t.Cleanup(func() { m.Close() })
	return m
}

// checkMetadata holds the inner invariants against what the store holds.
func checkMetadata(t *testing.T, s ports.MetadataStore) {
	t.Helper()
	if err := s.(*memory.Metadata).Snapshot().Check(); err != nil {
		t.Error(err)
	}
}

func TestMetadata_KeepsTheContract(t *testing.T) {
	portstest.TestMetadataStore(t, openMetadata, portstest.InBubble(), portstest.CheckWith(checkMetadata))
}
