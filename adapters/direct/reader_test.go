package direct_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// all asks for all four partitions from their start.
func (r *rig) all() []ports.FetchPosition {
	var positions []ports.FetchPosition
	for p := range domain.PartitionID(4) {
		positions = append(positions, ports.FetchPosition{PartitionKey: r.key(p)})
	}
	return positions
}

func TestFetch_ReadsAdjacentExtentsAtOnce(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		for round := range 3 {
			answers := r.append(t.Context(), r.batch(2, batch.NoProducer, "c"), r.batch(0, batch.NoProducer, "a"), r.batch(1, batch.NoProducer, "b"))
			for range 3 {
				if a := <-answers; a.Base != domain.Offset(round) {
					t.Fatalf("batch %d at %d, %v", a.i, a.Base, a.Err)
				}
			}
		}
		got, err := r.reader.Fetch(t.Context(), ports.FetchRequest{Partitions: r.all(), MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		for p, f := range got[:3] {
			if n := len(decode(t, f.Batches)); f.Err != nil || n != 3 {
				t.Errorf("partition %d: %d records, %v", p, n, f.Err)
			}
		}
		if fetched := r.tel.Totals(ports.Fetched); fetched.Count != 3 || fetched.Events != 1 {
			t.Errorf("%d reads for 3 objects", fetched.Count)
		}
	})
}

func TestFetch_ReadsPartByPartWhatCannotBeReadAtOnce(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		answers := r.append(t.Context(), r.batch(0, batch.NoProducer, "a"), r.batch(1, batch.NoProducer, "b"))
		<-answers
		<-answers
		r.store.read.set(func(ctx context.Context, key string, position, length int64) ([]byte, error) {
			if position+length > 44+69 { // the header, and the first batch
				return nil, ports.StorageError("read", ports.Definite, domain.ErrCorrupt)
			}
			return r.store.Segments.ReadRange(ctx, key, position, length)
		})
		got, err := r.reader.Fetch(t.Context(), ports.FetchRequest{Partitions: r.all(), MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(decode(t, got[0].Batches)); n != 1 || got[0].Err != nil {
			t.Errorf("partition 0: %d records, %v", n, got[0].Err)
		}
		var c *domain.CorruptError
		if !errors.As(got[1].Err, &c) || c.Segment == (domain.SegmentID{}) {
			t.Errorf("partition 1: %v, want a *domain.CorruptError that names the segment", got[1].Err)
		}
		if n := r.tel.Count(ports.CorruptionFound); n != 1 {
			t.Errorf("%d corruptions reported, want 1", n)
		}
	})
}

func TestFetch_PlansAgainWhenAnObjectHasMoved(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "a")), 0)
		reads := 0
		r.store.read.set(func(ctx context.Context, key string, position, length int64) ([]byte, error) {
			if reads++; reads%2 == 1 {
				return nil, ports.StorageError("read", ports.Definite, ports.ErrObjectNotFound)
			}
			return r.store.Segments.ReadRange(ctx, key, position, length)
		})
		if v := fmt.Sprint(r.values(0)); v != "[a]" {
			t.Errorf("read %s, want [a]", v)
		}
		if o, err := r.reader.OffsetAt(t.Context(), r.key(0), time.UnixMilli(500)); o != 0 || err != nil {
			t.Errorf("OffsetAt: %d, %v", o, err)
		}
		if n := r.tel.Count(ports.CorruptionFound); n != 0 {
			t.Errorf("%d corruptions reported, want 0", n)
		}
	})
}

func TestFetch_ReportsAReadThatFailed(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "a")), 0)
		r.store.read.set(func(context.Context, string, int64, int64) ([]byte, error) {
			return nil, ports.StorageError("read", ports.Transient, errors.New("busy"))
		})
		got, err := r.reader.Fetch(t.Context(), ports.FetchRequest{Partitions: r.all()[:1], MaxBytes: 1})
		if err != nil || ports.KindOf(got[0].Err) != ports.Transient || got[0].Batches != nil {
			t.Errorf("fetch gave %+v, %v; want the transient error", got, err)
		}
	})
}

