package codec_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/codec"
)

var benchSizes = []struct {
	name       string
	recordSize int
}{{"100B", 100}, {"1KiB", 1024}}

func BenchmarkLZ4_Compress(b *testing.B) {
	for _, bench := range benchSizes {
		b.Run(bench.name, func(b *testing.B) {
			src := jsonRecords(b, 1<<20, bench.recordSize)
			c := codec.NewLZ4()
			dst, err := c.Compress(nil, src)
			if err != nil {
				b.Fatal(err)
			}
			ratio := float64(len(dst)) / float64(len(src))
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				if dst, err = c.Compress(dst[:0], src); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(ratio, "ratio")
		})
	}
}

func BenchmarkLZ4_Decompress(b *testing.B) {
	for _, bench := range benchSizes {
		b.Run(bench.name, func(b *testing.B) {
			src := jsonRecords(b, 1<<20, bench.recordSize)
			c := codec.NewLZ4()
			packed, err := c.Compress(nil, src)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err = c.Decompress(nil, packed, limit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
