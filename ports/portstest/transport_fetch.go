package portstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func fetchFromAnyOffset(x *transportUnderTest) {
	s := x.producer()
	n := 0
	for size := range 5 {
		var values []string
		for range size + 1 {
			values = append(values, fmt.Sprint(n))
			n++
		}
		x.append(s.batch(0, values...)).stored()
	}
	for from := range domain.Offset(n) {
		got := x.fetch(ports.FetchRequest{Partitions: x.positions(from, 0), MaxBytes: 1 << 20})[0]
		x.ok(got.Err)
		records := x.records(got.Batches)
		if len(records) == 0 || records[0].Offset > from {
			x.Fatalf("fetch from %d begins with other offsets", from)
		}
		for i, r := range records {
			if r.Offset != records[0].Offset+domain.Offset(i) || string(r.Value) != fmt.Sprint(r.Offset) {
				x.Fatalf("fetch from %d: record %d has offset %d and value %s", from, i, r.Offset, r.Value)
			}
		}
		if got.LogStart != 0 || got.HighWatermark != domain.Offset(n) {
			x.Fatalf("bounds %d to %d, want 0 to %d", got.LogStart, got.HighWatermark, n)
		}
	}
}

func fetchErrors(x *transportUnderTest) {
	s := x.producer()
	x.append(s.batch(0, "a", "b", "c"), s.batch(1, "d"), s.batch(2, "e", "f")).stored()
	_, err := x.meta.Trim(x.Context(), x.key(2), 1)
	x.ok(err)
	positions := append(x.positions(4, 0), x.positions(0, 1, 2, 99)...)
	positions = append(positions, x.positions(-1, 1)...)
	positions = append(positions, ports.FetchPosition{PartitionKey: commit.PartitionKey{Topic: domain.TopicID{1}}})
	start := time.Now()
	got := x.fetch(ports.FetchRequest{Partitions: positions, MaxBytes: 1 << 20, MaxWait: time.Minute})
	if took := time.Since(start); took >= time.Minute {
		x.Errorf("an answer waited for %s", took)
	}
	x.outOfRange(got[0], 4, 0, 3)
	x.outOfRange(got[2], 0, 1, 2)
	x.outOfRange(got[4], -1, 0, 1)
	if got[1].Err != nil || len(x.records(got[1].Batches)) != 1 {
		x.Errorf("partition 1: %v, want its record", got[1].Err)
	}
	if !errors.Is(got[3].Err, domain.ErrInvalidPartition) {
		x.Errorf("partition 99 of 8: %v", got[3].Err)
	}
	if !errors.Is(got[5].Err, domain.ErrTopicNotFound) {
		x.Errorf("no such topic: %v", got[5].Err)
	}
}

func (x *transportUnderTest) outOfRange(got ports.FetchedPartition, offset, start, watermark domain.Offset) {
	x.Helper()
	var e *domain.OutOfRangeError
	if !errors.As(got.Err, &e) {
		x.Errorf("offset %d: %v, want out of range", offset, got.Err)
		return
	}
	if e.Offset != offset || e.LogStart != start || e.HighWatermark != watermark || len(got.Batches) != 0 {
		x.Errorf("offset %d: %+v, want bounds %d to %d", offset, e, start, watermark)
	}
}

func fetchNothing(x *transportUnderTest) {
	x.fetch(ports.FetchRequest{MaxBytes: 1 << 20, MaxWait: time.Hour})
	got := x.fetch(ports.FetchRequest{Partitions: x.positions(0, 0), MaxBytes: 1 << 20})[0]
	if got.Err != nil || got.Batches != nil || got.HighWatermark != 0 {
		x.Errorf("an empty partition: %+v", got)
	}
	x.append(x.producer().batch(0, "a")).stored()
	got = x.fetch(ports.FetchRequest{Partitions: x.positions(0, 0), MaxWait: time.Hour})[0]
	if got.Err != nil || len(got.Batches) != 0 || got.HighWatermark != 1 {
		x.Errorf("the bounds alone: %+v", got)
	}
}

