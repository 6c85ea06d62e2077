package remote_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/cache"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

const (
	cachePartitions = 32
	cacheFlushes    = 20
)

// readByAll reads the topic with one consumer for each partition, all at once,
// and returns how many GETs that took.
func (l *log) readByAll(topic domain.Topic, segments ports.SegmentStore) (gets int) {
	l.Helper()
	before := l.toBucket.Requests("GET")
	var wg sync.WaitGroup
	for id := range domain.PartitionID(cachePartitions) {
		wg.Go(func() {
			c, err := streamhouse.NewConsumerBuilder().MetadataStore(l.metadata).SegmentStore(segments).
				Assign(topic.Name, streamhouse.FromStart(), id).Build(l.Context())
			if err != nil {
				l.Error(err)
				return
			}
			defer func() { _ = c.Close() }() // always nil
			n := 0
			for m, err := range c.ReadToEnd(l.Context()) {
				if want := fmt.Sprintf("%d/%d", id, n); err != nil || string(m.Key) != want {
					l.Errorf("read %s where %s was due: %v", m.Key, want, err)
					return
				}
				n++
			}
			if n != cacheFlushes {
				l.Errorf("partition %d has %d records, want %d", id, n, cacheFlushes)
			}
		})
	}
	wg.Wait()
	return l.toBucket.Requests("GET") - before
}

// TestCache_GetsASegmentOnceForAllItsConsumers has as many consumers as partitions
// read what small flushes have left in a bucket: as through agents without a memory, through one
// that has just started, again, and through the one that wrote.
func TestCache_GetsASegmentOnceForAllItsConsumers(t *testing.T) {
	l := newLog(t)
	topic := l.topic("orders", cachePartitions)
	kept := func() *cache.Store {
		c := cache.New(l.segments, ports.NoTelemetry{}, cache.DefaultConfig())
		t.Cleanup(c.Close)
		return c
	}
	writing, started := kept(), kept()
	p := l.producer(func(b *streamhouse.ProducerBuilder) { b.SegmentStore(writing) })
	random := rand.NewChaCha8([32]byte{})
	value := make([]byte, 4<<10)
	for n := range cacheFlushes {
		for id := range domain.PartitionID(cachePartitions) {
			_, _ = random.Read(value) // never fails
			p.SendAsync(t.Context(), streamhouse.Record{
				Topic: topic.Name, Partition: domain.ToPartition(id), Key: fmt.Appendf(nil, "%d/%d", id, n), Value: value,
			}, nil)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	segments := len(l.extents(topic.ID))
	without := l.readByAll(topic, l.segments)
	cold, again, wrote := l.readByAll(topic, started), l.readByAll(topic, started), l.readByAll(topic, writing)
	t.Logf("%d segments, %d consumers: %d GETs without a memory, %d with a cold one, %d with a warm one, %d of the writer's",
		segments, cachePartitions, without, cold, again, wrote)
	if without < cachePartitions*cacheFlushes || cold > segments || again != 0 || wrote != 0 {
		t.Errorf("want at least %d, at most %d, none and none", cachePartitions*cacheFlushes, segments)
	}
}
