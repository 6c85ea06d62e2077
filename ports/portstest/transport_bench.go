package portstest

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// BenchmarkTransport measures what h opens: a lone append beside the calls of
// the stores that it cannot do without, appends under load, and fetches.
func BenchmarkTransport(b *testing.B, h TransportHarness) {
	b.Run("LoneAppend", func(b *testing.B) { openBench(b, h).loneAppend(b) })
	b.Run("LoneStores", func(b *testing.B) { openBench(b, h).loneStores(b) })
	b.Run("AppendMany", func(b *testing.B) { openBench(b, h).appendMany(b) })
	b.Run("Fetch", func(b *testing.B) { openBench(b, h).fetch(b) })
}

type transportBench struct {
	transport ports.Transport
	fetcher   ports.Fetcher
	meta      ports.MetadataStore
	store     ports.SegmentStore
	topic     domain.TopicID
	session   ports.ProducerSession
}

const benchPartitions = 16

func openBench(b *testing.B, h TransportHarness) *transportBench {
	meta, store := h.Stores(b)
	x := &transportBench{meta: meta, store: store}
	x.transport, x.fetcher = h.Open(b, meta, store)
	topic, err := meta.CreateTopic(b.Context(), domain.TopicSpec{Name: "bench", Partitions: benchPartitions})
	if err == nil {
		x.topic = topic.ID
		x.session, err = meta.RegisterProducer(b.Context(), "")
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := x.transport.Close(b.Context()); err != nil && b.Context().Err() == nil {
			b.Error(err)
		}
	})
	return x
}

// batches makes one batch of the given size for each of n partitions. They do not
// compress.
func (x *transportBench) batches(b *testing.B, n, size int) []ports.Batch {
	random := rand.NewChaCha8([32]byte{1})
	value := make([]byte, size-batch.HeaderSize-20)
	_, _ = random.Read(value)
	all := make([]ports.Batch, n)
	for p := range all {
		var builder batch.Builder
		builder.Reset(nil)
		builder.Append(firstTimestamp, nil, value, nil)
		bytes, err := builder.Encode(nil, nil, batch.NoProducer)
		if err != nil {
			b.Fatal(err)
		}
		all[p] = ports.Batch{PartitionKey: commit.PartitionKey{Topic: x.topic, Partition: domain.PartitionID(p)}, Bytes: bytes}
	}
	return all
}

func (x *transportBench) loneAppend(b *testing.B) {
	batches := x.batches(b, 1, 256)
	results := make(chan ports.AppendResult, 1)
	settle := func(_ int, r ports.AppendResult) { results <- r }
	var times []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := x.transport.Append(b.Context(), batches, settle); err != nil {
			b.Fatal(err)
		}
		if r := <-results; r.Err != nil {
			b.Fatal(r.Err)
		}
		times = append(times, time.Since(start))
	}
	reportMedian(b, times)
}

// loneStores does with the stores what one append of loneAppend needs.
func (x *transportBench) loneStores(b *testing.B) {
	batches := x.batches(b, 1, 256)
	var refs []ports.SegmentRef
	var times []time.Duration
	for b.Loop() {
		if len(refs) == 0 {
			var err error
			if refs, err = x.meta.Reserve(b.Context(), 1024); err != nil {
				b.Fatal(err)
			}
		}
		start := time.Now()
		if err := x.putAndCommit(b, refs[0], batches[0]); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
		refs = refs[1:]
	}
	reportMedian(b, times)
}

func (x *transportBench) putAndCommit(b *testing.B, ref ports.SegmentRef, bt ports.Batch) error {
	w := segment.NewWriter(nil, x.meta.ClusterID(), ref.ID)
	position, err := w.Add(bt.Topic, bt.Partition, bt.Bytes)
	if err != nil {
		return err
	}
	object, crc, err := w.Close()
	if err != nil {
		return err
	}
	if err := x.store.Put(b.Context(), ref.Key, object); err != nil {
		return err
	}
	_, err = x.meta.Commit(b.Context(), []commit.Segment{{
		ID: ref.ID, Size: int64(len(object)), CRC32C: crc,
		Batches: []commit.Batch{{
			Topic: bt.Topic, Partition: bt.Partition, Producer: commit.NoProducer, Records: 1,
			Position: position, Length: int32(len(bt.Bytes)), MaxTimestamp: firstTimestamp,
		}},
	}})
	return err
}

func reportMedian(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}

// appendMany keeps five batches of 256 KiB in flight on each of 16 partitions.
func (x *transportBench) appendMany(b *testing.B) {
	const size, inFlight = 256 << 10, 5 * benchPartitions
	batches := x.batches(b, benchPartitions, size)
	slots := make(chan error, inFlight)
	for range inFlight {
		slots <- nil
	}
	settle := func(_ int, r ports.AppendResult) { slots <- r.Err }
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		if err := <-slots; err != nil {
			b.Fatal(err)
		}
		p := i % benchPartitions
		if err := x.transport.Append(b.Context(), batches[p:p+1], settle); err != nil {
			b.Fatal(err)
		}
	}
	for range inFlight {
		if err := <-slots; err != nil {
			b.Fatal(err)
		}
	}
}

// fetch reads 8 MiB of 16 partitions over and over.
func (x *transportBench) fetch(b *testing.B) {
	const size = 512 << 10
	done := make(chan error, benchPartitions)
	err := x.transport.Append(b.Context(), x.batches(b, benchPartitions, size), func(_ int, r ports.AppendResult) { done <- r.Err })
	positions := make([]ports.FetchPosition, benchPartitions)
	for p := range positions {
		if err == nil {
			err = <-done
		}
		positions[p].PartitionKey = commit.PartitionKey{Topic: x.topic, Partition: domain.PartitionID(p)}
	}
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size * benchPartitions)
	for b.Loop() {
		got, err := x.fetcher.Fetch(b.Context(), ports.FetchRequest{Partitions: positions, MaxBytes: 2 * size * benchPartitions})
		if err != nil || len(got[0].Batches) < size/2 {
			b.Fatalf("%d bytes, %v", len(got[0].Batches), err)
		}
	}
}
