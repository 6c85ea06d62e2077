package portstest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// TransportHarness opens what TestTransport needs, once a case. What it opens it
// removes at the end of t.
type TransportHarness struct {
	// Stores opens an empty cluster.
	Stores func(t testing.TB) (ports.MetadataStore, ports.SegmentStore)
	// Open opens a transport that writes to the stores, and a fetcher that reads
	// from them. The suite closes the transport.
	Open func(t testing.TB, meta ports.MetadataStore, segments ports.SegmentStore) (ports.Transport, ports.Fetcher)
}

// TestTransport holds what h opens to the contracts of ports.Transport and
// ports.Fetcher.
func TestTransport(t *testing.T, h TransportHarness) {
	cases := []struct {
		name string
		run  func(*transportUnderTest)
	}{
		{"Append_StoresAndReadsBack", appendStores},
		{"Append_OfNothingSettlesNothing", appendNothing},
		{"Append_KeepsTheOrderOfAProducer", appendKeepsOrder},
		{"Append_KeepsTheOrderWithoutAProducer", appendKeepsOrderWithoutProducer},
		{"Append_FromManyGoroutinesSettlesEachBatchOnce", appendRace},
		{"Append_OfARepeatAnswersTheFirstOffset", appendRepeat},
		{"Append_OfAForgottenRepeatSaysThatItIsStored", appendForgotten},
		{"Append_RefusesWhatTheLogRefuses", appendRefused},
		{"Append_RefusesACorruptBatchAlone", appendCorrupt},
		{"Append_OfABatchLargerThanASegment", appendLarge},
		{"Append_WithAnEndedContextStoresNothing", appendEnded},
		{"Append_IsSettledWhenItsContextEnds", appendContextEnds},
		{"SlowUpload_HoldsBackItsPartitionOnly", slowUpload},
		{"LostAnswerOfAPut_StoresOnce", lostPutAnswer},
		{"RefusedPut_IsRepeated", refusedPut},
		{"Close_SettlesEverythingBefore", closeSettles},
		{"Close_ObeysItsContext", closeObeys},
		{"Fetch_ReturnsWholeBatchesFromAnyOffset", fetchFromAnyOffset},
		{"Fetch_AnswersEachPartitionByItself", fetchErrors},
		{"Fetch_OfNothing", fetchNothing},
		{"Fetch_StaysWithinMaxBytes", fetchMaxBytes},
		{"Fetch_StarvesNoPartition", fetchFair},
		{"Fetch_WaitsForRecords", fetchWaits},
		{"Fetch_WaitsNoLongerThanMaxWait", fetchMaxWait},
		{"Fetch_ObeysTheEndOfItsContext", fetchCancelled},
		{"Fetch_GivesTheBytesAway", fetchOwned},
		{"Fetch_NeverSkipsWhatItCannotRead", fetchDamaged},
		{"Fetch_SaysWhereTheBatchesLie", fetchSources},
		{"OffsetAt_FindsTheFirstRecordOfATime", offsetAt},
		{"OffsetAt_RefusesPartitionsThatAreNone", offsetAtErrors},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { runTransportCase(t, h, c.run) })
	}
}

func runTransportCase(t *testing.T, h TransportHarness, run func(*transportUnderTest)) {
	meta, store := h.Stores(t)
	x := &transportUnderTest{T: t, meta: meta, store: &hookedStore{SegmentStore: store}}
	x.transport, x.fetcher = h.Open(t, meta, x.store)
	topic, err := meta.CreateTopic(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 8})
	x.ok(err)
	x.topic = topic.ID
	run(x)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := x.transport.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// patience is how long the suite waits for what must happen.
const patience = 20 * time.Second

// transportUnderTest is a transport with its fetcher and the test they serve.
// Its own methods end the test when a call fails.
type transportUnderTest struct {
	*testing.T
	transport ports.Transport
	fetcher   ports.Fetcher
	meta      ports.MetadataStore
	store     *hookedStore
	topic     domain.TopicID
}

func (x *transportUnderTest) ok(err error) {
	x.Helper()
	if err != nil {
		x.Fatalf("unexpected error: %v", err)
	}
}

