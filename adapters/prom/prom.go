// Package prom turns what StreamHouse tells of itself into Prometheus metrics.
//
// Every kind of ports.Event is a counter by outcome, a counter of what it
// counted, a counter of bytes and, where it takes time, a histogram of seconds. The names
// are in the table of kinds; docs/metrics.md explains them.
package prom

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/ports"
)

// kind is how one kind of event becomes metrics. An empty name leaves the
// metric out.
type kind struct {
	events string // counter by outcome
	help   string
	count  string // counter of Event.Count
	bytes  string // counter of Event.Bytes
	time   string // histogram of Event.Duration
	loop   string // value of the label loop of the janitor's last success
}

var kinds = [ports.EventKinds]kind{
	ports.SegmentPut: {
		events: "segment_puts_total", help: "Uploads of segments that ended",
		count: "segment_put_batches_total", bytes: "segment_put_bytes_total", time: "segment_put_seconds",
	},
	ports.MetadataCommit: {
		events: "metadata_commits_total", help: "Commit transactions that ended",
		count: "metadata_committed_segments_total", time: "metadata_commit_seconds",
	},
	ports.SegmentReserve: {
		events: "segment_reservations_total", help: "Reservations of segment ids",
		count: "segments_reserved_total", time: "segment_reserve_seconds",
	},
	ports.BatchSettled: {
		events: "producer_batches_total", help: "Batches of producers that were acknowledged or failed",
		count: "producer_records_total", bytes: "producer_bytes_total", time: "producer_batch_seconds",
	},
	ports.BatchRetried:    {events: "producer_retries_total", help: "Batches that producers sent again"},
	ports.BatchAbandoned:  {events: "producer_abandoned_batches_total", help: "Batches that producers gave up with their outcome open"},
	ports.Fetched:         {events: "fetches_total", help: "Fetches that ended", count: "fetch_reads_total", bytes: "fetch_bytes_total", time: "fetch_seconds"},
	ports.RetentionPass:   janitorLoop("retention", "extents"),
	ports.CollectionPass:  janitorLoop("collection", "objects"),
	ports.SweepPass:       janitorLoop("sweep", "objects"),
	ports.CompactionPass:  janitorLoop("compaction", "extents"),
	ports.CorruptionFound: {events: "corruptions_total", help: "Findings of stored bytes that are not what was written"},
	ports.RecentHit:       {events: "cache_recent_hits_total", help: "Reads of segments kept since their upload", bytes: "cache_recent_hit_bytes_total"},
	ports.CacheHit:        {events: "cache_hits_total", help: "Reads of blocks that were in memory", bytes: "cache_hit_bytes_total"},
	ports.CacheMiss:       {events: "cache_misses_total", help: "Reads of what was not all in memory", bytes: "cache_miss_bytes_total"},
	ports.CacheRead: {
		events: "cache_reads_total", help: "Reads of the segment store that the cache made",
		count: "cache_read_blocks_total", bytes: "cache_read_bytes_total", time: "cache_read_seconds",
	},
}

func janitorLoop(loop, things string) kind {
	return kind{
		events: "janitor_" + loop + "_passes_total", help: "Passes of the janitor's " + loop,
		count: "janitor_" + loop + "_" + things + "_total", bytes: "janitor_" + loop + "_bytes_total",
		time: "janitor_" + loop + "_seconds", loop: loop,
	}
}

// seconds are the buckets of all histograms: from a commit on a local disk to a
// request that runs into its time-out.
var seconds = prometheus.ExponentialBuckets(0.0005, 2, 17)

// Telemetry is a ports.Telemetry that counts. It allocates nothing for an event.
type Telemetry struct {
	kinds       [ports.EventKinds]metrics
	lastSuccess *prometheus.GaugeVec
}

type metrics struct {
	ok, failed  prometheus.Counter
	count       prometheus.Counter
	bytes       prometheus.Counter
	time        prometheus.Observer
	lastSuccess prometheus.Gauge
}

var _ ports.Telemetry = (*Telemetry)(nil)

const namespace = "streamhouse"

// New registers the metrics with r. It panics if r has metrics of the same
// names, as client_golang does.
func New(r prometheus.Registerer) *Telemetry {
	t := &Telemetry{lastSuccess: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: namespace, Name: "janitor_last_success_timestamp_seconds",
		Help: "When a loop of this process's janitor last went through, in Unix seconds",
	}, []string{"loop"})}
	r.MustRegister(t.lastSuccess)
	for i, k := range kinds {
		if k.events != "" {
			t.kinds[i] = t.register(r, k)
		}
	}
	return t
}

func (t *Telemetry) register(r prometheus.Registerer, k kind) metrics {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: k.events, Help: k.help + ", by outcome",
	}, []string{"outcome"})
	r.MustRegister(events)
	m := metrics{ok: events.WithLabelValues("ok"), failed: events.WithLabelValues("failed")}
	counter := func(name, what string) prometheus.Counter {
		if name == "" {
			return nil
		}
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: fmt.Sprintf("%s: %s of those that went well", k.help, what)})
		r.MustRegister(c)
		return c
	}
	m.count, m.bytes = counter(k.count, "what they were about, counted"), counter(k.bytes, "bytes")
	if k.time != "" {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: k.time, Help: k.help + ": how long they took", Buckets: seconds,
		})
		r.MustRegister(h)
		m.time = h
	}
	if k.loop != "" {
		m.lastSuccess = t.lastSuccess.WithLabelValues(k.loop)
	}
	return m
}

// Record implements ports.Telemetry.
func (t *Telemetry) Record(e ports.Event) {
	if int(e.Kind) >= len(t.kinds) || t.kinds[e.Kind].ok == nil {
		return
	}
	m := &t.kinds[e.Kind]
	if m.time != nil {
		m.time.Observe(e.Duration.Seconds())
	}
	if e.Err != nil {
		m.failed.Inc()
		return
	}
	m.ok.Inc()
	if m.count != nil {
		m.count.Add(float64(max(e.Count, 0)))
	}
	if m.bytes != nil {
		m.bytes.Add(float64(max(e.Bytes, 0)))
	}
	if m.lastSuccess != nil {
		m.lastSuccess.Set(float64(time.Now().UnixMilli()) / 1000)
	}
}
