package portstest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

// TestTelemetry holds an adapter to the contract of ports.Telemetry: it takes
// every event from any number of goroutines, quickly, and never calls back or panics. open
// makes the adapter anew for every part of the suite.
func TestTelemetry(t *testing.T, open func(testing.TB) ports.Telemetry) {
	t.Run("TakesEveryKind", func(t *testing.T) { telemetryTakesEveryKind(t, open(t)) })
	t.Run("TakesEventsFromManyGoroutines", func(t *testing.T) { telemetryIsConcurrent(t, open(t)) })
	t.Run("RecordIsQuick", func(t *testing.T) { telemetryIsQuick(t, open(t)) })
}

func telemetryTakesEveryKind(t *testing.T, tel ports.Telemetry) {
	for kind := range 256 {
		tel.Record(ports.Event{Kind: ports.EventKind(kind)})
		tel.Record(ports.Event{Kind: ports.EventKind(kind), Duration: -1, Bytes: -1, Count: -1, Err: errors.New("cause")})
	}
}

func telemetryIsConcurrent(_ *testing.T, tel ports.Telemetry) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 1000 {
				tel.Record(ports.Event{Kind: ports.EventKind(i % ports.EventKinds), Count: 1})
			}
		})
	}
	wg.Wait()
}

// telemetryIsQuick allows 100 microseconds an event, a hundred times what is
// needed, so that only an adapter that waits for something fails.
func telemetryIsQuick(t *testing.T, tel ports.Telemetry) {
	const events = 10_000
	start := time.Now()
	for range events {
		tel.Record(ports.Event{Kind: ports.SegmentPut, Duration: time.Millisecond, Bytes: 1 << 20, Count: 1})
	}
	if took := time.Since(start); took > events*100*time.Microsecond {
		t.Errorf("%d events took %s", events, took)
	}
}