func fetchMaxBytes(x *transportUnderTest) {
	s := x.producer()
	large := make([]byte, 1000)
	for range 20 {
		x.append(s.batch(0, string(large)), s.batch(1, string(large))).stored()
	}
	for _, limit := range []int64{1, 1500, 2500, 10_000} {
		got := x.fetch(ports.FetchRequest{Partitions: x.positions(0, 0, 1), MaxBytes: limit})
		total := int64(len(got[0].Batches) + len(got[1].Batches))
		if total == 0 || total > max(limit, 1200) {
			x.Errorf("%d bytes for a limit of %d", total, limit)
		}
	}
	if got := x.values(0); len(got) != 20 {
		x.Errorf("%d records, want 20", len(got))
	}
}

func fetchFair(x *transportUnderTest) {
	s := x.producer()
	const partitions = 8
	var all []domain.PartitionID
	for p := range domain.PartitionID(partitions) {
		x.append(s.batch(p, "a"), s.batch(p, "b")).stored()
		all = append(all, p)
	}
	seen := map[int]bool{}
	for range 2 * partitions {
		for i, got := range x.fetch(ports.FetchRequest{Partitions: x.positions(0, all...), MaxBytes: 1}) {
			if len(got.Batches) > 0 {
				seen[i] = true
			}
		}
	}
	if len(seen) != partitions {
		x.Errorf("%d of %d partitions had their turn in %d fetches", len(seen), partitions, 2*partitions)
	}
}

func fetchWaits(x *transportUnderTest) {
	s := x.producer()
	x.append(s.batch(1, "old")).stored()
	type result struct {
		got []ports.FetchedPartition
		err error
	}
	results := make(chan result, 1)
	go func() {
		positions := append(x.positions(0, 0), x.positions(1, 1)...)
		got, err := x.fetcher.Fetch(x.Context(), ports.FetchRequest{Partitions: positions, MaxBytes: 1 << 20, MaxWait: time.Hour})
		results <- result{got, err}
	}()
	x.append(s.batch(2, "of no interest")).stored()
	select {
	case r := <-results:
		x.Fatalf("the fetch did not wait: %v", r.err)
	default:
	}
	x.append(s.batch(1, "new")).stored()
	r := <-results
	x.ok(r.err)
	if records := x.records(r.got[1].Batches); len(records) != 1 || string(records[0].Value) != "new" || records[0].Offset != 1 {
		x.Errorf("the fetch got %v", records)
	}
}

func fetchMaxWait(x *transportUnderTest) {
	const wait = 50 * time.Millisecond
	start := time.Now()
	got := x.fetch(ports.FetchRequest{Partitions: x.positions(0, 0, 1), MaxBytes: 1 << 20, MaxWait: wait})
	if took := time.Since(start); took < wait {
		x.Errorf("returned after %s, before %s", took, wait)
	}
	if got[0].Err != nil || got[1].Err != nil || len(got[0].Batches)+len(got[1].Batches) > 0 {
		x.Errorf("empty partitions gave %+v", got)
	}
}

func fetchCancelled(x *transportUnderTest) {
	ctx, cancel := context.WithCancel(x.Context())
	errs := make(chan error, 1)
	go func() {
		_, err := x.fetcher.Fetch(ctx, ports.FetchRequest{Partitions: x.positions(0, 0), MaxBytes: 1, MaxWait: time.Hour})
		errs <- err
	}()
	x.append(x.producer().batch(1, "of no interest")).stored()
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		x.Errorf("fetch: %v, want context.Canceled", err)
	}
	if _, err := x.fetcher.Fetch(ctx, ports.FetchRequest{Partitions: x.positions(0, 1), MaxBytes: 1}); !errors.Is(err, context.Canceled) {
		x.Errorf("fetch with an ended context: %v, want context.Canceled", err)
	}
}

