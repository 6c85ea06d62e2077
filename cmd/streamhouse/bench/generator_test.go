package bench

import (
	"encoding/json"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/codec"
)

func TestGenerator_MakesJSONOfTheSize(t *testing.T) {
	for _, size := range []int{MinRecordSize, 33, 47, 64, 100, 101, 250, 1000, 1024, 10_000, MaxRecordSize} {
		g := NewGenerator(size, 1)
		for range 3 {
			r := g.Next()
			var fields map[string]string
			if err := json.Unmarshal(r, &fields); err != nil || len(r) != size {
				t.Fatalf("size %d: %d bytes, %v: %.200s", size, len(r), err, r)
			}
		}
	}
}

func TestGenerator_NeverRepeatsARecord(t *testing.T) {
	g := NewGenerator(100, 7)
	seen := map[string]bool{}
	for range 100_000 {
		r := string(g.Next())
		if seen[r] {
			t.Fatalf("%s came twice", r)
		}
		seen[r] = true
	}
}

func TestGenerator_ShrinksAsEventsDo(t *testing.T) {
	for _, size := range []int{100, 1024} {
		chunks, perChunk := payload(size)
		out, err := codec.NewLZ4().Compress(nil, chunks[0])
		if err != nil {
			t.Fatal(err)
		}
		if ratio := float64(perChunk*size) / float64(len(out)); ratio < 1.5 || ratio > 4 {
			t.Errorf("records of %d bytes shrink %.2f times", size, ratio)
		}
	}
}

// What one of many partitions gets shrinks as little as all together do.
func TestGenerator_GivesEachPartitionAllRecords(t *testing.T) {
	const size = 1024
	for _, partitions := range []int{1, 16, 509, 512, 1000, 10_000} {
		g := NewGenerator(size, 1)
		var mine []byte
		for i := range 200 * partitions {
			if r := g.Next(); i%partitions == 0 {
				mine = append(mine, r...)
			}
		}
		out, err := codec.NewLZ4().Compress(nil, mine)
		if err != nil {
			t.Fatal(err)
		}
		if ratio := float64(len(mine)) / float64(len(out)); ratio > 2.2 {
			t.Errorf("a partition of %d gets records that shrink %.2f times", partitions, ratio)
		}
	}
}

func BenchmarkGenerator(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"100B", 100}, {"1KiB", 1024}} {
		b.Run(c.name, func(b *testing.B) {
			g := NewGenerator(c.size, 1)
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			for b.Loop() {
				g.Next()
			}
		})
	}
}
