package memory_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func openSegments(testing.TB) ports.SegmentStore { return memory.NewSegments() }

func TestSegments_KeepTheContract(t *testing.T) { portstest.TestSegmentStore(t, openSegments) }

func BenchmarkSegments(b *testing.B) { portstest.BenchmarkSegmentStore(b, openSegments) }