func TestFetch_TellsOfExtentsThatMetadataHasLostOrMixedUp(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		for i, v := range []string{"a", "b", "c"} {
			r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, v)), domain.Offset(i))
		}
		for name, damage := range map[string]func(p *ports.Plan){
			"none at all":      func(p *ports.Plan) { p.Extents = nil },
			"the first lost":   func(p *ports.Plan) { p.Extents = p.Extents[1:] },
			"one lost between": func(p *ports.Plan) { p.Extents = slices.Delete(p.Extents, 1, 2) },
			"one twice":        func(p *ports.Plan) { p.Extents = slices.Insert(p.Extents, 1, p.Extents[0]) },
			"turned around":    func(p *ports.Plan) { p.Extents[0].Base, p.Extents[0].Last = 1, -1 },
			"without bytes":    func(p *ports.Plan) { p.Extents[1].Length = 0 },
			"before its start": func(p *ports.Plan) { p.Extents[1].Position = -5 },
			"behind the end":   func(p *ports.Plan) { p.HighWatermark = 2 },
		} {
			r.meta.plan.set(func(ctx context.Context, requests []ports.PlanRequest) ([]ports.Plan, error) {
				plans, err := r.meta.Metadata.Plan(ctx, requests)
				for i := range requests {
					if requests[i].PartitionKey == r.key(0) {
						damage(&plans[i])
					}
				}
				return plans, err
			})
			found := r.tel.Count(ports.CorruptionFound)
			got, err := r.reader.Fetch(t.Context(), ports.FetchRequest{Partitions: r.all(), MaxBytes: 1 << 20, MaxWait: time.Hour})
			if err != nil {
				t.Fatal(name, err)
			}
			if !errors.Is(got[0].Err, domain.ErrCorrupt) || got[0].Batches != nil || got[1].Err != nil {
				t.Errorf("%s: %d bytes, %v; partition 1: %v", name, len(got[0].Batches), got[0].Err, got[1].Err)
			}
			if n := r.tel.Count(ports.CorruptionFound) - found; n != 1 {
				t.Errorf("%s: %d corruptions reported, want 1", name, n)
			}
		}
	})
}

func TestFetch_IdleCostsNothing(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		done := make(chan error)
		go func() {
			_, err := r.reader.Fetch(t.Context(), ports.FetchRequest{Partitions: r.all(), MaxBytes: 1 << 20, MaxWait: time.Hour})
			done <- err
		}()
		synctest.Wait()
		before := r.meta.plans.Load()
		time.Sleep(59 * time.Minute)
		if n := r.meta.plans.Load() - before; n != 0 {
			t.Errorf("%d plans while nothing happened", n)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := r.tel.Totals(ports.Fetched).Count; n != 0 {
			t.Errorf("%d object requests for nothing", n)
		}
	})
}

func TestFetch_UsesTheShareOfEmptyPartitions(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		value := string(make([]byte, 10_000))
		const batches = 40
		for i := range domain.Offset(batches) {
			r.stored(r.append(t.Context(), r.batch(3, batch.NoProducer, value)), i)
		}
		got, err := r.reader.Fetch(t.Context(), ports.FetchRequest{Partitions: r.all(), MaxBytes: 350_000})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(got[3].Batches); n < 300_000 || n > 350_000 {
			t.Errorf("%d bytes of the one partition with records, asked for 350000", n)
		}
	})
}

// betweenPlans fetches partition 3, which has 40 records in as many extents and
// of which a fetch therefore makes two plans, and calls change between those.
func betweenPlans(t *testing.T, change func(r *rig)) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		value := string(make([]byte, 10_000))
		for i := range domain.Offset(40) {
			r.stored(r.append(t.Context(), r.batch(3, batch.NoProducer, value)), i)
		}
		plans := 0
		r.meta.plan.set(func(ctx context.Context, requests []ports.PlanRequest) ([]ports.Plan, error) {
			if plans++; plans == 2 {
				change(r)
			}
			return r.meta.Metadata.Plan(ctx, requests)
		})
		positions := r.all()
		positions[3].Offset = 3
		got, err := r.reader.Fetch(t.Context(), ports.FetchRequest{Partitions: positions, MaxBytes: 350_000})
		if err != nil || plans != 2 {
			t.Fatalf("%d plans, %v: this test is about two", plans, err)
		}
		next := domain.Offset(3)
		for rest := got[3].Batches; len(rest) > 0; next++ {
			h, err := batch.ParseHeader(rest)
			if err != nil || h.BaseOffset != next {
				t.Fatalf("batch at %d, want %d: %v", h.BaseOffset, next, err)
			}
			rest = rest[h.Length:]
		}
		if got[3].Err != nil || next < 7 {
			t.Errorf("read up to %d, %v", next, got[3].Err)
		}
		if n := r.tel.Count(ports.CorruptionFound); n != 0 {
			t.Errorf("%d corruptions reported, want 0", n)
		}
	})
}

func TestFetch_ATrimBetweenItsPlansIsNoErrorOfWhatIsBehindIt(t *testing.T) {
	betweenPlans(t, func(r *rig) {
		if _, err := r.meta.Trim(t.Context(), r.key(3), 5); err != nil {
			t.Error(err)
		}
	})
}

