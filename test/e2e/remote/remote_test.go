// Package remote_test holds the log on Postgres and S3 to what it promises of
// requests: how many there are, and what an outage does to those who send.
package remote_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/postgres"
	"github.com/streamhouse/streamhouse/adapters/s3"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

var (
	outage = flag.Duration("outage", 5*time.Second, "how long Postgres is away")
	idle   = flag.Duration("idle", 20*time.Second, "how long nothing happens")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Main(m)) }

// log is a log on both servers, behind proxies that count.
type log struct {
	testing.TB
	server   *servers.PostgresServer
	toServer *faultproxy.Postgres
	toBucket *faultproxy.HTTP
	metadata *postgres.Store
	segments *s3.Store

	mu         sync.Mutex
	statements map[string]int // statements that were run, by their beginnings
}

func newLog(t testing.TB) *log {
	t.Helper()
	gateway, bucket := servers.Bucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", gateway.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", gateway.SecretKey)
	l := &log{TB: t, server: servers.SharedPostgres(t), statements: make(map[string]int)}
	l.toServer = faultproxy.NewPostgres(t, l.server.Addr())
	l.toBucket = faultproxy.NewHTTP(t, gateway.Endpoint, 1)
	cfg := s3.DefaultConfig(bucket)
	cfg.Endpoint, cfg.Region, cfg.PathStyle = l.toBucket.URL(), gateway.Region, true
	var err error
	if l.segments, err = s3.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	l.closeAtEnd(l.segments)
	url := servers.URLVia(l.toServer.Addr(), "postgres", "", l.server.Database(t))
	if l.metadata, err = postgres.Open(t.Context(), url, postgres.Options{}); err != nil {
		t.Fatal(err)
	}
	l.closeAtEnd(l.metadata)
	l.toServer.Intercept(func(m faultproxy.Message) faultproxy.Action {
		if m.Runs() && m.SQL != "-- ping" { // whether the connection that listens is alive
			l.mu.Lock()
			defer l.mu.Unlock()
			l.statements[strings.Join(strings.Fields(m.SQL)[:min(4, len(strings.Fields(m.SQL)))], " ")]++
		}
		return faultproxy.Pass
	})
	return l
}

func (l *log) closeAtEnd(c io.Closer) {
	l.Cleanup(func() {
		if err := c.Close(); err != nil {
			l.Error(err)
		}
	})
}

// Metadata and Segments make it a streamhouse.Cluster.
func (l *log) Metadata() ports.MetadataStore { return l.metadata }
func (l *log) Segments() ports.SegmentStore  { return l.segments }

// asked returns what Postgres was asked since the last call, and how often.
func (l *log) asked() (statements map[string]int, total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	statements, l.statements = l.statements, make(map[string]int)
	for _, n := range statements {
		total += n
	}
	return statements, total
}

func (l *log) requests() int {
	n := 0
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "POST"} {
		n += l.toBucket.Requests(method)
	}
	return n
}

func (l *log) topic(name string, partitions int32) domain.Topic {
	l.Helper()
	t, err := l.metadata.CreateTopic(l.Context(), domain.TopicSpec{Name: name, Partitions: partitions})
	if err != nil {
		l.Fatal(err)
	}
	return t
}

func (l *log) producer(change func(*streamhouse.ProducerBuilder)) *streamhouse.Producer {
	l.Helper()
	b := streamhouse.NewProducerBuilder().Cluster(l)
	change(b)
	p, err := b.Build(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = p.Close(context.Background()) }) // tests that care close it themselves
	return p
}

// counter counts the events that cost money.
type counter struct{ puts, commits atomic.Int64 }

func (c *counter) Record(e ports.Event) {
	switch {
	case e.Err != nil:
	case e.Kind == ports.SegmentPut:
		c.puts.Add(1)
	case e.Kind == ports.MetadataCommit:
		c.commits.Add(1)
	}
}

