package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a fetcher over batches in memory, with faults on demand. Topics are
// a memory store's.
type world struct {
	*memory.Metadata
	t testing.TB

	mu      sync.Mutex
	logs    map[commit.PartitionKey]*log
	changed chan struct{}
	turn    int
	// fetches counts the calls that asked for records, looks those of Topic.
	fetches, looks atomic.Int64
	// fails answers the next fetches for records.
	fails []error
	// fault may change the answer for one partition.
	fault func(key commit.PartitionKey, at domain.Offset, f *ports.FetchedPartition)
	// block, if not nil, holds every fetch for records until it is closed.
	block chan struct{}
}

// log holds batches whose base offsets are set.
type log struct {
	start, end domain.Offset
	batches    [][]byte
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		Metadata: memory.NewMetadata(memory.MetadataOptions{Seed: 1}), t: t,
		logs: make(map[commit.PartitionKey]*log), changed: make(chan struct{}),
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) topic(name string, partitions int32) domain.Topic {
	w.t.Helper()
	topic, err := w.CreateTopic(context.Background(), domain.TopicSpec{Name: name, Partitions: partitions})
	if err != nil {
		w.t.Fatal(err)
	}
	return topic
}

func (w *world) log(key commit.PartitionKey) *log {
	l := w.logs[key]
	if l == nil {
		l = new(log)
		w.logs[key] = l
	}
	return l
}

func key(topic domain.Topic, id domain.PartitionID) commit.PartitionKey {
	return commit.PartitionKey{Topic: topic.ID, Partition: id}
}

// append adds one batch of n records whose values name partition and offset,
// and whose timestamps are their offsets in seconds.
func (w *world) append(topic domain.Topic, id domain.PartitionID, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.log(key(topic, id))
	var b batch.Builder
	b.Reset(nil)
	for i := range n {
		at := l.end + domain.Offset(i)
		b.Append(int64(at)*1000, []byte("k"), value(id, at), []domain.Header{{Key: "at", Value: value(id, at)}, {Key: "nil"}})
	}
	w.put(l, &b, n)
}

func value(id domain.PartitionID, at domain.Offset) []byte { return fmt.Appendf(nil, "%d/%d", id, at) }

func (w *world) put(l *log, b *batch.Builder, n int) {
	encoded, err := b.Encode(nil, codec.NewLZ4(), batch.NoProducer)
	if err != nil {
		w.t.Error(err)
		return
	}
	batch.SetBaseOffset(encoded, l.end)
	l.batches = append(l.batches, encoded)
	l.end += domain.Offset(n)
	w.wake()
}

func (w *world) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// change runs f with the world held, and wakes the fetches that wait.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.wake()
}

func (w *world) trim(topic domain.Topic, id domain.PartitionID, to domain.Offset) {
	w.change(func() { w.log(key(topic, id)).start = to })
}

func (w *world) Topic(ctx context.Context, name string) (domain.Topic, error) {
	w.looks.Add(1)
	return w.Metadata.Topic(ctx, name)
}

