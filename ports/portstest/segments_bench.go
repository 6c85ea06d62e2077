package portstest

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

// BenchmarkSegmentStore measures a store: one object after the other, several
// at once, and reads.
func BenchmarkSegmentStore(b *testing.B, open func(b testing.TB) ports.SegmentStore) {
	for _, size := range []int{4 << 10, 8 << 20} {
		b.Run(fmt.Sprintf("Put/%dKiB", size>>10), func(b *testing.B) { benchPut(b, open(b), size) })
		b.Run(fmt.Sprintf("PutParallel/%dKiB", size>>10), func(b *testing.B) { benchPutParallel(b, open(b), size) })
		b.Run(fmt.Sprintf("ReadRange/%dKiB", size>>10), func(b *testing.B) { benchRead(b, open(b), size) })
	}
	b.Run("Stat/8192KiB", func(b *testing.B) { benchStat(b, open(b)) })
	b.Run("List/1000", func(b *testing.B) { benchList(b, open(b)) })
}

// benchKey spreads keys as the hash of a segment's id does.
func benchKey(i int) string {
	return fmt.Sprintf("segments/%02x/0190b3a4-0000-7000-8000-%012x", uint8(i*167), i)
}

func benchPut(b *testing.B, s ports.SegmentStore, size int) {
	body := segmentBody(1, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var times []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := s.Put(b.Context(), benchKey(len(times)), body); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-us")
}

func benchPutParallel(b *testing.B, s ports.SegmentStore, size int) {
	body := segmentBody(1, size)
	b.SetBytes(int64(size))
	b.SetParallelism(4)
	var next atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Put(b.Context(), benchKey(int(next.Add(1))), body); err != nil {
				b.Error(err)
			}
		}
	})
}

func benchRead(b *testing.B, s ports.SegmentStore, size int) {
	if err := s.Put(b.Context(), "segments/00/read", segmentBody(1, size)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.ReadRange(b.Context(), "segments/00/read", 0, int64(size)); err != nil {
			b.Fatal(err)
		}
	}
}

func benchStat(b *testing.B, s ports.SegmentStore) {
	if err := s.Put(b.Context(), "segments/00/stat", segmentBody(1, 8<<20)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(8 << 20)
	for b.Loop() {
		if _, err := s.Stat(b.Context(), "segments/00/stat"); err != nil {
			b.Fatal(err)
		}
	}
}

func benchList(b *testing.B, s ports.SegmentStore) {
	for i := range 1000 {
		if err := s.Put(b.Context(), benchKey(i), nil); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if infos, err := s.List(b.Context(), "", 1000); err != nil || len(infos) != 1000 {
			b.Fatal(len(infos), err)
		}
	}
}