func (x *transportUnderTest) key(p domain.PartitionID) commit.PartitionKey {
	return commit.PartitionKey{Topic: x.topic, Partition: p}
}

// producer opens a session and returns a source of its batches.
func (x *transportUnderTest) producer() *source {
	x.Helper()
	s, err := x.meta.RegisterProducer(x.Context(), "")
	x.ok(err)
	return &source{x: x, producer: batch.Producer{ID: s.ID, Epoch: s.Epoch}, next: map[domain.PartitionID]domain.Sequence{}}
}

// anonymous is a source of batches without a producer.
func (x *transportUnderTest) anonymous() *source { return &source{x: x, producer: batch.NoProducer} }

// source makes batches, numbered in the order in which it makes them.
type source struct {
	x        *transportUnderTest
	producer batch.Producer
	next     map[domain.PartitionID]domain.Sequence
}

// batch makes the next batch for partition p, a record a value.
func (s *source) batch(p domain.PartitionID, values ...string) ports.Batch {
	s.x.Helper()
	producer := s.producer
	if s.next != nil {
		producer.Sequence = s.next[p]
		s.next[p] = producer.Sequence.Add(int32(len(values)))
	}
	return s.x.encode(p, producer, values...)
}

func (x *transportUnderTest) encode(p domain.PartitionID, producer batch.Producer, values ...string) ports.Batch {
	x.Helper()
	var b batch.Builder
	b.Reset(nil)
	for i, v := range values {
		b.Append(firstTimestamp+int64(i), nil, []byte(v), nil)
	}
	bytes, err := b.Encode(nil, nil, producer)
	x.ok(err)
	return ports.Batch{PartitionKey: x.key(p), Bytes: bytes}
}

// firstTimestamp is that of the first record of every batch that encode makes.
const firstTimestamp = 1_700_000_000_000

// append appends the batches, with the test's own context.
func (x *transportUnderTest) append(batches ...ports.Batch) *appended {
	x.Helper()
	return x.appendWith(x.Context(), batches...)
}

func (x *transportUnderTest) appendWith(ctx context.Context, batches ...ports.Batch) *appended {
	x.Helper()
	a := &appended{x: x, results: make([]ports.AppendResult, len(batches)), calls: make([]int, len(batches)), done: make(chan struct{})}
	x.ok(x.transport.Append(ctx, batches, a.settle))
	if len(batches) == 0 {
		close(a.done)
	}
	x.Cleanup(a.checkOnce)
	return a
}

// appended gathers the answers of one Append.
type appended struct {
	x *transportUnderTest

	mu      sync.Mutex
	results []ports.AppendResult
	calls   []int
	settled int
	done    chan struct{} // closed when every batch is settled
}

func (a *appended) settle(i int, r ports.AppendResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls[i]++
	a.results[i] = r
	if a.settled++; a.settled == len(a.results) {
		close(a.done)
	}
}

func (a *appended) checkOnce() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, n := range a.calls {
		if n != 1 {
			a.x.Errorf("batch %d of %d was settled %d times", i, len(a.calls), n)
		}
	}
}

// wait waits until every batch is settled.
func (a *appended) wait() []ports.AppendResult {
	a.x.Helper()
	a.x.within(a.done, "an append is not settled")
	return a.results
}

// stored demands that every batch is stored, and returns their base offsets.
func (a *appended) stored() []domain.Offset {
	a.x.Helper()
	bases := make([]domain.Offset, 0, len(a.results))
	for i, r := range a.wait() {
		if r.Err != nil {
			a.x.Fatalf("batch %d: %v", i, r.Err)
		}
		bases = append(bases, r.Base)
	}
	return bases
}

// open reports whether a batch is not settled yet.
func (a *appended) open() bool {
	select {
	case <-a.done:
		return false
	default:
		return true
	}
}

// within demands that done is closed, or gets a value, soon.
func (x *transportUnderTest) within(done <-chan struct{}, problem string) {
	x.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		x.Fatalf("%s after %s", problem, patience)
	}
}

// holds demands that the partition holds exactly the values, in this order.
func (x *transportUnderTest) holds(p domain.PartitionID, want ...string) {
	x.Helper()
	if got := x.values(p); !slices.Equal(got, want) {
		x.Fatalf("partition %d holds %q, want %q", p, got, want)
	}
}

