package consumer_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// cluster is a memory cluster with the direct transport and fetcher.
type cluster struct {
	*memory.Cluster
	t         testing.TB
	writer    *direct.Writer
	reader    *direct.Reader
	telemetry *memory.Telemetry
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{Cluster: memory.NewCluster(), t: t, telemetry: memory.NewTelemetry()}
	var err error
	c.writer, err = direct.NewWriter(c.Metadata(), c.Segments(), c.telemetry, direct.DefaultConfig())
	must(t, err)
	c.reader = direct.NewReader(c.Metadata(), c.Segments(), c.telemetry, direct.DefaultReaderConfig(codec.NewLZ4()))
	t.Cleanup(func() {
		must(t, c.writer.Close(context.Background()))
		must(t, c.Close())
	})
	return c
}

func (c *cluster) topic(name string, partitions int32) domain.Topic {
	c.t.Helper()
	topic, err := c.Metadata().CreateTopic(context.Background(), domain.TopicSpec{Name: name, Partitions: partitions})
	must(c.t, err)
	return topic
}

func (c *cluster) consumer() *consumer.Consumer {
	c.t.Helper()
	reader, err := consumer.New(consumer.Ports{Topics: c.Metadata(), Fetcher: c.reader, Telemetry: c.telemetry}, settings())
	must(c.t, err)
	c.t.Cleanup(func() { must(c.t, reader.Close()) })
	return reader
}

// append appends one batch a partition, of n records each whose values name
// partition and offset if they begin at base, and waits until they are stored.
func (c *cluster) append(topic domain.Topic, base domain.Offset, n int) {
	var batches []ports.Batch
	for id := range domain.PartitionID(topic.Partitions) {
		var b batch.Builder
		b.Reset(nil)
		for i := range n {
			at := base + domain.Offset(i)
			v := value(id, at)
			b.Append(int64(at)*1000, []byte("k"), v, []domain.Header{{Key: "at", Value: v}, {Key: "nil"}})
		}
		encoded, err := b.Encode(nil, codec.NewLZ4(), batch.NoProducer)
		if err != nil {
			c.t.Error(err)
		}
		batches = append(batches, ports.Batch{PartitionKey: key(topic, id), Bytes: encoded})
	}
	var settled sync.WaitGroup
	settled.Add(len(batches))
	if err := c.writer.Append(context.Background(), batches, func(_ int, r ports.AppendResult) {
		if r.Err != nil {
			c.t.Error(r.Err)
		}
		settled.Done()
	}); err != nil {
		c.t.Error(err)
		return
	}
	settled.Wait()
}

func TestCluster_IsReadWhileItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		topic := c.topic("orders", 4)
		reader := c.consumer()
		must(t, reader.Assign(t.Context(), "orders", consumer.Start()))
		written := make(chan struct{})
		go func() {
			defer close(written)
			for round := range 40 {
				c.append(topic, domain.Offset(round*25), 25)
				<-time.After(time.Duration(round%3) * time.Millisecond)
			}
		}()
		all := read(t, reader, 4000)
		<-written
		for id := range domain.PartitionID(4) {
			wantOffsets(t, all, id, 0, 1000)
		}
		lags, err := reader.Lag(t.Context())
		must(t, err)
		for _, l := range lags {
			if l.Lag != 0 || l.HighWatermark != 1000 {
				t.Errorf("lag %+v", l)
			}
		}
		wantQuiet(t, reader)
	})
}

func TestCluster_WakesTheConsumerAtTheEndWithoutDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		topic := c.topic("orders", 2)
		reader := c.consumer()
		must(t, reader.Assign(t.Context(), "orders", consumer.End()))
		wantQuiet(t, reader)
		began := time.Now()
		go func() {
			<-time.After(777 * time.Millisecond)
			c.append(topic, 0, 1)
		}()
		_, err := reader.Poll(t.Context(), 1)
		must(t, err)
		if took := time.Since(began); took != 777*time.Millisecond {
			t.Fatalf("woken after %v", took)
		}
	})
}

