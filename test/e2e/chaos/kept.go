package chaos

import (
	"io"
	"math/rand/v2"

	"github.com/streamhouse/streamhouse/adapters/cache"
	"github.com/streamhouse/streamhouse/ports"
)

// Keep puts a memory in front of the segment store, as agents have one, in every
// other process: too small for what is read in a run.
func (p *Reach) Keep() *Reach {
	if rand.IntN(2) == 0 {
		return p
	}
	cfg := cache.DefaultConfig()
	cfg.RecentBytes, cfg.BlockBytes, cfg.BlockSize, cfg.ReadBytes = 1<<20, 1<<20, 8<<10, 32<<10
	p.Segments = kept{cache.New(p.Segments, ports.NoTelemetry{}, cfg), p.Segments}
	return p
}

// kept closes the store below, too.
type kept struct {
	*cache.Store
	below ports.SegmentStore
}

func (k kept) Close() error {
	k.Store.Close()
	if c, ok := k.below.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
