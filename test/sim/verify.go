package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// verify reads everything once more, and checks the history and the stores.
func (w *world) verify() {
	w.checkWake()
	w.readEverything("final")
	w.checkKept()
	w.tidy()
	w.readEverything("tidied")
	for _, v := range w.checker.Finish() {
		w.violations = append(w.violations, v.String())
	}
	snapshot := w.metadata.Snapshot()
	if err := snapshot.Check(); err != nil {
		w.violate("metadata: %v", err)
	}
	w.checkObjects(snapshot)
}

func (w *world) readEverything(actor string) {
	for _, t := range w.plan.topics {
		if err := w.readAll(actor, w.topic(t.name)); err != nil {
			w.violate("%s read of %s: %v", actor, t.name, err)
		}
	}
}

// readAll reads a topic from its start to its end.
func (w *world) readAll(actor string, t topicState) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fetcher := w.reader()
	c, err := consumer.New(consumer.Ports{Topics: w.metadata, Fetcher: fetcher}, consumer.DefaultConfig())
	if err != nil {
		return err
	}
	defer c.Close()
	states, err := w.metadata.DescribePartitions(ctx, t.topic.ID)
	if err != nil {
		return err
	}
	if err := c.Assign(ctx, t.topic.Name, consumer.Start()); err != nil {
		return err
	}
	at := history.Event{Actor: actor, Topic: t.topic.Name, Incarnation: t.incarnation}
	for _, s := range states {
		e := at
		e.Kind, e.Partition, e.Offset = history.Assign, int32(s.Partition), int64(s.LogStart)
		w.observe(nil, e)
	}
	messages := map[domain.PartitionID][]domain.Message{}
	for m, err := range c.ReadToEnd(ctx) {
		if err != nil {
			return err
		}
		messages[m.Partition] = append(messages[m.Partition], m)
		w.read(nil, actor, t.incarnation, m)
	}
	for _, s := range states {
		e := at
		e.Kind, e.Partition, e.Start, e.High = history.Final, int32(s.Partition), int64(s.LogStart), int64(s.HighWatermark)
		w.observe(nil, e)
		w.checkTimes(ctx, fetcher, t, s, messages[s.Partition])
	}
	return nil
}

// checkTimes looks records up by their times.
func (w *world) checkTimes(ctx context.Context, f *direct.Reader, t topicState, s domain.PartitionState, messages []domain.Message) {
	key := commit.PartitionKey{Topic: t.topic.ID, Partition: s.Partition}
	for i := 0; i < len(messages); i += 1 + len(messages)/4 {
		at, want := messages[i].Timestamp, s.HighWatermark
		for _, m := range messages {
			if !m.Timestamp.Before(at) {
				want = m.Offset
				break
			}
		}
		if got, err := f.OffsetAt(ctx, key, at); err != nil || got != want {
			w.violate("%s/%d: the first record at or after %v is at %d; got %d, %v", t.topic.Name, s.Partition, at, want, got, err)
		}
	}
}

// checkObjects verifies every committed segment's object.
func (w *world) checkObjects(s memory.Snapshot) {
	referenced := map[domain.SegmentID]bool{}
	for _, e := range s.Extents {
		referenced[e.Segment] = true
	}
	for _, row := range s.Segments {
		if row.State != ports.SegmentCommitted && !referenced[row.ID] {
			continue
		}
		if err := w.checkObject(row); err != nil {
			w.violate("segment %s: %v", row.ID, err)
		}
	}
}

func (w *world) checkObject(row memory.SegmentRow) error {
	ctx := context.Background()
	info, err := w.segments.Stat(ctx, row.Key)
	if err != nil {
		return err
	}
	if info.Size != row.Size || info.CRC32C != row.CRC32C {
		return fmt.Errorf("object has %d bytes and checksum %08x, metadata say %d and %08x", info.Size, info.CRC32C, row.Size, row.CRC32C)
	}
	body, err := w.segments.ReadRange(ctx, row.Key, 0, info.Size)
	if err != nil {
		return err
	}
	opened, err := segment.Verify(body)
	if err != nil {
		return err
	}
	if err := checkIndex(opened); err != nil {
		return err
	}
	return opened.CheckIdentity(w.metadata.ClusterID(), row.ID)
}

// checkIndex compares the times in a segment's index with its batches.
func checkIndex(s *segment.Segment) error {
	for _, e := range s.Extents {
		newest := int64(math.MinInt64)
		for b, err := range s.Batches(e) {
			if err != nil {
				return err
			}
			newest = max(newest, b.Header.MaxTimestamp)
		}
		if e.MaxTimestamp != newest {
			return fmt.Errorf("the index says that the newest record of partition %d is of %d, it is of %d", e.Partition, e.MaxTimestamp, newest)
		}
	}
	return nil
}

// checkWake demands that a consumer at the end of a topic gets a new record at
// once.
func (w *world) checkWake() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	t := w.topic(w.plan.topics[0].name).topic
	c, err := consumer.New(consumer.Ports{Topics: w.metadata, Fetcher: w.reader()}, consumer.DefaultConfig())
	if err == nil {
		defer c.Close()
		err = c.Assign(ctx, t.Name, consumer.End(), 0)
	}
	if err != nil {
		w.violate("a consumer of %s: %v", t.Name, err)
		return
	}
	polled := make(chan time.Time, 1)
	go func() {
		if _, err := c.Poll(ctx, 1); err != nil {
			w.violate("poll at the end: %v", err)
		}
		polled <- time.Now()
	}()
	synctest.Wait()
	begin := time.Now()
	w.appendOne(ctx, t)
	if took := (<-polled).Sub(begin); took > 50*time.Millisecond {
		w.violate("a consumer that waited got a new record after %v", took)
	}
}

// appendOne writes a record, as a session of its own.
func (w *world) appendOne(ctx context.Context, t domain.Topic) {
	transport, err := direct.NewWriter(w.metadata, w.segments, ports.NoTelemetry{}, direct.DefaultConfig())
	if err != nil {
		w.violate("transport: %v", err)
		return
	}
	r := domain.Record{Topic: t.Name, Value: []byte("wake")}
	var b batch.Builder
	b.Append(time.Now().UnixMilli(), nil, r.Value, nil)
	encoded, err := b.Encode(nil, nil, batch.NoProducer)
	if err != nil {
		w.violate("encode: %v", err)
	}
	w.observe(nil, history.Event{Kind: history.Open, Session: "waker"})
	w.sending(nil, "waker", "wake", r)
	answered := make(chan ports.AppendResult, 1)
	wire := []ports.Batch{{PartitionKey: commit.PartitionKey{Topic: t.ID}, Bytes: encoded}}
	err = transport.Append(ctx, wire, func(_ int, r ports.AppendResult) { answered <- r })
	if err == nil {
		a := <-answered
		w.observe(nil, history.Event{Kind: history.Ack, ID: "wake", Offset: int64(a.Base)})
		err = a.Err
	}
	if err := errors.Join(err, transport.Close(ctx)); err != nil {
		w.violate("append at the end: %v", err)
	}
}

func (w *world) reader() *direct.Reader {
	return direct.NewReader(w.metadata, w.segments, ports.NoTelemetry{}, direct.DefaultReaderConfig())
}
