package memory

import (
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

// Telemetry adds up what it is told, kind by kind, so that a test or a small
// program can ask how often something happened. Record neither locks nor
// allocates.
type Telemetry struct {
	kinds [ports.EventKinds]totals
}

var _ ports.Telemetry = (*Telemetry)(nil)

type totals struct {
	events, failures, bytes, count, nanoseconds atomic.Int64
}

// Totals sums the events of one kind since the Telemetry was made. Failures are
// the events with an error; they are among Events too.
type Totals struct {
	Events   int64
	Failures int64
	Bytes    int64
	Count    int64
	Duration time.Duration
}

// NewTelemetry returns a Telemetry that has been told nothing.
func NewTelemetry() *Telemetry { return new(Telemetry) }

// Record adds e to the totals of its kind. A kind that it does not know, such
// as one of a newer version, is added up under the kind 0.
func (t *Telemetry) Record(e ports.Event) {
	k := t.of(e.Kind)
	k.events.Add(1)
	k.bytes.Add(e.Bytes)
	k.count.Add(int64(e.Count))
	k.nanoseconds.Add(int64(e.Duration))
	if e.Err != nil {
		k.failures.Add(1)
	}
}

// Totals returns the sums for one kind. While events arrive, its fields may be
// some events apart.
func (t *Telemetry) Totals(kind ports.EventKind) Totals {
	k := t.of(kind)
	return Totals{
		Events:   k.events.Load(),
		Failures: k.failures.Load(),
		Bytes:    k.bytes.Load(),
		Count:    k.count.Load(),
		Duration: time.Duration(k.nanoseconds.Load()),
	}
}

// Count returns how many events of the kind there were.
func (t *Telemetry) Count(kind ports.EventKind) int64 { return t.of(kind).events.Load() }

func (t *Telemetry) of(kind ports.EventKind) *totals {
	if int(kind) >= len(t.kinds) {
		kind = 0
	}
	return &t.kinds[kind]
}
