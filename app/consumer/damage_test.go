package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// Where the fields begin and end that no checksum covers. A fetcher sets the
// base offset itself; nobody reads the leader epoch.
const (
	baseOffsetEnds   = 8
	leaderEpochStart = 12
	leaderEpochEnds  = 16
)

func TestEveryFlippedBitOfABatch_IsFoundBeforeARecordIsReturned(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		for _, records := range []int{1, 50} { // The one stays uncompressed, the other does not.
			base := w.log(key(topic, 0)).end
			w.append(topic, 0, records)
			size := len(w.log(key(topic, 0)).from(base, 0))
			c := w.reader(t)
			for bit := range 8 * size {
				if at := bit / 8; at < baseOffsetEnds || at >= leaderEpochStart && at < leaderEpochEnds {
					continue
				}
				w.change(func() { w.fault = corruptAt(0, base, bit) })
				must(t, c.Assign(t.Context(), "orders", consumer.At(base)))
				messages, err := poll(t, c, 100)
				if !errors.Is(err, domain.ErrCorrupt) || len(messages) != 0 {
					t.Fatalf("bit %d of byte %d: %d messages, %v", bit%8, bit/8, len(messages), err)
				}
			}
			w.change(func() { w.fault = nil })
			must(t, c.Assign(t.Context(), "orders", consumer.At(base)))
			wantOffsets(t, read(t, c, records), 0, base, base+domain.Offset(records))
		}
	})
}

func TestEveryTruncationOfABatch_IsFound(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 3)
		size := len(w.log(key(topic, 0)).batches[0])
		c := w.reader(t)
		for cut := 1; cut < size; cut++ {
			w.change(func() {
				w.fault = func(_ commit.PartitionKey, _ domain.Offset, f *ports.FetchedPartition) {
					f.Batches = f.Batches[:size-cut]
				}
			})
			must(t, c.Assign(t.Context(), "orders", consumer.Start()))
			if messages, err := poll(t, c, 100); !errors.Is(err, domain.ErrCorrupt) || len(messages) != 0 {
				t.Fatalf("%d bytes short: %d messages, %v", cut, len(messages), err)
			}
		}
	})
}

// Whatever finds the damage: the header's check at the fetch, the checksum at
// the batch, or nothing but the record itself.
func TestDamagedBatch_IsToldWithItsSegmentAndPosition(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		for range 4 {
			w.append(topic, 0, 5)
		}
		sizes := make([]int64, 4)
		for i, b := range w.log(key(topic, 0)).batches {
			sizes[i] = int64(len(b))
		}
		first, second := domain.SegmentID{1}, domain.SegmentID{2}
		sources := ports.Sources{
			{Segment: first, Position: 1000, Length: sizes[0]},
			{Segment: second, Position: 44, Length: sizes[1] + sizes[2]},
			{Segment: first, Position: 5000, Length: sizes[3]},
		}
		for _, at := range []struct {
			base     domain.Offset
			segment  domain.SegmentID
			position int64
		}{{0, first, 1000}, {5, second, 44}, {10, second, 44 + sizes[1]}, {15, first, 5000}} {
			for _, bit := range []int{8 * 16, 8 * 70} { // of the magic, of a record
				w.change(func() {
					w.fault = func(k commit.PartitionKey, from domain.Offset, f *ports.FetchedPartition) {
						if corruptAt(0, at.base, bit)(k, from, f); from == 0 {
							f.Sources = sources
						}
					}
				})
				c := w.reader(t)
				must(t, c.Assign(t.Context(), "orders", consumer.Start()))
				var err error
				for err == nil {
					_, err = poll(t, c, 100)
				}
				var got *domain.CorruptError
				if !errors.As(err, &got) || got.Segment != at.segment || !strings.Contains(got.What, fmt.Sprintf("batch at %d: ", at.position)) {
					t.Errorf("damage of the batch at offset %d: %v, want segment %s, position %d", at.base, err, at.segment, at.position)
				}
			}
		}
	})
}

func TestUnknownCodec_IsToldAsSuch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		topic := w.topic("orders", 1)
		w.append(topic, 0, 100)
		c, err := consumer.New(consumer.Ports{Topics: w, Fetcher: w}, consumer.DefaultConfig())
		must(t, err)
		defer c.Close()
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		if _, err := poll(t, c, 1); !errors.Is(err, domain.ErrCompression) {
			t.Fatalf("got %v", err)
		}
	})
}

// garbage is a fetcher that answers every fetch for records with data.
type garbage struct{ data []byte }

func (g garbage) Fetch(_ context.Context, r ports.FetchRequest) ([]ports.FetchedPartition, error) {
	answer := make([]ports.FetchedPartition, len(r.Partitions))
	for i := range answer {
		answer[i].HighWatermark = 1 << 40
		if at := r.Partitions[i].Offset; r.MaxBytes > 0 && at == 0 {
			answer[i].Batches = append([]byte(nil), g.data...)
		} else if r.MaxBytes > 0 {
			answer[i].Err = domain.ErrCorrupt
		}
	}
	return answer, nil
}

func (garbage) OffsetAt(context.Context, commit.PartitionKey, time.Time) (domain.Offset, error) {
	return 0, nil
}

// FuzzPoll lets a consumer read arbitrary bytes. It must not panic, and what it
// returns must be without a gap.
func FuzzPoll(f *testing.F) {
	w := newWorld(f)
	topic := w.topic("orders", 1)
	for _, n := range []int{1, 2, 60} {
		w.append(topic, 0, n)
	}
	all := w.log(key(topic, 0)).from(0, 1<<20)
	f.Add(all)
	f.Add(all[:len(all)-1])
	f.Add(all[1:])
	f.Add([]byte{0})
	meta := memory.NewMetadata(memory.MetadataOptions{Seed: 1})
	if _, err := meta.CreateTopic(context.Background(), domain.TopicSpec{Name: "orders", Partitions: 1}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		c, err := consumer.New(consumer.Ports{Topics: meta, Fetcher: garbage{data}}, settings())
		must(t, err)
		defer func() { must(t, c.Close()) }()
		must(t, c.Assign(t.Context(), "orders", consumer.Start()))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for next := domain.Offset(0); ; {
			messages, err := c.Poll(ctx, 1000)
			if err != nil {
				if !errors.Is(err, domain.ErrCorrupt) && !errors.Is(err, domain.ErrCompression) {
					t.Fatal(err)
				}
				return
			}
			for _, m := range messages {
				if m.Offset != next {
					t.Fatalf("offset %d, want %d", m.Offset, next)
				}
				next++
			}
		}
	})
}
