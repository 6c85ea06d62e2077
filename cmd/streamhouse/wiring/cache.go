package wiring

import (
	"context"

	"github.com/streamhouse/streamhouse/adapters/cache"
	"github.com/streamhouse/streamhouse/ports"
)

// newCache keeps in memory what consumers of an agent read, and what the agent has
// just stored, which they will.
func (b *builder) newCache(s ports.SegmentStore) ports.SegmentStore {
	cfg := b.cacheConfig()
	if cfg.RecentBytes+cfg.BlockBytes == 0 {
		return s
	}
	c := cache.New(s, b.cfg.Telemetry, cfg)
	b.started("cache", func(context.Context) error { c.Close(); return nil })
	return c
}

// cacheConfig divides the memory. In a folder the system's page cache keeps what is
// read, so there is memory for blocks only where it is asked for.
func (b *builder) cacheConfig() cache.Config {
	cfg, size := cache.DefaultConfig(), b.cfg.Serve.CacheBytes
	switch {
	case size >= 0:
		cfg.RecentBytes = size / 3
		cfg.BlockBytes = size - cfg.RecentBytes
	case schemeOf(b.cfg.Segments) != "s3":
		cfg.BlockBytes = 0
	}
	return cfg
}
