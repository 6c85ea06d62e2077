package cache_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/cache"
)

const segmentBytes = 8 << 20

// BenchmarkReadRange measures a read of 64 KiB of a recent segment, of blocks in
// memory, and without a memory. An operation is one read.
func BenchmarkReadRange(b *testing.B) {
	const length = 64 << 10
	for name, change := range map[string]func(*cache.Config){
		"recent": func(*cache.Config) {},
		"hit":    func(c *cache.Config) { c.RecentBytes = 0 },
		"none":   func(c *cache.Config) { c.RecentBytes, c.BlockBytes = 0, 0 },
	} {
		b.Run(name, func(b *testing.B) {
			cfg := cache.DefaultConfig()
			change(&cfg)
			s, _, _ := open(b, cfg)
			if err := s.Put(b.Context(), oldKey, body(segmentBytes)); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(length)
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				if _, err := s.ReadRange(b.Context(), oldKey, i*length%segmentBytes, length); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkColdScan has readers read old segments, each its own partition of 64,
// at the same time; the memory is too small for the next time round. An operation is the read of
// one segment by all readers.
func BenchmarkColdScan(b *testing.B) {
	const partitions, segments = 64, 24
	for _, readers := range []int{1, 16, partitions} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			cfg := cache.DefaultConfig()
			cfg.BlockBytes = segmentBytes + 1<<20
			s, below, _ := open(b, cfg)
			for i := range segments {
				stored(b, below, fmt.Sprintf("segments/00/%d", i), segmentBytes)
			}
			const length = segmentBytes / partitions
			b.SetBytes(int64(readers * length))
			b.ReportAllocs()
			n := 0
			for ; b.Loop(); n++ {
				key := fmt.Sprintf("segments/00/%d", n%segments)
				var wg sync.WaitGroup
				for r := range int64(readers) {
					wg.Go(func() {
						if _, err := s.ReadRange(b.Context(), key, r*length, length); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
			}
			b.ReportMetric(float64(below.reads.Load())/float64(n), "reads/op")
			b.ReportMetric(float64(below.bytes.Load())/float64(n)/(1<<20), "MiB-read/op")
		})
	}
}

// BenchmarkPut measures what it costs to keep a segment. An operation is the put
// of 8 MiB into a store below that does nothing.
func BenchmarkPut(b *testing.B) {
	for name, recent := range map[string]int64{"kept": 64 << 20, "not kept": 0} {
		b.Run(name, func(b *testing.B) {
			cfg := cache.DefaultConfig()
			cfg.RecentBytes = recent
			s, below, _ := open(b, cfg)
			below.put = nothing
			o := body(segmentBytes)
			b.SetBytes(segmentBytes)
			for i := 0; b.Loop(); i++ {
				if err := s.Put(b.Context(), fmt.Sprintf("segments/00/%d", i), o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