func fetchOwned(x *transportUnderTest) {
	x.append(x.producer().batch(0, "a")).stored()
	got := x.fetch(ports.FetchRequest{Partitions: x.positions(0, 0), MaxBytes: 1 << 20})[0]
	clear(got.Batches)
	x.holds(0, "a")
}

// fetchDamaged damages what the store reads of a partition's second object. The
// numbers are places in the header of a record batch: magic, last offset delta, record
// count.
func fetchDamaged(x *transportUnderTest) {
	s := x.producer()
	x.append(s.batch(0, "a")).stored()
	second := s.batch(0, "long enough for two records")
	x.append(second, s.batch(1, "c")).stored()
	x.append(s.batch(0, "d")).stored()
	damages := map[string]func([]byte) ([]byte, error){
		"object missing": func([]byte) ([]byte, error) {
			return nil, ports.StorageError("read", ports.Definite, ports.ErrObjectNotFound)
		},
		"object short": func([]byte) ([]byte, error) {
			return nil, ports.StorageError("read", ports.Definite, domain.ErrCorrupt)
		},
		"read short":      func(b []byte) ([]byte, error) { return b[:len(b)-1], nil },
		"wrong magic":     func(b []byte) ([]byte, error) { b[16] = 1; return b, nil },
		"another's count": func(b []byte) ([]byte, error) { b[26], b[60] = 1, 2; return b, nil },
	}
	for name, damage := range damages {
		x.store.onRead(func(b []byte) ([]byte, error) {
			if h, err := batch.ParseHeader(b); err == nil && h.Producer.Sequence == 1 {
				return damage(b)
			}
			return b, nil
		})
		got := x.fetch(ports.FetchRequest{Partitions: x.positions(0, 0), MaxBytes: 1 << 20})[0]
		if records := x.records(got.Batches); got.Err != nil || len(records) != 1 {
			x.Errorf("%s: %d records before it, error %v; want 1 and none", name, len(records), got.Err)
		}
		both := append(x.positions(1, 0), x.positions(0, 1)...)
		fetched := x.fetch(ports.FetchRequest{Partitions: both, MaxBytes: 1 << 20})
		var c *domain.CorruptError
		if got := fetched[0]; !errors.As(got.Err, &c) || len(got.Batches) > 0 {
			x.Errorf("%s: fetch of it gives %d bytes, error %v; want a *domain.CorruptError", name, len(got.Batches), got.Err)
		}
		after := x.fetch(ports.FetchRequest{Partitions: x.positions(2, 0), MaxBytes: 1 << 20})[0]
		if records := x.records(after.Batches); after.Err != nil || len(records) != 1 || records[0].Offset != 2 {
			x.Errorf("%s: the record after it cannot be read: %v", name, after.Err)
		}
		x.store.onRead(nil)
	}
	x.holds(0, "a", "long enough for two records", "d")
}

// fetchSources compares what a fetch says of its batches with the extents. A
// fetcher that tells nothing would be right too; all of ours tell.
func fetchSources(x *transportUnderTest) {
	s := x.producer()
	for range 3 { // objects, with two batches of the partition each
		x.append(s.batch(0, strings.Repeat("a", 300), "b"), s.batch(1, "another's"), s.batch(0, "c")).stored()
	}
	whole := x.fetch(ports.FetchRequest{Partitions: x.positions(0, 0), MaxBytes: 1 << 20})[0]
	for _, offset := range []domain.Offset{0, 2, 4, 8} {
		for _, most := range []int64{1, int64(len(whole.Batches)) / 2, 1 << 20} {
			got := x.fetch(ports.FetchRequest{Partitions: x.positions(offset, 0), MaxBytes: most})[0]
			x.ok(got.Err)
			for at := 0; at < len(got.Batches); {
				h, err := batch.ParseHeader(got.Batches[at:])
				x.ok(err)
				plans, err := x.meta.Plan(x.Context(), []ports.PlanRequest{{PartitionKey: x.key(0), From: h.BaseOffset, MaxBytes: 1}})
				x.ok(err)
				e := plans[0].Extents[0]
				id, position, known := got.Sources.Locate(int64(at))
				if !known || id != e.Segment || position < e.Position || position+int64(h.Length) > e.Position+e.Length {
					x.Fatalf("from offset %d, %d bytes: the batch at offset %d is said to be at %d of segment %s (%t), want within %d bytes at %d of %s",
						offset, most, h.BaseOffset, position, id, known, e.Length, e.Position, e.Segment)
				}
				stored, err := x.store.ReadRange(x.Context(), e.ObjectKey, position, int64(h.Length))
				x.ok(err)
				batch.SetBaseOffset(stored, h.BaseOffset)
				if !bytes.Equal(stored, got.Batches[at:at+h.Length]) {
					x.Fatalf("the batch at offset %d is not at %d", h.BaseOffset, position)
				}
				at += h.Length
			}
		}
	}
}

