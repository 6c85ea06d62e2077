package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/app/consumer"
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
	// TailP50MS and TailP99MS are from the acknowledgement of a record until a
	// consumer that waits for it has it; 0 if it had it before.
	TailP50MS float64 `json:"tail_p50_ms"`
	TailP99MS float64 `json:"tail_p99_ms"`
	// ObjectP50MS and MetadataP50MS are of what a send cannot do without: one
	// put of an object of the same size, one commit of one batch.
	ObjectP50MS   float64 `json:"object_commit_p50_ms"`
	MetadataP50MS float64 `json:"metadata_commit_p50_ms"`
	RatioToLimit  float64 `json:"ratio_to_limit"`
	// DirectP50MS is of sends without agents, and RatioToDirect P50MS beside it. 0 if
	// there are no agents.
	DirectP50MS   float64 `json:"direct_p50_ms,omitempty"`
	RatioToDirect float64 `json:"ratio_to_direct,omitempty"`
}

// Path is one way to the log: its producer, and topics that the load's topic can
// be made with.
type Path struct {
	Producer *producer.Producer
	Topics   *topics.Topics
}

// Latency sends records one by one on the path under test, each when the one before is
// durable and c has read it, and in between times the two commits that a send consists of, and a
// send on the direct path if there is one, so that all see the same machine. The load's Records is how
// often.
func Latency(ctx context.Context, tested Path, c *consumer.Consumer, direct *Path, s Scratch, load Load, done *atomic.Int64) (LatencyResult, error) {
	l, err := newLatencies(ctx, tested, c, direct, s, load)
	if err != nil {
		return LatencyResult{}, err
	}
	for i := range load.Records {
		done.Store(i)
		// The first send looks up the topic and registers the producer.
		if err := l.sample(ctx, i > 0 || load.Records == 1); err != nil {
			return LatencyResult{}, fmt.Errorf("after %d records: %w", i, err)
		}
	}
	return l.result(), nil
}

// latencies is a Latency in progress.
type latencies struct {
	tested   Path
	consumer *consumer.Consumer
	direct   *Path
	load     Load
	records  *Generator
	objects  objectPutter
	commits  *committer

	sends, tails, puts, metadata, directSends histogram
}

func newLatencies(ctx context.Context, tested Path, c *consumer.Consumer, direct *Path, s Scratch, load Load) (*latencies, error) {
	if err := freshTopic(ctx, tested.Topics, load); err != nil {
		return nil, err
	}
	if direct != nil {
		if err := freshTopic(ctx, direct.Topics, load); err != nil {
			return nil, err
		}
	}
	if err := c.Assign(ctx, load.Topic(), consumer.Start()); err != nil {
		return nil, err
	}
	commits, err := newCommitter(ctx, s.Metadata)
	if err != nil {
		return nil, err
	}
	g := NewGenerator(load.RecordSize, 3)
	bytes := batch.HeaderSize + batch.RecordBound(nil, g.Next(), nil)
	objects := objectPutter{store: s.Segments, body: make([]byte, segment.Size(int64(bytes), 1))}
	return &latencies{tested: tested, consumer: c, direct: direct, load: load, records: g, objects: objects, commits: commits}, nil
}

// sample makes one sample of everything; it counts only if kept.
func (l *latencies) sample(ctx context.Context, kept bool) error {
	sent, tail, err := l.sendAndRead(ctx)
	if err != nil {
		return err
	}
	put, err := l.objects.put(ctx)
	if err != nil {
		return fmt.Errorf("measure object commits: %w", err)
	}
	committed, err := l.commits.commit(ctx)
	if err != nil {
		return fmt.Errorf("measure metadata commits: %w", err)
	}
	var directSent time.Duration
	if l.direct != nil {
		if directSent, err = l.send(ctx, l.direct.Producer); err != nil {
			return fmt.Errorf("without agents: %w", err)
		}
	}
	if kept {
		l.sends.add(sent)
		l.tails.add(tail)
		l.puts.add(put)
		l.metadata.add(committed)
		l.directSends.add(directSent)
	}
	return nil
}

func (l *latencies) send(ctx context.Context, p *producer.Producer) (time.Duration, error) {
	r := domain.Record{Topic: l.load.Topic(), Value: l.records.Next()}
	began := time.Now()
	_, err := p.Send(ctx, r)
	return time.Since(began), err
}

// sendAndRead sends a record while the consumer waits for it.
func (l *latencies) sendAndRead(ctx context.Context) (sent, tail time.Duration, err error) {
	type arrival struct {
		at  time.Time
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	arrived := make(chan arrival, 1) // the one
	go func() {
		_, err := l.consumer.Poll(ctx, 1)
		arrived <- arrival{time.Now(), err}
	}()
	sent, err = l.send(ctx, l.tested.Producer)
	acknowledged := time.Now()
	if err != nil {
		cancel()
	}
	a := <-arrived
	cancel()
	if err == nil {
		err = a.err
	}
	return sent, max(a.at.Sub(acknowledged), 0), err
}

func (l *latencies) result() LatencyResult {
	r := LatencyResult{
		Samples: l.sends.count.Load(), RecordSize: l.load.RecordSize,
		P50MS: milliseconds(l.sends.quantile(0.5)), P99MS: milliseconds(l.sends.quantile(0.99)),
		TailP50MS: milliseconds(l.tails.quantile(0.5)), TailP99MS: milliseconds(l.tails.quantile(0.99)),
		ObjectP50MS: milliseconds(l.puts.quantile(0.5)), MetadataP50MS: milliseconds(l.metadata.quantile(0.5)),
	}
	r.RatioToLimit = r.P50MS / (r.ObjectP50MS + r.MetadataP50MS)
	if l.direct != nil {
		r.DirectP50MS = milliseconds(l.directSends.quantile(0.5))
		r.RatioToDirect = r.P50MS / r.DirectP50MS
	}
	return r
}
