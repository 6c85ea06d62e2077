package janitor_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
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
	tel      ports.Telemetry
	cfg      janitor.Config
	sent     map[string][]string // values by topic and partition
}

func newWorld(t *testing.T) *world {
	w := &world{
		T: t, meta: memory.NewMetadata(memory.MetadataOptions{Seed: 1}), segments: memory.NewSegments(),
		tel: ports.NoTelemetry{}, cfg: janitor.DefaultConfig(), sent: make(map[string][]string),
	}
	w.metadata, w.store = w.meta, w.segments
	w.cfg.CompactBytesPerSecond, w.cfg.Seed = 0, 1
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
	return janitor.New(w.metadata, w.store, w.tel, w.cfg)
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

// put makes an object that is a segment of the cluster, without a row.
func (w *world) put(cluster domain.ClusterID, id domain.SegmentID) {
	w.Helper()
	object, _, err := segment.NewWriter(nil, cluster, id).Close()
	w.ok(err)
	w.ok(w.segments.Put(w.Context(), segment.Key(id), object))
}

// fill stores rounds of one record for each of the partitions from first on,
// every round in a segment of its own, as send does but without a producer.
func (w *world) fill(t domain.Topic, first, partitions, rounds int) {
	w.Helper()
	for range rounds {
		refs, err := w.meta.Reserve(w.Context(), 1)
		w.ok(err)
		sw := segment.NewWriter(nil, w.meta.ClusterID(), refs[0].ID)
		var batches []commit.Batch
		for id := first; id < first+partitions; id++ {
			at := where(t.Name, domain.PartitionID(id))
			value := fmt.Sprintf("%s, %d before", at, len(w.sent[at]))
			w.sent[at] = append(w.sent[at], value)
			var builder batch.Builder
			builder.Append(time.Now().UnixMilli(), nil, []byte(value), nil)
			b, err := builder.Encode(nil, nil, batch.NoProducer)
			w.ok(err)
			position, err := sw.Add(t.ID, domain.PartitionID(id), b)
			w.ok(err)
			batches = append(batches, commit.Batch{
				Topic: t.ID, Partition: domain.PartitionID(id), Producer: commit.NoProducer, Records: 1,
				Position: position, Length: int32(len(b)), MaxTimestamp: time.Now().UnixMilli(),
			})
		}
		object, crc, err := sw.Close()
		w.ok(err)
		w.ok(w.segments.Put(w.Context(), refs[0].Key, object))
		results, err := w.meta.Commit(w.Context(), []commit.Segment{{ID: refs[0].ID, Size: int64(len(object)), CRC32C: crc, Batches: batches}})
		w.ok(err)
		w.ok(results[0].Err)
	}
}

// orphans returns the keys of objects that no row speaks for, and garbage how
// many rows are neither committed nor pending nor done with.
func (w *world) orphans() (orphans []string, garbage int) {
	w.Helper()
	infos, err := w.segments.List(w.Context(), "", 1<<20)
	w.ok(err)
	rows := map[string]ports.SegmentState{}
	for _, r := range w.meta.Snapshot().Segments {
		rows[r.Key] = r.State
		if r.State == ports.SegmentDeleting {
			garbage++
		}
	}
	for _, o := range infos {
		if s, ok := rows[o.Key]; !ok || s == ports.SegmentDeleted {
			orphans = append(orphans, o.Key)
		}
	}
	return orphans, garbage
}

// clean demands that every object is referred to, and that nothing waits to be
// removed.
func (w *world) clean() {
	w.Helper()
	orphans, garbage := w.orphans()
	if len(orphans) > 0 || garbage > 0 {
		w.Errorf("%d objects without a row are left, and %d segments of garbage", len(orphans), garbage)
	}
	for _, r := range w.meta.Snapshot().Segments {
		_, err := w.segments.Stat(w.Context(), r.Key)
		if r.State == ports.SegmentCommitted && err != nil {
			w.Errorf("segment %s is referred to: %v", r.ID, err)
		}
	}
}

// extents counts the extents of all partitions.
func (w *world) extents() int { return len(w.meta.Snapshot().Extents) }

// logStart returns where partition 0 of the topic begins.
func (w *world) logStart(t domain.Topic) domain.Offset {
	w.Helper()
	states, err := w.meta.DescribePartitions(w.Context(), t.ID)
	w.ok(err)
	return states[0].LogStart
}

// events are what telemetry is told.
type events struct {
	mu  sync.Mutex
	all []ports.Event
}

func (e *events) Record(event ports.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func (e *events) of(kind ports.EventKind) (found []ports.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.all {
		if event.Kind == kind {
			found = append(found, event)
		}
	}
	return found
}

// calls counts what the janitor asks of the stores.
type calls struct {
	mu sync.Mutex
	of map[string]int
}

// n returns how many calls there were of a port or a method.
func (c *calls) n(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[what]
}

// counted has w's janitors' calls counted.
func (w *world) counted() *calls {
	c := &calls{of: map[string]int{}}
	f := fault.Decide(func(call fault.Call) fault.Decision {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.of[call.Port]++
		c.of[call.Method]++
		return fault.Decision{}
	})
	w.metadata, w.store = fault.NewMetadata(w.meta, f), fault.NewSegments(w.segments, f)
	return c
}

// when has the calls of the store or the metadata that match go as decided.
func (w *world) when(match func(fault.Call) bool, d fault.Decision) {
	f := fault.Decide(func(call fault.Call) fault.Decision {
		if match(call) {
			return d
		}
		return fault.Decision{}
	})
	w.metadata, w.store = fault.NewMetadata(w.meta, f), fault.NewSegments(w.segments, f)
}

const day = 24 * time.Hour
