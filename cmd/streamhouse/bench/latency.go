package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/segment"
)

// LatencyResult is what one bench latency gives.
type LatencyResult struct {
	Samples    int64   `json:"samples"`
	RecordSize int     `json:"record_size"`
	P50MS      float64 `json:"p50_ms"`
	P99MS      float64 `json:"p99_ms"`
	// ObjectP50MS and MetadataP50MS are of what a send cannot do without: one
	// put of an object of the same size, one commit of one batch.
	ObjectP50MS   float64 `json:"object_commit_p50_ms"`
	MetadataP50MS float64 `json:"metadata_commit_p50_ms"`
	RatioToLimit  float64 `json:"ratio_to_limit"`
}

// Latency sends records one by one, each when the one before is durable, and
// in between times the two commits that a send consists of, so that all three see
// the same machine. The load's Records is how often.
func Latency(ctx context.Context, p *producer.Producer, t *topics.Topics, s Scratch, load Load, done *atomic.Int64) (LatencyResult, error) {
	if err := freshTopic(ctx, t, load); err != nil {
		return LatencyResult{}, err
	}
	commits, err := newCommitter(ctx, s.Metadata)
	if err != nil {
		return LatencyResult{}, err
	}
	g := NewGenerator(load.RecordSize, 3)
	bytes := batch.HeaderSize + batch.RecordBound(nil, g.Next(), nil)
	objects := objectPutter{store: s.Segments, body: make([]byte, segment.Size(int64(bytes), 1))}
	var sends, puts, metadata histogram
	for i := range load.Records {
		done.Store(i)
		began := time.Now()
		if _, err := p.Send(ctx, domain.Record{Topic: load.Topic(), Value: g.Next()}); err != nil {
			return LatencyResult{}, fmt.Errorf("after %d records: %w", i, err)
		}
		took := time.Since(began)
		put, err := objects.put(ctx)
		if err != nil {
			return LatencyResult{}, fmt.Errorf("measure object commits: %w", err)
		}
		committed, err := commits.commit(ctx)
		if err != nil {
			return LatencyResult{}, fmt.Errorf("measure metadata commits: %w", err)
		}
		if i == 0 && load.Records > 1 {
			continue // the first send looks up the topic and registers the producer
		}
		sends.add(took)
		puts.add(put)
		metadata.add(committed)
	}
	r := LatencyResult{
		Samples: sends.count.Load(), RecordSize: load.RecordSize,
		P50MS: milliseconds(sends.quantile(0.5)), P99MS: milliseconds(sends.quantile(0.99)),
		ObjectP50MS: milliseconds(puts.quantile(0.5)), MetadataP50MS: milliseconds(metadata.quantile(0.5)),
	}
	r.RatioToLimit = r.P50MS / (r.ObjectP50MS + r.MetadataP50MS)
	return r, nil
}
