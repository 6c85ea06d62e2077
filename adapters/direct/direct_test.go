package direct_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a writer and a reader on stores in memory, whose calls a test may
// change.
type rig struct {
	t      testing.TB
	meta   *log
	store  *store
	tel    *memory.Telemetry
	writer *direct.Writer
	reader *direct.Reader
	topic  domain.Topic
}

// Functions that take over a call of a store.
type (
	reserveFunc = func(ctx context.Context, n int) ([]ports.SegmentRef, error)
	commitFunc  = func(ctx context.Context, s []commit.Segment) ([]ports.CommitResult, error)
	planFunc    = func(ctx context.Context, r []ports.PlanRequest) ([]ports.Plan, error)
	putFunc     = func(ctx context.Context, key string, body []byte) error
	readFunc    = func(ctx context.Context, key string, position, length int64) ([]byte, error)
)

// log is a metadata store whose calls a test may take over.
type log struct {
	*memory.Metadata
	reserve hook[reserveFunc]
	commit  hook[commitFunc]
	plan    hook[planFunc]
	plans   atomic.Int64
}

func (l *log) Reserve(ctx context.Context, n int) ([]ports.SegmentRef, error) {
	return l.reserve.or(l.Metadata.Reserve)(ctx, n)
}

func (l *log) Commit(ctx context.Context, s []commit.Segment) ([]ports.CommitResult, error) {
	return l.commit.or(l.Metadata.Commit)(ctx, s)
}

func (l *log) Plan(ctx context.Context, r []ports.PlanRequest) ([]ports.Plan, error) {
	l.plans.Add(1)
	return l.plan.or(l.Metadata.Plan)(ctx, r)
}

// store is a segment store whose calls a test may take over.
type store struct {
	*memory.Segments
	put  hook[putFunc]
	read hook[readFunc]
}

func (s *store) Put(ctx context.Context, key string, body []byte) error {
	return s.put.or(s.Segments.Put)(ctx, key, body)
}

func (s *store) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	return s.read.or(s.Segments.ReadRange)(ctx, key, position, length)
}

// hook holds what takes a call over, if anything does.
type hook[F any] struct{ f atomic.Pointer[F] }

func (h *hook[F]) set(f F) { h.f.Store(&f) }

func (h *hook[F]) or(otherwise F) F {
	if f := h.f.Load(); f != nil {
		return *f
	}
	return otherwise
}

func newRig(t testing.TB, change func(*direct.Config)) *rig {
	r := &rig{
		t:     t,
		meta:  &log{Metadata: memory.NewMetadata(memory.MetadataOptions{Seed: 1})},
		store: &store{Segments: memory.NewSegments()},
		tel:   memory.NewTelemetry(),
	}
	cfg := direct.DefaultConfig()
	cfg.Seed = 1
	if change != nil {
		change(&cfg)
	}
	w, err := direct.NewWriter(r.meta, r.store, r.tel, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.writer = w
	r.reader = direct.NewReader(r.meta, r.store, r.tel, direct.DefaultReaderConfig())
	r.topic, err = r.meta.CreateTopic(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) close() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.writer.Close(ctx); err != nil {
		r.t.Errorf("Close: %v", err)
	}
}

func (r *rig) key(p domain.PartitionID) commit.PartitionKey {
	return commit.PartitionKey{Topic: r.topic.ID, Partition: p}
}

// batch makes a batch of n records for partition p.
func (r *rig) batch(p domain.PartitionID, producer batch.Producer, values ...string) ports.Batch {
	r.t.Helper()
	var b batch.Builder
	b.Reset(nil)
	for i, v := range values {
		b.Append(int64(1000+i), nil, []byte(v), nil)
	}
	encoded, err := b.Encode(nil, nil, producer)
	if err != nil {
		r.t.Fatal(err)
	}
	return ports.Batch{PartitionKey: r.key(p), Bytes: encoded}
}

// answer is one call of settle.
type answer struct {
	i int
	ports.AppendResult
}

// append appends the batches and returns where their answers arrive.
func (r *rig) append(ctx context.Context, batches ...ports.Batch) <-chan answer {
	r.t.Helper()
	answers := make(chan answer, 2*len(batches)) // room for settling twice
	err := r.writer.Append(ctx, batches, func(i int, res ports.AppendResult) { answers <- answer{i, res} })
	if err != nil {
		r.t.Fatalf("Append: %v", err)
	}
	return answers
}

// stored fails the test unless the next answer says that the batch is at base.
func (r *rig) stored(answers <-chan answer, base domain.Offset) {
	r.t.Helper()
	if a := <-answers; a.Err != nil || a.Base != base {
		r.t.Errorf("settled with base %d and error %v, want base %d", a.Base, a.Err, base)
	}
}

// values reads the whole partition.
func (r *rig) values(p domain.PartitionID) []string {
	r.t.Helper()
	var values []string
	for next := domain.Offset(0); ; {
		got, err := r.reader.Fetch(r.t.Context(), ports.FetchRequest{
			Partitions: []ports.FetchPosition{{PartitionKey: r.key(p), Offset: next}}, MaxBytes: 1 << 20,
		})
		if err == nil {
			err = got[0].Err
		}
		if err != nil {
			r.t.Fatalf("Fetch partition %d from %d: %v", p, next, err)
		}
		if len(got[0].Batches) == 0 {
			return values
		}
		for _, rec := range decode(r.t, got[0].Batches) {
			if rec.Offset != next {
				r.t.Fatalf("partition %d: offset %d where %d was due", p, rec.Offset, next)
			}
			values = append(values, string(rec.Value))
			next++
		}
	}
}

func decode(t testing.TB, b []byte) []batch.Record {
	t.Helper()
	var all []batch.Record
	for len(b) > 0 {
		h, err := batch.ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		records, err := batch.NewDecoder().Decode(b[:h.Length:h.Length])
		if err != nil {
			t.Fatal(err)
		}
		for rec := (batch.Record{}); records.Next(&rec); {
			all = append(all, rec)
		}
		if err := records.Err(); err != nil {
			t.Fatal(err)
		}
		b = b[h.Length:]
	}
	return all
}

func TestAppend_StoresAndReadsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		answers := r.append(t.Context(),
			r.batch(1, batch.NoProducer, "a", "b"), r.batch(0, batch.NoProducer, "c"), r.batch(1, batch.NoProducer, "d"))
		got := map[int]domain.Offset{}
		for range 3 {
			a := <-answers
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			got[a.i] = a.Base
		}
		if want := (map[int]domain.Offset{0: 0, 1: 0, 2: 2}); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("bases %v, want %v", got, want)
		}
		if v := fmt.Sprint(r.values(1)); v != "[a b d]" {
			t.Errorf("partition 1 holds %s, want [a b d]", v)
		}
		if n := r.tel.Count(ports.SegmentPut); n != 1 {
			t.Errorf("%d objects for one Append, want 1", n)
		}
		r.close()
	})
}

func TestClose_RefusesLaterAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.close()
		r.close()
		err := r.writer.Append(t.Context(), []ports.Batch{r.batch(0, batch.NoProducer, "a")}, func(int, ports.AppendResult) {
			t.Error("settled a batch that was not taken over")
		})
		if !errors.Is(err, domain.ErrClosed) {
			t.Errorf("Append after Close: %v, want ErrClosed", err)
		}
	})
}
