package janitor_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// world is a log in memory with the real producer, transport and consumer. It
// runs in a synctest bubble, whose clock is the stores' too.
type world struct {
	*testing.T
	meta     *memory.Metadata
	metadata ports.MetadataStore // what the janitor sees
	store    ports.SegmentStore  // what the janitor sees
	segments *memory.Segments    // what is there
	cfg      janitor.Config
	sent     map[string][]string // values by topic and partition
}

func newWorld(t *testing.T) *world {
	w := &world{
		T: t, meta: memory.NewMetadata(memory.MetadataOptions{Seed: 1}), segments: memory.NewSegments(),
		cfg: janitor.DefaultConfig(), sent: make(map[string][]string),
	}
	w.metadata, w.store = w.meta, w.segments
	w.cfg.CompactBytesPerSecond = 0
	return w
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) topic(name string, partitions int32, r domain.Retention) domain.Topic {
	w.Helper()
	t, err := w.meta.CreateTopic(w.Context(), domain.TopicSpec{Name: name, Partitions: partitions, Retention: r})
	w.ok(err)
	return t
}

func where(topic string, p domain.PartitionID) string { return fmt.Sprintf("%s/%d", topic, p) }

// send stores rounds of one record for each partition, every round in a segment
// of its own.
func (w *world) send(t domain.Topic, rounds int) {
	w.Helper()
	p, err := streamhouse.NewProducerBuilder().MetadataStore(w.meta).SegmentStore(w.segments).Build(w.Context())
	w.ok(err)
	for n := range rounds {
		for id := range domain.PartitionID(t.Partitions) {
			at := where(t.Name, id)
			value := fmt.Sprintf("%s round %d of %d, %d before", at, n, rounds, len(w.sent[at]))
			w.sent[at] = append(w.sent[at], value)
			p.SendAsync(w.Context(), domain.Record{Topic: t.Name, Partition: domain.ToPartition(id), Value: []byte(value)}, nil)
		}
		w.ok(p.Flush(w.Context()))
	}
	w.ok(p.Close(w.Context()))
}

func (w *world) janitor() *janitor.Janitor {
	w.Helper()
	w.ok(w.cfg.Validate())
	return janitor.New(w.metadata, w.store, ports.NoTelemetry{}, w.cfg)
}

// once demands a pass of every loop without a failure.
func (w *world) once(sweep bool) janitor.Report {
	w.Helper()
	r, err := w.janitor().Once(w.Context(), sweep)
	w.ok(err)
	w.ok(w.meta.Snapshot().Check())
	return r
}

// reads demands that each partition of the topic gives exactly what was sent to
// it, from its log start on.
func (w *world) reads(t domain.Topic) {
	w.Helper()
	c, err := streamhouse.NewConsumerBuilder().MetadataStore(w.meta).SegmentStore(w.segments).Assign(t.Name, streamhouse.FromStart()).Build(w.Context())
	w.ok(err)
	defer func() { w.ok(c.Close()) }()
	states, err := w.meta.DescribePartitions(w.Context(), t.ID)
	w.ok(err)
	next := make([]domain.Offset, len(states))
	for i, s := range states {
		next[i] = s.LogStart
	}
	for m, err := range c.ReadToEnd(w.Context()) {
		w.ok(err)
		all := w.sent[where(t.Name, m.Partition)]
		if m.Offset != next[m.Partition] || string(m.Value) != all[m.Offset] {
			w.Fatalf("partition %d gave %q at %d, want offset %d", m.Partition, m.Value, m.Offset, next[m.Partition])
		}
		next[m.Partition]++
	}
	for i, s := range states {
		if next[i] != s.HighWatermark || int(s.HighWatermark) != len(w.sent[where(t.Name, domain.PartitionID(i))]) {
			w.Fatalf("partition %d was read to %d, its high watermark is %d", i, next[i], s.HighWatermark)
		}
	}
}

// objects returns how many segments are in the store.
func (w *world) objects() int {
	w.Helper()
	infos, err := w.segments.List(w.Context(), "", 1<<20)
	w.ok(err)
	return len(infos)
}

// put makes an object that is a segment of the cluster.
func (w *world) put(cluster domain.ClusterID, id domain.SegmentID) {
	w.Helper()
	object, _, err := segment.NewWriter(nil, cluster, id).Close()
	w.ok(err)
	w.ok(w.segments.Put(w.Context(), segment.Key(id), object))
}

const day = 24 * time.Hour