// values reads a partition from its start to its end.
func (x *transportUnderTest) values(p domain.PartitionID) []string {
	x.Helper()
	var values []string
	for next := domain.Offset(0); ; {
		got := x.fetch(ports.FetchRequest{Partitions: x.positions(next, p), MaxBytes: 1 << 20})[0]
		x.ok(got.Err)
		if len(got.Batches) == 0 {
			if next != got.HighWatermark {
				x.Fatalf("partition %d: nothing at %d, below the high watermark %d", p, next, got.HighWatermark)
			}
			return values
		}
		for _, r := range x.records(got.Batches) {
			if r.Offset < next {
				continue
			}
			if r.Offset != next {
				x.Fatalf("partition %d: offset %d where %d was due", p, r.Offset, next)
			}
			values = append(values, string(r.Value))
			next++
		}
	}
}

func (x *transportUnderTest) positions(from domain.Offset, partitions ...domain.PartitionID) []ports.FetchPosition {
	positions := make([]ports.FetchPosition, 0, len(partitions))
	for _, p := range partitions {
		positions = append(positions, ports.FetchPosition{PartitionKey: x.key(p), Offset: from})
	}
	return positions
}

func (x *transportUnderTest) fetch(r ports.FetchRequest) []ports.FetchedPartition {
	x.Helper()
	got, err := x.fetcher.Fetch(x.Context(), r)
	x.ok(err)
	if len(got) != len(r.Partitions) {
		x.Fatalf("%d answers for %d partitions", len(got), len(r.Partitions))
	}
	return got
}

// records decodes whole batches, and so checks their CRCs.
func (x *transportUnderTest) records(b []byte) []batch.Record {
	x.Helper()
	var all []batch.Record
	for len(b) > 0 {
		h, err := batch.ParseHeader(b)
		x.ok(err)
		records, err := batch.NewDecoder().Decode(b[:h.Length:h.Length])
		x.ok(err)
		for r := (batch.Record{}); records.Next(&r); {
			all = append(all, r)
		}
		x.ok(records.Err())
		b = b[h.Length:]
	}
	return all
}

// hookedStore lets a case take over the calls of the segment store under a
// transport.
type hookedStore struct {
	ports.SegmentStore

	mu  sync.Mutex
	put func(ctx context.Context, key string, body []byte) error
	// read is asked after a read that went well.
	read func(body []byte) ([]byte, error)
}

func (s *hookedStore) onPut(f func(ctx context.Context, key string, body []byte) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put = f
}

func (s *hookedStore) onRead(f func(body []byte) ([]byte, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = f
}

func (s *hookedStore) Put(ctx context.Context, key string, body []byte) error {
	s.mu.Lock()
	put := s.put
	s.mu.Unlock()
	if put == nil {
		return s.SegmentStore.Put(ctx, key, body)
	}
	return put(ctx, key, body)
}

func (s *hookedStore) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	body, err := s.SegmentStore.ReadRange(ctx, key, position, length)
	s.mu.Lock()
	read := s.read
	s.mu.Unlock()
	if err != nil || read == nil {
		return body, err
	}
	return read(body)
}

// holdPuts makes the puts of objects with records of partition p wait. It
// returns a channel that gets a value for each that begins to wait, and what lets them go
// on.
func (x *transportUnderTest) holdPuts(p domain.PartitionID) (begun <-chan struct{}, release func()) {
	entered, gate := make(chan struct{}, 1024), make(chan struct{})
	x.store.onPut(func(ctx context.Context, key string, body []byte) error {
		if holdsPartition(body, p) {
			entered <- struct{}{}
			select {
			case <-gate:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return x.store.SegmentStore.Put(ctx, key, body)
	})
	release = sync.OnceFunc(func() { close(gate) })
	x.Cleanup(release)
	return entered, release
}

func holdsPartition(object []byte, p domain.PartitionID) bool {
	s, err := segment.Open(object)
	if err != nil {
		panic(fmt.Sprintf("an object that is no segment was put: %v", err))
	}
	return slices.ContainsFunc(s.Extents, func(e segment.Extent) bool { return e.Partition == p })
}