// TestProduce_CostsOneRoundTripASegmentWhateverThePartitions sends bursts to 1
// and to 1,000 partitions: each segment is one PUT and at most one statement, and its
// extents are no more than the partitions in it.
func TestProduce_CostsOneRoundTripASegmentWhateverThePartitions(t *testing.T) {
	l := newLog(t)
	const bursts = 40
	puts := make(map[int32]int64)
	for _, partitions := range []int32{1, 1000} {
		topic := l.topic(fmt.Sprintf("of-%d", partitions), partitions)
		var c counter
		p := l.producer(func(b *streamhouse.ProducerBuilder) { b.Telemetry(&c) })
		if _, err := p.Send(t.Context(), streamhouse.Record{Topic: topic.Name}); err != nil { // looks up the topic, registers
			t.Fatal(err)
		}
		l.asked()
		before := l.toBucket.Requests("PUT")
		c.puts.Store(0)
		for range bursts {
			for id := range partitions {
				p.SendAsync(t.Context(), streamhouse.Record{Topic: topic.Name, Partition: domain.ToPartition(domain.PartitionID(id)), Value: []byte("value")}, nil)
			}
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		statements, total := l.asked()
		segments := c.puts.Load()
		puts[partitions] = segments
		if got := l.toBucket.Requests("PUT") - before; int64(got) != segments {
			t.Errorf("%d partitions: %d PUT requests for %d segments", partitions, got, segments)
		}
		// Beside the commits: reservations in bulk, a look at the topic each 5 s, a
		// notification each, which is not waited for.
		waited := total - statements["SELECT pg_notify($1, '')"]
		if int64(waited) > segments+segments/4+8 {
			t.Errorf("%d partitions: %d statements for %d segments: %v", partitions, waited, segments, statements)
		}
		extents := l.extents(topic.ID)
		for id, n := range extents {
			if n > int(partitions) {
				t.Errorf("segment %s has %d extents of %d partitions", id, n, partitions)
			}
		}
		t.Logf("%d partitions: %d segments, statements %v", partitions, segments, statements)
	}
	if puts[1000] > 3*puts[1] {
		t.Errorf("%d bursts are %d segments with one partition and %d with 1000", bursts, puts[1], puts[1000])
	}
}

// extents counts the topic's extents by segment.
func (l *log) extents(topic domain.TopicID) map[domain.SegmentID]int {
	l.Helper()
	counts := make(map[domain.SegmentID]int)
	for after := ports.FirstExtent; ; {
		page, err := l.metadata.Extents(l.Context(), after, ports.MaxUpkeep)
		if err != nil {
			l.Fatal(err)
		}
		for _, e := range page {
			if e.Topic == topic {
				counts[e.Segment]++
			}
		}
		if len(page) < ports.MaxUpkeep {
			return counts
		}
		after = ports.PlaceOf(page[len(page)-1].Extent)
	}
}

// TestIdle_AsksNextToNothing has a producer, a following consumer and a janitor
// with nothing to do: at most one query a minute, and no request to the bucket.
func TestIdle_AsksNextToNothing(t *testing.T) {
	l := newLog(t)
	topic := l.topic("orders", 3)
	p := l.producer(func(*streamhouse.ProducerBuilder) {})
	if _, err := p.Send(t.Context(), streamhouse.Record{Topic: topic.Name, Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	c, err := streamhouse.NewConsumerBuilder().Cluster(l).Assign(topic.Name, streamhouse.FromStart(), 0, 1, 2).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // always nil
	if m, err := c.Poll(t.Context(), 10); err != nil || len(m) != 1 {
		t.Fatal(m, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() { janitor.New(l.metadata, l.segments, ports.NoTelemetry{}, janitor.DefaultConfig()).Run(ctx) })
	working.Go(func() {
		if _, err := c.Poll(ctx, 10); !errors.Is(err, context.Canceled) {
			t.Errorf("an idle poll: %v", err)
		}
	})
	pass(3 * time.Second) // until it has come to rest
	l.asked()
	requests := l.requests()
	pass(*idle)
	statements, total := l.asked()
	if most := 1 + int(*idle/time.Minute); total > most {
		t.Errorf("%d statements in %s, want at most %d: %v", total, *idle, most, statements)
	}
	if n := l.requests() - requests; n != 0 {
		t.Errorf("%d requests to the bucket in %s of nothing", n, *idle)
	}
	cancel()
	working.Wait()
}

// pass lets time pass: what is measured is what happens in it.
func pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// TestOutage_OfPostgresBlocksProducersAndLosesNothing takes Postgres away while
// producers send. They fill their buffers and wait; when it is back all is delivered once,
// and the connections that were tried are few.
func TestOutage_OfPostgresBlocksProducersAndLosesNothing(t *testing.T) {
	l := newLog(t)
	topic := l.topic("orders", 4)
	const buffer = 1 << 20
	// A compressed batch counts with its compressed size, so these stay as they are.
	p := l.producer(func(b *streamhouse.ProducerBuilder) { b.BufferBytes(buffer).CompressionEnabled(false) })
	var acked, failed atomic.Int64
	settle := func(_ streamhouse.SendResult, err error) {
		if err != nil {
			failed.Add(1)
			return
		}
		acked.Add(1)
	}
	send := func(ctx context.Context, n int) (sent int) {
		for range n {
			r := streamhouse.Record{Topic: topic.Name, Value: make([]byte, 1000)}
			if p.SendAsync(ctx, r, settle); ctx.Err() != nil {
				return sent
			}
			sent++
		}
		return sent
	}
	sent := send(t.Context(), 100)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	accepted := l.toServer.Counts().Accepted
	l.toServer.Down()
	ctx, cancel := context.WithTimeout(t.Context(), *outage)
	defer cancel()
	refused := failed.Load()
	during := send(ctx, 1<<30)
	sent += during
	if during > 2*buffer/1000 {
		t.Errorf("%d records of 1000 bytes were taken into a buffer of %d", during, buffer)
	}
	tried := l.toServer.Counts().Accepted - accepted
	if err := l.toServer.Up(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	flushing, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := p.Flush(flushing); err != nil {
		t.Fatal(err)
	}
	back := l.toServer.Counts().Accepted - accepted - tried
	t.Logf("%d records waited for %s; delivered %s after the end; %d connections tried meanwhile, %d after", during, *outage, time.Since(began).Round(time.Millisecond), tried, back)
	// The one send that was cut off by the end of ctx was never taken.
	if lost := failed.Load() - refused; lost > 1 {
		t.Errorf("%d records failed", lost)
	}
	if back > 20 {
		t.Errorf("%d connections were opened when Postgres was back", back)
	}
	d, err := streamhouse.NewTopics(l.metadata).Describe(t.Context(), topic.Name)
	if err != nil {
		t.Fatal(err)
	}
	stored := 0
	for _, s := range d.States {
		stored += int(s.HighWatermark)
	}
	if stored != sent || int(acked.Load()) != sent {
		t.Errorf("%d records were taken, %d acknowledged, %d are stored", sent, acked.Load(), stored)
	}
}