func TestCluster_TrimmedInTheMiddleOfABatchIsReadFromThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		topic := c.topic("orders", 2)
		for round := range 3 {
			c.append(topic, domain.Offset(round*10), 10)
		}
		_, err := c.Metadata().Trim(t.Context(), key(topic, 0), 14)
		must(t, err)
		_, err = c.Metadata().Trim(t.Context(), key(topic, 1), 30)
		must(t, err)
		reader := c.consumer()
		must(t, reader.Assign(t.Context(), "orders", consumer.Start()))
		wantOffsets(t, toEnd(t, reader), 0, 14, 30)
		wantPosition(t, reader, "orders", 1, 30)

		must(t, reader.Assign(t.Context(), "orders", consumer.At(13), 0))
		_, err = poll(t, reader, 1)
		var out *domain.OutOfRangeError
		want := domain.OutOfRangeError{Topic: "orders", Offset: 13, LogStart: 14, HighWatermark: 30}
		if !errors.As(err, &out) || *out != want {
			t.Fatalf("got %v", err)
		}
		must(t, reader.Seek(t.Context(), "orders", 0, consumer.Since(time.Unix(21, 0))))
		wantOffsets(t, read(t, reader, 9), 0, 21, 30)
	})
}

func TestCluster_MissingObjectIsAnErrorAndOtherPartitionsAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		lost, kept := c.topic("lost", 1), c.topic("kept", 1)
		c.append(lost, 0, 10)
		objects, err := c.Segments().List(t.Context(), "", 10)
		must(t, err)
		c.append(kept, 0, 10)
		must(t, c.Segments().Delete(t.Context(), objects[0].Key))
		reader := c.consumer()
		must(t, reader.Assign(t.Context(), "lost", consumer.Start()))
		must(t, reader.Assign(t.Context(), "kept", consumer.Start()))
		served, failures := 0, 0
		for served < 10 || failures < 3 {
			messages, err := reader.Poll(t.Context(), 3)
			served += len(messages)
			var where *consumer.PartitionError
			if err != nil && (!errors.As(err, &where) || where.Topic != "lost" || where.Offset != 0 || !errors.Is(err, domain.ErrCorrupt)) {
				t.Fatalf("got %v", err)
			} else if err != nil {
				failures++
			}
		}
		wantPosition(t, reader, "lost", 0, 0)
	})
}

func TestCluster_DeletedAndRecreatedTopicIsNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		old := c.topic("orders", 2)
		c.append(old, 0, 5)
		reader := c.consumer()
		must(t, reader.Assign(t.Context(), "orders", consumer.Start()))
		read(t, reader, 10)
		must(t, c.Metadata().DeleteTopic(t.Context(), old.ID))
		c.append(c.topic("orders", 2), 0, 7)
		var missing *domain.TopicNotFoundError
		if _, err := reader.Poll(t.Context(), 1); !errors.As(err, &missing) || missing.Topic != "orders" {
			t.Fatalf("got %v", err)
		}
		must(t, reader.Assign(t.Context(), "orders", consumer.Start()))
		wantOffsets(t, read(t, reader, 14), 1, 0, 7)
	})
}

// BenchmarkPollCluster reads a million records of 100 bytes per operation
// through the direct fetcher.
func BenchmarkPollCluster(b *testing.B) {
	source := filled(b, 16, 0)
	c := newCluster(b)
	topic := c.topic("bench", 16)
	for id := range domain.PartitionID(16) {
		for k, l := range source.logs {
			if k.Partition != id {
				continue
			}
			for _, encoded := range l.batches {
				batch.SetBaseOffset(encoded, 0)
				done := make(chan ports.AppendResult, 1)
				must(b, c.writer.Append(context.Background(), []ports.Batch{{PartitionKey: key(topic, id), Bytes: encoded}},
					func(_ int, r ports.AppendResult) { done <- r }))
				must(b, (<-done).Err)
			}
		}
	}
	measure(b, c.Metadata(), c.reader, pollAll)
}
