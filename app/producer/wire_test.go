package producer

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// fate is what wire does with one batch.
type fate uint8

const (
	deliver    fate = iota
	drop            // not stored, says so
	loseAnswer      // stored, says that it is not known
	loseBatch       // not stored, says that it is not known
)

var (
	errDropped = ports.StorageError("put segment", ports.Transient, errors.New("store is away"))
	errLost    = ports.MetadataError("commit segment", ports.Ambiguous, errors.New("connection lost"))
)

// wire is a transport that commits each batch at once to a metadata store, with
// faults by choice. It keeps no objects: these tests look at batches and offsets.
type wire struct {
	*memory.Metadata
	// hold, if it is not nil, is received from before each Append is served.
	hold chan struct{}

	queue chan func()
	done  sync.WaitGroup

	mu      sync.Mutex
	judge   func(b ports.Batch, h batch.Header) fate
	appends [][]batch.Header
	keys    [][]commit.PartitionKey                // of their batches
	checked []bool                                 // what each batch says
	log     map[commit.PartitionKey][]batch.Header // stored, in order
}

func newWire(t testing.TB) *wire {
	w := &wire{
		Metadata: memory.NewMetadata(memory.MetadataOptions{Seed: 1}),
		judge:    always(deliver),
		queue:    make(chan func(), 1000), log: map[commit.PartitionKey][]batch.Header{},
	}
	w.done.Go(func() {
		for f := range w.queue {
			f()
		}
	})
	t.Cleanup(w.done.Wait)
	return w
}

func (w *wire) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	var headers []batch.Header
	var keys []commit.PartitionKey
	for _, b := range batches {
		keys = append(keys, b.PartitionKey)
		h, err := batch.Verify(b.Bytes)
		if err != nil {
			panic(err)
		}
		headers = append(headers, h)
	}
	w.mu.Lock()
	for _, b := range batches {
		w.checked = append(w.checked, b.Checked)
	}
	w.appends, w.keys = append(w.appends, headers), append(w.keys, keys)
	w.mu.Unlock()
	w.queue <- func() {
		if w.hold != nil {
			select {
			case <-w.hold:
			case <-ctx.Done():
				for i := range batches {
					settle(i, ports.AppendResult{Base: -1, Err: errLost})
				}
				return
			}
		}
		for i, b := range batches {
			settle(i, w.serve(b, headers[i]))
		}
	}
	return nil
}

func (w *wire) serve(b ports.Batch, h batch.Header) ports.AppendResult {
	w.mu.Lock()
	judge := w.judge
	w.mu.Unlock()
	fate := judge(b, h)
	switch fate {
	case drop:
		return ports.AppendResult{Base: -1, Err: errDropped}
	case loseBatch:
		return ports.AppendResult{Base: -1, Err: errLost}
	}
	o, err := commitOne(w.Metadata, b, h)
	if err != nil {
		return ports.AppendResult{Base: -1, Err: err}
	}
	if o.Status == commit.Accepted {
		w.mu.Lock()
		h.BaseOffset = o.Base
		w.log[b.PartitionKey] = append(w.log[b.PartitionKey], h)
		w.mu.Unlock()
	}
	if fate == loseAnswer {
		return ports.AppendResult{Base: -1, Err: errLost}
	}
	return answer(o)
}

// commitOne commits one batch in a segment of its own.
func commitOne(m *memory.Metadata, b ports.Batch, h batch.Header) (commit.Outcome, error) {
	ref, err := m.Reserve(context.Background(), 1)
	if err != nil {
		return commit.Outcome{}, err
	}
	results, err := m.Commit(context.Background(), []commit.Segment{{ID: ref[0].ID, Size: 1, Batches: []commit.Batch{{
		Topic: b.Topic, Partition: b.Partition, Producer: h.Producer.ID, Epoch: h.Producer.Epoch,
		FirstSequence: h.Producer.Sequence, Records: h.Records, Length: int32(h.Length), MaxTimestamp: h.MaxTimestamp,
	}}}})
	if err != nil {
		return commit.Outcome{}, err
	}
	return results[0].Outcomes[0], nil
}

// answer is what a transport tells of an outcome.
func answer(o commit.Outcome) ports.AppendResult {
	switch o.Status {
	case commit.Accepted, commit.Duplicate:
		return ports.AppendResult{Base: o.Base}
	case commit.DuplicateForgotten:
		return ports.AppendResult{Base: -1, Err: domain.ErrOffsetUnknown}
	case commit.OutOfOrder:
		return ports.AppendResult{Base: -1, Err: domain.ErrOutOfOrder}
	case commit.Fenced:
		return ports.AppendResult{Base: -1, Err: domain.ErrFenced}
	case commit.UnknownProducer:
		return ports.AppendResult{Base: -1, Err: domain.ErrSessionExpired}
	default:
		return ports.AppendResult{Base: -1, Err: domain.ErrTopicNotFound}
	}
}

func (w *wire) Close(context.Context) error {
	close(w.queue)
	w.done.Wait()
	return nil
}

// judgeBy replaces what decides on faults.
func (w *wire) judgeBy(judge func(ports.Batch, batch.Header) fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge = judge
}

// always judges every batch alike.
func always(f fate) func(ports.Batch, batch.Header) fate {
	return func(ports.Batch, batch.Header) fate { return f }
}

// sent returns the requests so far.
func (w *wire) sent() [][]batch.Header {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.appends
}

// requests returns the partitions of the requests so far.
func (w *wire) requests() [][]commit.PartitionKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys
}

// await lets the bubble's clock run until there are n requests, a minute at most,
// and returns for how long it ran.
func (w *wire) await(t testing.TB, n int) time.Duration {
	t.Helper()
	began := time.Now()
	for synctest.Wait(); len(w.sent()) < n; synctest.Wait() {
		if time.Since(began) > time.Minute {
			t.Fatalf("%d requests after a minute, want %d", len(w.sent()), n)
		}
		<-time.After(time.Millisecond)
	}
	return time.Since(began)
}

// topic creates the topic "t".
func (w *wire) topic(t testing.TB, partitions int32) domain.Topic {
	t.Helper()
	topic, err := w.CreateTopic(t.Context(), domain.TopicSpec{Name: "t", Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// open makes a producer on w that is closed with the test.
func (w *wire) open(t testing.TB, change func(*Config)) *Producer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Seed = 1
	if change != nil {
		change(&cfg)
	}
	p, err := New(t.Context(), Ports{Topics: w, Producers: w, Transport: w, Telemetry: ports.NoTelemetry{}}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return p
}

// stored returns how many records partition 0 of the topic holds.
func (w *wire) stored(t testing.TB, topic domain.Topic, id domain.PartitionID) domain.Offset {
	t.Helper()
	states, err := w.DescribePartitions(context.Background(), topic.ID)
	if err != nil {
		t.Fatal(err)
	}
	return states[id].HighWatermark
}

func value(s string) domain.Record { return domain.Record{Topic: "t", Value: []byte(s)} }

func keyOf(t domain.Topic) commit.PartitionKey { return commit.PartitionKey{Topic: t.ID} }

// metadataAway is a metadata store that fails to settle batches while set.
type metadataAway struct {
	ports.Producers
	mu   sync.Mutex
	away bool
}

func (m *metadataAway) set(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

func (m *metadataAway) AbandonBatch(ctx context.Context, b ports.AbandonedBatch) (commit.Outcome, error) {
	m.mu.Lock()
	away := m.away
	m.mu.Unlock()
	if away {
		return commit.Outcome{}, errLost
	}
	return m.Producers.AbandonBatch(ctx, b)
}
