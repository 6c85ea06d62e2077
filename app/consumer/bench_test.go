package consumer_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

const benchRecords = 1_000_000

// filled is a world whose topic "bench" holds benchRecords JSON-like records
// of 100 bytes in LZ4 batches of 10,000.
func filled(b *testing.B, partitions int32, headers int) *world {
	b.Helper()
	w := newWorld(b)
	topic := w.topic("bench", partitions)
	var list []domain.Header
	for i := range headers {
		list = append(list, domain.Header{Key: fmt.Sprint("header-", i), Value: []byte("value")})
	}
	const size = 10_000
	for i := range benchRecords / size {
		var bld batch.Builder
		bld.Reset(nil)
		for j := range size {
			n := uint64(i*size + j)
			v := fmt.Appendf(nil, `{"id":%d,"user":"u%06d","amount":%d.%02d,"note":"%016x","t":%d,"ok":true,`, n, n*2654435761%1000000, n%9973, n%100, n*0x9e3779b97f4a7c15, 1700000000000+n)
			for len(v) < 99 {
				v = append(v, 'a'+byte((n*7+uint64(len(v))*n)%26))
			}
			bld.Append(1700000000000+int64(n)/100, nil, append(v, '}'), list)
		}
		encoded, err := bld.Encode(nil, codec.NewLZ4(), batch.NoProducer)
		must(b, err)
		l := w.log(key(topic, domain.PartitionID(i%int(partitions))))
		batch.SetBaseOffset(encoded, l.end)
		l.batches, l.end = append(l.batches, encoded), l.end+size
	}
	return w
}

// ready answers each fetch at once and copies nothing, so that the benchmark
// measures the consumer and not its fetcher.
type ready struct {
	*world
	answers map[commit.PartitionKey][]byte
}

func instant(w *world) ready {
	r := ready{w, make(map[commit.PartitionKey][]byte)}
	for k, l := range w.logs {
		for _, b := range l.batches {
			r.answers[k] = append(r.answers[k], b...)
		}
	}
	return r
}

func (r ready) Fetch(ctx context.Context, req ports.FetchRequest) ([]ports.FetchedPartition, error) {
	answers := make([]ports.FetchedPartition, len(req.Partitions))
	found := false
	for i, p := range req.Partitions {
		l := r.logs[p.PartitionKey]
		answers[i].HighWatermark = l.end
		if req.MaxBytes > 0 && p.Offset < l.end {
			answers[i].Batches, found = r.answers[p.PartitionKey], true
		}
	}
	if !found && req.MaxBytes > 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return answers, nil
}

// BenchmarkPoll reads a million records of 100 bytes per operation.
func BenchmarkPoll(b *testing.B) {
	for _, bench := range []struct {
		name       string
		partitions int32
		headers    int
	}{{"16partitions", 16, 0}, {"1partition", 1, 0}, {"100partitions", 100, 0}, {"3headers", 16, 3}} {
		b.Run(bench.name, func(b *testing.B) {
			r := instant(filled(b, bench.partitions, bench.headers))
			measure(b, r, r, pollAll)
		})
	}
}

// BenchmarkReadToEnd reads a million records of 100 bytes per operation, one
// by one.
func BenchmarkReadToEnd(b *testing.B) {
	r := instant(filled(b, 16, 0))
	measure(b, r, r, func(b *testing.B, c *consumer.Consumer) int {
		n := 0
		for _, err := range c.ReadToEnd(context.Background()) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		return n
	})
}

func pollAll(b *testing.B, c *consumer.Consumer) int {
	b.Helper()
	n := 0
	for n < benchRecords {
		messages, err := c.Poll(context.Background(), 0)
		must(b, err)
		n += len(messages)
	}
	return n
}

func measure(b *testing.B, topics ports.Topics, fetcher ports.Fetcher, run func(*testing.B, *consumer.Consumer) int) {
	b.Helper()
	b.ReportAllocs()
	began := cpu(b)
	n := 0
	for b.Loop() {
		c, err := consumer.New(consumer.Ports{Topics: topics, Fetcher: fetcher}, settings())
		must(b, err)
		must(b, c.Assign(context.Background(), "bench", consumer.Start()))
		if got := run(b, c); got != benchRecords {
			b.Fatalf("read %d", got)
		}
		n++
		must(b, c.Close())
	}
	b.ReportMetric((cpu(b)-began).Seconds()/float64(n), "cpu-s/million")
}

// cpu is the CPU time this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
