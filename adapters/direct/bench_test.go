package direct_test

import (
	"context"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// nothing is a cluster that keeps nothing, so that a benchmark measures the
// writer alone.
type nothing struct {
	*memory.Segments
	*memory.Metadata
}

func (nothing) Put(context.Context, string, []byte) error { return nil }

func (nothing) Commit(_ context.Context, segments []commit.Segment) ([]ports.CommitResult, error) {
	results := make([]ports.CommitResult, len(segments))
	for i, s := range segments {
		results[i].Outcomes = make([]commit.Outcome, len(s.Batches))
		for j := range results[i].Outcomes {
			results[i].Outcomes[j] = commit.Outcome{Status: commit.Accepted, Base: 1}
		}
	}
	return results, nil
}

// BenchmarkWriter measures the writer alone: checking, copying, summing and
// settling. An operation is one Append of a batch for each of 16 partitions.
func BenchmarkWriter(b *testing.B) {
	for name, size := range map[string]int{"256KiB": 256 << 10, "1KiB": 1 << 10} {
		b.Run(name, func(b *testing.B) { benchWriter(b, size) })
	}
}

func benchWriter(b *testing.B, size int) {
	cluster := nothing{memory.NewSegments(), memory.NewMetadata(memory.MetadataOptions{})}
	w, err := direct.NewWriter(cluster, cluster, ports.NoTelemetry{}, direct.DefaultConfig())
	if err != nil {
		b.Fatal(err)
	}
	var builder batch.Builder
	builder.Reset(nil)
	builder.Append(1, nil, make([]byte, size), nil)
	encoded, err := builder.Encode(nil, nil, batch.NoProducer)
	if err != nil {
		b.Fatal(err)
	}
	const partitions = 16
	batches := make([]ports.Batch, partitions)
	for p := range batches {
		batches[p] = ports.Batch{PartitionKey: commit.PartitionKey{Partition: domain.PartitionID(p)}, Bytes: encoded}
	}
	done := make(chan struct{}, 4*partitions) // four Appends in flight
	for range cap(done) {
		done <- struct{}{}
	}
	b.SetBytes(int64(partitions * len(encoded)))
	b.ReportAllocs()
	for b.Loop() {
		for range partitions {
			<-done
		}
		err := w.Append(b.Context(), batches, func(_ int, r ports.AppendResult) {
			if r.Err != nil {
				b.Error(r.Err)
			}
			done <- struct{}{}
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