func (w *world) Fetch(ctx context.Context, r ports.FetchRequest) ([]ports.FetchedPartition, error) {
	timer := time.NewTimer(r.MaxWait)
	defer timer.Stop()
	if err := w.enter(ctx, r); err != nil {
		return nil, err
	}
	for waited := r.MaxWait == 0; ; {
		answer, changed, ok := w.answer(ctx, r)
		if ok || waited {
			return answer, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			waited = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// enter counts a fetch for records, and holds it or lets it fail.
func (w *world) enter(ctx context.Context, r ports.FetchRequest) error {
	if r.MaxBytes == 0 {
		return ctx.Err()
	}
	w.fetches.Add(1)
	w.mu.Lock()
	block := w.block
	var err error
	if len(w.fails) > 0 {
		err, w.fails = w.fails[0], w.fails[1:]
	}
	w.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (w *world) answer(ctx context.Context, r ports.FetchRequest) (fs []ports.FetchedPartition, changed chan struct{}, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fs = make([]ports.FetchedPartition, len(r.Partitions))
	left := r.MaxBytes
	w.turn++
	for i := range fs {
		at := (w.turn + i) % len(fs)
		fs[at] = w.read(ctx, r.Partitions[at], left)
		left = max(0, left-int64(len(fs[at].Batches)))
		ok = ok || len(fs[at].Batches) > 0 || fs[at].Err != nil
	}
	return fs, w.changed, ok
}

func (w *world) read(ctx context.Context, p ports.FetchPosition, limit int64) (f ports.FetchedPartition) {
	states, err := w.DescribePartitions(ctx, p.Topic)
	if err != nil {
		f.Err = err // As the context's end may be.
		return f
	}
	if int(p.Partition) >= len(states) {
		f.Err = domain.ErrInvalidPartition
		return f
	}
	l := w.log(p.PartitionKey)
	f.LogStart, f.HighWatermark = l.start, l.end
	if p.Offset < l.start || p.Offset > l.end {
		f.Err = &domain.OutOfRangeError{Partition: p.Partition, Offset: p.Offset, LogStart: l.start, HighWatermark: l.end}
	} else {
		f.Batches = l.from(p.Offset, limit)
	}
	if w.fault != nil && limit > 0 {
		w.fault(p.PartitionKey, p.Offset, &f)
	}
	return f
}

// from returns copies of the batches that hold offset at and what follows, at
// least one and no more than limit bytes.
func (l *log) from(at domain.Offset, limit int64) (out []byte) {
	for _, b := range l.batches {
		h, err := batch.ParseHeader(b)
		if err != nil || h.BaseOffset+domain.Offset(h.Records) <= at {
			continue
		}
		if limit == 0 || len(out) > 0 && int64(len(out)+len(b)) > limit {
			break
		}
		out = append(out, b...)
	}
	return out
}

func (w *world) OffsetAt(ctx context.Context, k commit.PartitionKey, t time.Time) (domain.Offset, error) {
	if _, err := w.DescribePartitions(ctx, k.Topic); err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.log(k)
	return min(max(l.start, domain.Offset((t.UnixNano()+999_999_999)/1_000_000_000)), l.end), nil
}

func settings() consumer.Config {
	cfg := consumer.DefaultConfig()
	cfg.Codecs = []batch.Codec{codec.NewLZ4()}
	return cfg
}

// reader starts a consumer of the world that is closed by the end of the test.
func (w *world) reader(t testing.TB, change ...func(*consumer.Config)) *consumer.Consumer {
	t.Helper()
	cfg := settings()
	for _, f := range change {
		f(&cfg)
	}
	c, err := consumer.New(consumer.Ports{Topics: w, Fetcher: w}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// inBubble runs f with a world in a bubble of virtual time.
func inBubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// poll polls with a second to succeed.
func poll(t testing.TB, c *consumer.Consumer, max int) ([]domain.Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return c.Poll(ctx, max)
}

// read polls n messages that must come without an error and checks each.
func read(t testing.TB, c *consumer.Consumer, n int) []domain.Message {
	t.Helper()
	var all []domain.Message
	for len(all) < n {
		messages, err := poll(t, c, n-len(all))
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(all), n, err)
		}
		for _, m := range messages {
			check(t, m)
		}
		all = append(all, messages...)
	}
	return all
}

func check(t testing.TB, m domain.Message) {
	t.Helper()
	want := string(value(m.Partition, m.Offset))
	if string(m.Value) != want || string(m.Key) != "k" || m.Timestamp.Unix() != int64(m.Offset) {
		t.Fatalf("message %d/%d has key %q, value %q, time %v", m.Partition, m.Offset, m.Key, m.Value, m.Timestamp)
	}
	if len(m.Headers) != 2 || m.Headers[0].Key != "at" || string(m.Headers[0].Value) != want || m.Headers[1].Value != nil {
		t.Fatalf("message %d/%d has headers %q", m.Partition, m.Offset, m.Headers)
	}
}

// wantOffsets checks that the messages of partition id have exactly the
// offsets from..to-1, in order.
func wantOffsets(t testing.TB, messages []domain.Message, id domain.PartitionID, from, to domain.Offset) {
	t.Helper()
	next := from
	for _, m := range messages {
		if m.Partition != id {
			continue
		}
		if m.Offset != next {
			t.Fatalf("partition %d: got offset %d, want %d", id, m.Offset, next)
		}
		next++
	}
	if next != to {
		t.Fatalf("partition %d: read up to %d, want %d", id, next, to)
	}
}

// wantQuiet checks that a second brings neither message nor failure.
func wantQuiet(t testing.TB, c *consumer.Consumer) {
	t.Helper()
	if messages, err := poll(t, c, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %d messages and %v, want neither for a second", len(messages), err)
	}
}

func wantPosition(t testing.TB, c *consumer.Consumer, topic string, id domain.PartitionID, want domain.Offset) {
	t.Helper()
	if at, err := c.Position(topic, id); err != nil || at != want {
		t.Fatalf("position of %s/%d is %d, %v; want %d", topic, id, at, err, want)
	}
}

// flip changes one bit, counted from its begin, of the batch that begins at
// offset base, if it is there.
func flip(batches []byte, base domain.Offset, bit int) {
	for len(batches) > 0 {
		h, err := batch.ParseHeader(batches)
		if err != nil {
			return
		}
		if h.BaseOffset == base {
			batches[bit/8%h.Length] ^= 1 << (bit % 8)
			return
		}
		batches = batches[h.Length:]
	}
}

func (w *world) telemetry() *memory.Telemetry { return memory.NewTelemetry() }

func (w *world) readerWith(t testing.TB, tel ports.Telemetry) *consumer.Consumer {
	t.Helper()
	c, err := consumer.New(consumer.Ports{Topics: w, Fetcher: w, Telemetry: tel}, settings())
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}