// offsetAt looks for times in a partition whose timestamps rise and fall.
func offsetAt(x *transportUnderTest) {
	s := x.producer()
	stamps := []int64{10, 30, 20, 20, 50, 40}
	for _, group := range [][]int64{stamps[:3], stamps[3:4], stamps[4:]} {
		x.append(x.stamped(s, 0, group...)).stored()
	}
	for ms := int64(0); ms <= 60; ms += 5 {
		want := domain.Offset(len(stamps))
		for i, at := range stamps {
			if at >= ms {
				want = domain.Offset(i)
				break
			}
		}
		got, err := x.fetcher.OffsetAt(x.Context(), x.key(0), time.UnixMilli(ms))
		if err != nil || got != want {
			x.Errorf("time %d: offset %d (%v), want %d", ms, got, err, want)
		}
	}
	got, err := x.fetcher.OffsetAt(x.Context(), x.key(0), time.UnixMilli(20).Add(time.Nanosecond))
	if err != nil || got != 1 {
		x.Errorf("a nanosecond after 20 ms: offset %d (%v), want 1", got, err)
	}
	_, err = x.meta.Trim(x.Context(), x.key(0), 2)
	x.ok(err)
	if got, err := x.fetcher.OffsetAt(x.Context(), x.key(0), time.UnixMilli(25)); err != nil || got != 4 {
		x.Errorf("time 25 after a trim to 2: offset %d (%v), want 4", got, err)
	}
}

// stamped makes a batch with a record for each timestamp.
func (x *transportUnderTest) stamped(s *source, p domain.PartitionID, stamps ...int64) ports.Batch {
	x.Helper()
	producer := s.producer
	producer.Sequence = s.next[p]
	s.next[p] = producer.Sequence.Add(int32(len(stamps)))
	var b batch.Builder
	b.Reset(nil)
	for _, ms := range stamps {
		b.Append(ms, nil, []byte("value"), nil)
	}
	bytes, err := b.Encode(nil, nil, producer)
	x.ok(err)
	return ports.Batch{PartitionKey: x.key(p), Bytes: bytes}
}

func offsetAtErrors(x *transportUnderTest) {
	if got, err := x.fetcher.OffsetAt(x.Context(), x.key(0), time.UnixMilli(0)); err != nil || got != 0 {
		x.Errorf("an empty partition: offset %d (%v), want 0", got, err)
	}
	if _, err := x.fetcher.OffsetAt(x.Context(), x.key(8), time.UnixMilli(0)); !errors.Is(err, domain.ErrInvalidPartition) {
		x.Errorf("partition 8 of 8: %v, want ErrInvalidPartition", err)
	}
	if _, err := x.fetcher.OffsetAt(x.Context(), commit.PartitionKey{Topic: domain.TopicID{1}}, time.UnixMilli(0)); !errors.Is(err, domain.ErrTopicNotFound) {
		x.Errorf("no such topic: %v, want ErrTopicNotFound", err)
	}
}
