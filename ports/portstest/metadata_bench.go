package portstest

import (
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// BenchmarkMetadataStore measures the calls on the path of every record, on a
// store that open returns, one goroutine at a time.
func BenchmarkMetadataStore(b *testing.B, open func(testing.TB) ports.MetadataStore) {
	b.Run("Commit/partitions=1", func(b *testing.B) { benchmarkCommit(b, open(b), 1, 1) })
	b.Run("Commit/partitions=16", func(b *testing.B) { benchmarkCommit(b, open(b), 16, 1) })
	b.Run("Commit/partitions=1000", func(b *testing.B) { benchmarkCommit(b, open(b), 1000, 1) })
	b.Run("Commit/partitions=16/segments=8", func(b *testing.B) { benchmarkCommit(b, open(b), 16, 8) })
	b.Run("Replay", func(b *testing.B) { benchmarkReplay(b, open(b)) })
	b.Run("Reserve/segments=64", func(b *testing.B) { benchmarkReserve(b, open(b)) })
	b.Run("Plan/extents=1", func(b *testing.B) { benchmarkPlan(b, open(b), 1) })
	b.Run("Plan/extents=1000", func(b *testing.B) { benchmarkPlan(b, open(b), 1000) })
}

type benchmarked struct {
	*testing.B
	store   ports.MetadataStore
	session ports.ProducerSession
	refs    []ports.SegmentRef
}

func newBenchmarked(b *testing.B, store ports.MetadataStore) *benchmarked {
	s, err := store.RegisterProducer(b.Context(), "")
	x := &benchmarked{B: b, store: store, session: s}
	x.ok(err)
	return x
}

func (x *benchmarked) ok(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

func (x *benchmarked) topic(partitions int32) domain.Topic {
	t, err := x.store.CreateTopic(x.Context(), domain.TopicSpec{Name: "bench", Partitions: partitions})
	x.ok(err)
	return t
}

// next returns a segment with one batch, numbered n, for each partition of t.
func (x *benchmarked) next(t domain.Topic, n int32) commit.Segment {
	if len(x.refs) == 0 {
		refs, err := x.store.Reserve(x.Context(), 1024)
		x.ok(err)
		x.refs = refs
	}
	batches := make([]commit.Batch, t.Partitions)
	for p := range batches {
		batches[p] = sequenced(x.session, at(t, domain.PartitionID(p)), domain.Sequence(n)*100, 100)
	}
	seg := segmentOf(x.refs[0].ID, batches...)
	x.refs = x.refs[1:]
	return seg
}

func (x *benchmarked) commit(segments []commit.Segment) {
	results, err := x.store.Commit(x.Context(), segments)
	x.ok(err)
	for _, r := range results {
		x.ok(r.Err)
	}
	if o := results[0].Outcomes[0]; o.Status != commit.Accepted {
		x.Fatalf("outcome is %v", o)
	}
}

func benchmarkCommit(b *testing.B, store ports.MetadataStore, partitions int32, segments int) {
	x := newBenchmarked(b, store)
	t := x.topic(partitions)
	b.ReportAllocs()
	group := make([]commit.Segment, segments)
	n := int32(0)
	for b.Loop() {
		b.StopTimer()
		for i := range group {
			group[i] = x.next(t, n)
			n++
		}
		b.StartTimer()
		x.commit(group)
	}
}

func benchmarkReplay(b *testing.B, store ports.MetadataStore) {
	x := newBenchmarked(b, store)
	group := []commit.Segment{x.next(x.topic(16), 0)}
	b.ReportAllocs()
	for b.Loop() {
		x.commit(group)
	}
}

func benchmarkReserve(b *testing.B, store ports.MetadataStore) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := store.Reserve(b.Context(), 64); err != nil {
			b.Fatal(err)
		}
	}
}

// benchmarkPlan reads the middle of 16 partitions of that many extents each,
// a few extents a time: the cost must not follow the length of the log.
func benchmarkPlan(b *testing.B, store ports.MetadataStore, extents int32) {
	x := newBenchmarked(b, store)
	t := x.topic(16)
	for n := int32(0); n < extents; {
		var group []commit.Segment
		for ; n < extents && len(group) < 100; n++ {
			group = append(group, x.next(t, n))
		}
		x.commit(group)
	}
	requests := make([]ports.PlanRequest, t.Partitions)
	for p := range requests {
		requests[p] = ports.PlanRequest{
			PartitionKey: at(t, domain.PartitionID(p)), From: domain.Offset(extents) * 50, MaxBytes: 4 * batchLength,
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		plans, err := store.Plan(b.Context(), requests)
		x.ok(err)
		if len(plans[0].Extents) == 0 {
			b.Fatal("nothing planned")
		}
	}
}
