package bench

import (
	"sync/atomic"

	"github.com/streamhouse/streamhouse/ports"
)

// Counter is a ports.Telemetry that counts what went well.
type Counter struct {
	counts [ports.EventKinds]atomic.Int64
	bytes  [ports.EventKinds]atomic.Int64
}

var _ ports.Telemetry = (*Counter)(nil)

// Record implements ports.Telemetry.
func (c *Counter) Record(e ports.Event) {
	if e.Err != nil || int(e.Kind) >= ports.EventKinds {
		return
	}
	c.counts[e.Kind].Add(1)
	c.bytes[e.Kind].Add(e.Bytes)
}

// Count returns how many events of the kind there were.
func (c *Counter) Count(k ports.EventKind) int64 { return c.counts[k].Load() }

// Bytes returns the sum of their Bytes.
func (c *Counter) Bytes(k ports.EventKind) int64 { return c.bytes[k].Load() }
