package verify_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/verify"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// BenchmarkRun verifies 64 segments of 256 partitions each, and reports the
// bytes of their objects and how many extents there are.
func BenchmarkRun(b *testing.B) {
	for _, c := range []struct {
		name    string
		records int // of each batch
		o       verify.Options
	}{
		{"large", 100, verify.Options{}},
		{"large, records decoded", 100, verify.Options{Records: true}},
		{"small", 1, verify.Options{}},
		{"small, eight walks", 1, verify.Options{MemoryExtents: 2048}},
	} {
		b.Run(c.name, func(b *testing.B) {
			meta, store := memory.NewMetadata(memory.MetadataOptions{Seed: 7}), memory.NewSegments()
			topic, err := meta.CreateTopic(b.Context(), domain.TopicSpec{Name: "orders", Partitions: 256})
			if err != nil {
				b.Fatal(err)
			}
			parts := make([]part, topic.Partitions)
			for i := range parts {
				parts[i] = of(topic, domain.PartitionID(i), c.records)
			}
			refs, err := meta.Reserve(b.Context(), 64)
			if err != nil {
				b.Fatal(err)
			}
			for _, ref := range refs {
				object, s, err := build(meta.ClusterID(), ref.ID, nil, parts...)
				if err == nil {
					err = store.Put(b.Context(), ref.Key, object)
				}
				if err == nil {
					_, err = meta.Commit(b.Context(), []commit.Segment{s})
				}
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(64 * int64(len(object)))
			}
			extents := 0
			for b.Loop() {
				r, err := verify.Run(b.Context(), meta, store, c.o)
				if err != nil || !r.OK() || r.Checked != 64 {
					b.Fatalf("%+v, %v", r, err)
				}
				extents += r.Extents
			}
			b.ReportMetric(float64(extents)/b.Elapsed().Seconds(), "extents/s")
		})
	}
}
