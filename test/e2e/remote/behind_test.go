package remote_test

import (
	"flag"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var behind = flag.Int("behind", 300, "how many flushes a reader is behind, of one batch a partition each")

// BenchmarkConsume_FarBehind reads what many small flushes have left, after
// compaction, beside raw reads of the same objects; and plans from the beginning and from
// near the end. Run it with -behind 60000 for a million batches.
func BenchmarkConsume_FarBehind(b *testing.B) {
	const partitions = 16
	l := newLog(b)
	topic := l.topic("orders", partitions)
	p := l.producer(func(*streamhouse.ProducerBuilder) {})
	value := make([]byte, 4096)
	for i := range value {
		value[i] = byte(i * i >> 3)
	}
	for n := range *behind {
		for id := range domain.PartitionID(partitions) {
			value[0], value[1] = byte(n), byte(n>>8)
			p.SendAsync(b.Context(), streamhouse.Record{Topic: topic.Name, Partition: domain.ToPartition(id), Value: value}, nil)
		}
		if err := p.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	cfg := janitor.DefaultConfig()
	cfg.CompactAfter, cfg.CompactBytesPerSecond = 0, 0
	report, err := janitor.New(l.metadata, l.segments, ports.NoTelemetry{}, cfg).Once(b.Context(), false)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		requests := l.requests()
		read, took := l.readAll(b, topic)
		if want := int64(*behind * partitions); read.records != want {
			b.Fatalf("%d records are read, want %d", read.records, want)
		}
		gets := l.requests() - requests
		raw, rawTook := l.readRaw(b)
		consumed, limit := float64(read.bytes)/took.Seconds(), float64(raw)/rawTook.Seconds()
		b.ReportMetric(consumed/1e6, "MB/s")
		b.ReportMetric(limit/1e6, "raw-MB/s")
		b.ReportMetric(consumed/limit, "ratio")
		b.ReportMetric(float64(gets), "GETs")
		b.ReportMetric(float64(report.Compaction.Replaced), "compacted-extents")
		b.ReportMetric(float64(l.planTime(b, topic, 0).Microseconds()), "plan-at-start-µs")
		b.ReportMetric(float64(l.planTime(b, topic, domain.Offset(*behind-1)).Microseconds()), "plan-at-end-µs")
	}
}

type readResult struct{ records, bytes int64 }

func (l *log) readAll(tb testing.TB, topic domain.Topic) (r readResult, took time.Duration) {
	tb.Helper()
	c, err := streamhouse.NewConsumerBuilder().Cluster(l).Assign(topic.Name, streamhouse.FromStart()).Build(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = c.Close() }() // always nil
	began := time.Now()
	for m, err := range c.ReadToEnd(tb.Context()) {
		if err != nil {
			tb.Fatal(err)
		}
		r.records++
		r.bytes += int64(len(m.Value))
	}
	return r, time.Since(began)
}

// readRaw reads every live object whole, one after the other.
func (l *log) readRaw(tb testing.TB) (bytes int64, took time.Duration) {
	tb.Helper()
	var live []ports.SegmentRow
	for after := (domain.SegmentID{}); ; {
		page, err := l.metadata.Segments(tb.Context(), after, ports.MaxUpkeep)
		if err != nil {
			tb.Fatal(err)
		}
		for _, row := range page {
			if row.State == ports.SegmentCommitted {
				live = append(live, row)
			}
		}
		if len(page) < ports.MaxUpkeep {
			break
		}
		after = page[len(page)-1].ID
	}
	began := time.Now()
	for _, row := range live {
		object, err := l.segments.ReadRange(tb.Context(), row.Key, 0, row.Size)
		if err != nil {
			tb.Fatal(err)
		}
		bytes += int64(len(object))
	}
	return bytes, time.Since(began)
}

// planTime is how long the quickest of some plans takes.
func (l *log) planTime(tb testing.TB, topic domain.Topic, from domain.Offset) time.Duration {
	tb.Helper()
	best := time.Hour
	for range 20 {
		began := time.Now()
		_, err := l.metadata.Plan(tb.Context(), []ports.PlanRequest{{
			PartitionKey: commit.PartitionKey{Topic: topic.ID}, From: from, MaxBytes: 8 << 20,
		}})
		if err != nil {
			tb.Fatal(err)
		}
		best = min(best, time.Since(began))
	}
	return best
}