func TestFetch_ACompactionBetweenItsPlansIsNoCorruption(t *testing.T) {
	betweenPlans(t, func(r *rig) {
		refs, err := r.meta.Reserve(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		w := segment.NewWriter(nil, r.meta.ClusterID(), refs[0].ID)
		copied := commit.Copy{Position: w.Len()}
		for _, row := range r.meta.Snapshot().Extents {
			b, err := r.store.Segments.ReadRange(t.Context(), segment.Key(row.Segment), row.Position, row.Length)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Add(row.Topic, row.Partition, b); err != nil {
				t.Fatal(err)
			}
			copied.Of = append(copied.Of, row)
		}
		object, crc, err := w.Close()
		if err == nil {
			err = r.store.Segments.Put(t.Context(), refs[0].Key, object)
		}
		if err != nil {
			t.Fatal(err)
		}
		held, err := r.meta.Replace(t.Context(), commit.Compaction{ID: refs[0].ID, Size: int64(len(object)), CRC32C: crc, Copies: []commit.Copy{copied}})
		if held != 1 || err != nil {
			t.Errorf("compaction: %d held, %v", held, err)
		}
	})
}

func TestFetch_AMissingObjectIsNoCorruptionWhenNobodyCanSayWhetherItMoved(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "a")), 0)
		r.store.read.set(func(context.Context, string, int64, int64) ([]byte, error) {
			return nil, ports.StorageError("read", ports.Definite, ports.ErrObjectNotFound)
		})
		plans := 0
		r.meta.plan.set(func(ctx context.Context, requests []ports.PlanRequest) ([]ports.Plan, error) {
			if plans++; plans > 1 {
				return nil, ports.MetadataError("plan", ports.Transient, errors.New("down"))
			}
			return r.meta.Metadata.Plan(ctx, requests)
		})
		got, err := r.reader.Fetch(t.Context(), ports.FetchRequest{Partitions: r.all()[:1], MaxBytes: 1})
		if err != nil || ports.KindOf(got[0].Err) != ports.Transient || r.tel.Count(ports.CorruptionFound) != 0 {
			t.Errorf("fetch gave %+v, %v; want the transient error", got, err)
		}
	})
}

func TestOffsetAt_SaysWhatIsMissing(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "a")), 0)
		r.store.read.set(func(context.Context, string, int64, int64) ([]byte, error) {
			return nil, ports.StorageError("read", ports.Definite, ports.ErrObjectNotFound)
		})
		_, err := r.reader.OffsetAt(t.Context(), r.key(0), time.UnixMilli(0))
		if !errors.Is(err, domain.ErrCorrupt) || r.tel.Count(ports.CorruptionFound) != 1 {
			t.Errorf("OffsetAt: %v, want corruption, reported", err)
		}
	})
}

// The first extent with the time in it is trimmed in its middle, so the search goes on
// behind it; what it would look at next is trimmed meanwhile.
func TestOffsetAt_GoesOnBehindATrimThatComesBetween(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		var falling batch.Builder
		falling.Reset(nil)
		falling.Append(2000, nil, []byte("new"), nil)
		falling.Append(1000, nil, []byte("old"), nil)
		encoded, err := falling.Encode(nil, nil, batch.NoProducer)
		if err != nil {
			t.Fatal(err)
		}
		for i := range domain.Offset(4) {
			r.stored(r.append(t.Context(), ports.Batch{PartitionKey: r.key(0), Bytes: encoded}), 2*i)
		}
		trim := func(to domain.Offset) {
			if _, err := r.meta.Trim(t.Context(), r.key(0), to); err != nil {
				t.Error(err)
			}
		}
		trim(1)
		plans := 0
		r.meta.plan.set(func(ctx context.Context, requests []ports.PlanRequest) ([]ports.Plan, error) {
			if plans++; plans == 2 {
				trim(5)
			}
			return r.meta.Metadata.Plan(ctx, requests)
		})
		if o, err := r.reader.OffsetAt(t.Context(), r.key(0), time.UnixMilli(1500)); err != nil || o != 6 {
			t.Errorf("OffsetAt: %d, %v after %d plans, want 6", o, err, plans)
		}
	})
}

func TestOffsetAt_NeedsTheCodecOfTheBatch(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		var b batch.Builder
		b.Reset(nil)
		b.Append(5, nil, make([]byte, 100), nil)
		encoded, err := b.Encode(nil, halving{}, batch.NoProducer)
		if err != nil {
			t.Fatal(err)
		}
		r.stored(r.append(t.Context(), ports.Batch{PartitionKey: r.key(0), Bytes: encoded}), 0)
		if _, err := r.reader.OffsetAt(t.Context(), r.key(0), time.UnixMilli(0)); !errors.Is(err, domain.ErrCompression) {
			t.Errorf("without the codec: %v, want ErrCompression", err)
		}
		with := direct.NewReader(r.meta, r.store, memory.NewTelemetry(), direct.DefaultReaderConfig(halving{}))
		if o, err := with.OffsetAt(t.Context(), r.key(0), time.UnixMilli(5)); err != nil || o != 0 {
			t.Errorf("with the codec: %d, %v", o, err)
		}
	})
}

// halving is a codec for what ends in zeros.
type halving struct{}

func (halving) ID() batch.CodecID { return batch.LZ4 }

func (halving) Compress(dst, src []byte) ([]byte, error) {
	return append(append(dst, byte(len(src))), src[:len(src)/2]...), nil
}

func (halving) Decompress(dst, src []byte, _ int) ([]byte, error) {
	whole := make([]byte, src[0])
	copy(whole, src[1:])
	return append(dst, whole...), nil
}
