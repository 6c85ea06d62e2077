package memory_test

import (
	"errors"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestTelemetry(t *testing.T) {
	portstest.TestTelemetry(t, func(testing.TB) ports.Telemetry { return memory.NewTelemetry() })
}

func TestTelemetry_AddsUpKindByKind(t *testing.T) {
	tel := memory.NewTelemetry()
	tel.Record(ports.Event{Kind: ports.SegmentPut, Duration: time.Second, Bytes: 10, Count: 2})
	tel.Record(ports.Event{Kind: ports.SegmentPut, Duration: time.Second, Bytes: 5, Count: 1, Err: errors.New("disk full")})
	tel.Record(ports.Event{Kind: ports.MetadataCommit, Count: 7})

	want := memory.Totals{Events: 2, Failures: 1, Bytes: 15, Count: 3, Duration: 2 * time.Second}
	if got := tel.Totals(ports.SegmentPut); got != want {
		t.Errorf("Totals(SegmentPut) = %+v, want %+v", got, want)
	}
	if got := tel.Count(ports.MetadataCommit); got != 1 {
		t.Errorf("Count(MetadataCommit) = %d, want 1", got)
	}
	if got := tel.Count(ports.Fetched); got != 0 {
		t.Errorf("Count(Fetched) = %d, want 0", got)
	}
}
