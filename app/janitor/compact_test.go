package janitor_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// settle makes passes until compaction has nothing more to do.
func (w *world) settle() (passes int) {
	w.Helper()
	j := w.janitor()
	for passes = 1; passes < 100; passes++ {
		r, err := j.Once(w.Context(), false)
		w.ok(err)
		w.ok(w.meta.Snapshot().Check())
		if r.Compaction.Segments == 0 {
			return passes
		}
		time.Sleep(time.Hour)
	}
	w.Fatal("compaction does not come to an end")
	return passes
}

// TestCompaction_OfAThousandPartitionsReadsWholeOldSegments: what lies side by
// side is read together, so requests follow bytes, not partitions.
func TestCompaction_OfAThousandPartitionsReadsWholeOldSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const partitions, rounds = 1000, 48
		var topics []domain.Topic
		for i := range 10 { // of several topics too
			topics = append(topics, w.topic(fmt.Sprintf("t%d", i), partitions/10, domain.Retention{}))
		}
		wide := w.topic("wide", partitions, domain.Retention{})
		w.fill(wide, 0, partitions, rounds)
		time.Sleep(time.Hour)
		r := w.once(false).Compaction
		t.Logf("%+v", r)
		if r.Replaced < partitions*rounds || r.Lost != 0 {
			t.Errorf("%d extents were replaced of %d", r.Replaced, partitions*rounds)
		}
		// Fan-in 16 and 10,000 rows a transaction: 625 partitions at a time, so two reads of each old segment.
		if r.Reads > 3*rounds+20 {
			t.Errorf("%d reads of %d old segments", r.Reads, rounds)
		}
		if r.Segments > rounds/4 {
			t.Errorf("%d new segments in the place of %d", r.Segments, rounds)
		}
		for _, topic := range topics {
			w.fill(topic, 0, partitions/10, 20)
		}
		time.Sleep(time.Hour)
		w.settle()
		if n, most := w.extents(), partitions*(3+5); n > most {
			t.Errorf("%d extents are left, want at most %d", n, most)
		}
		w.once(false)
		w.clean()
		for _, topic := range append(topics, wide) {
			w.reads(topic)
		}
	})
}

// TestCompaction_OfManyTopicsReadsTheirSegmentsTogether: a chunk is not bounded
// by its topic.
func TestCompaction_OfManyTopicsReadsTheirSegmentsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var topics []domain.Topic
		for i := range 60 {
			topics = append(topics, w.topic(fmt.Sprintf("t%d", i), 1, domain.Retention{}))
		}
		p, err := streamhouse.NewProducerBuilder().MetadataStore(w.meta).SegmentStore(w.segments).Build(t.Context())
		w.ok(err)
		const rounds = 20
		for range rounds {
			for _, topic := range topics {
				at := where(topic.Name, 0)
				value := fmt.Sprintf("%s, %d before", at, len(w.sent[at]))
				w.sent[at] = append(w.sent[at], value)
				p.SendAsync(t.Context(), domain.Record{Topic: topic.Name, Value: []byte(value)}, nil)
			}
			w.ok(p.Flush(t.Context()))
		}
		w.ok(p.Close(t.Context()))
		segments := w.objects()
		time.Sleep(time.Hour)
		if r := w.once(false).Compaction; r.Segments > 2 || r.Reads > segments || r.Replaced < 60*16 {
			t.Errorf("%d old segments: %+v", segments, r)
		}
		for _, topic := range topics {
			w.reads(topic)
		}
	})
}

// TestCompaction_OfOnePartitionWithManyBatchesOfOneRecord goes through many
// windows, with as many requests as there are old objects.
func TestCompaction_OfOnePartitionWithManyBatchesOfOneRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const records = 10_000
		topic := w.topic("orders", 1, domain.Retention{})
		w.fill(topic, 0, 1, records)
		time.Sleep(time.Hour)
		c := w.counted()
		r := w.once(false).Compaction
		if r.Replaced < records || r.Reads > records+500 || w.extents() > 30 || r.Segments > records/4096+3 {
			t.Errorf("%+v, %d extents are left", r, w.extents())
		}
		if n := c.n("Plan"); n > 20 {
			t.Errorf("%d plans", n)
		}
		w.reads(topic)
		time.Sleep(time.Hour)
		w.once(false)
		w.clean()
	})
}

func TestCompaction_WhatIsTooYoungHasItsTurnLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 1, domain.Retention{})
		w.fill(topic, 0, 1, 6000) // more than a window
		j := w.janitor()
		r, err := j.Once(t.Context(), false)
		w.ok(err)
		if r.Compaction.Replaced != 0 {
			t.Fatalf("young extents were put together: %+v", r.Compaction)
		}
		time.Sleep(2 * time.Minute)
		r, err = j.Once(t.Context(), false)
		w.ok(err)
		if r.Compaction.Replaced < 6000 || w.extents() > 30 {
			t.Errorf("%+v, %d extents are left", r.Compaction, w.extents())
		}
		w.reads(topic)
	})
}

func TestCompaction_ReadersBesideItSeeEveryRecordInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.DeleteGrace, w.cfg.CompactAfter = time.Second, 0
		topic := w.topic("orders", 3, domain.Retention{})
		var readers sync.WaitGroup
		const rounds, perRound = 40, 20
		for range 3 {
			readers.Go(func() { w.follow(topic, rounds*perRound) })
		}
		j := w.janitor()
		for range rounds {
			w.send(topic, perRound)
			if _, err := j.Once(t.Context(), true); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			time.Sleep(3 * time.Second)
		}
		readers.Wait()
		w.reads(topic)
	})
}

// follow reads so many records of each partition as they come.
func (w *world) follow(t domain.Topic, records int) {
	c, err := streamhouse.NewConsumerBuilder().MetadataStore(w.meta).SegmentStore(w.segments).Assign(t.Name, streamhouse.FromStart()).Build(w.Context())
	if err != nil {
		w.Error(err)
		return
	}
	defer c.Close()
	next := make([]domain.Offset, t.Partitions)
	for got := 0; got < records*int(t.Partitions); {
		messages, err := c.Poll(w.Context(), 7)
		if err != nil {
			w.Errorf("after %d records: %v", got, err)
			return
		}
		for _, m := range messages {
			if m.Offset != next[m.Partition] {
				w.Errorf("partition %d gave offset %d, want %d", m.Partition, m.Offset, next[m.Partition])
				return
			}
			next[m.Partition]++
			got++
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// TestCompaction_ACorruptSourceIsReportedAndStaysWhereItIs, for each way in which
// an object can be damaged.
func TestCompaction_ACorruptSourceIsReportedAndStaysWhereItIs(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"a bit flipped": func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"cut short":     func(b []byte) []byte { return b[:len(b)/2] },
		"missing":       func([]byte) []byte { return nil },
		"another batch": func(b []byte) []byte { b[44+57+3]++; b[44+23+3]++; return b },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { corruptSource(t, damage) })
		})
	}
}

func corruptSource(t *testing.T, damage func([]byte) []byte) {
	w := newWorld(t)
	told := new(events)
	w.tel = told
	topic := w.topic("orders", 1, domain.Retention{})
	w.fill(topic, 0, 1, 100)
	bad := w.meta.Snapshot().Extents[40]
	key := keyOf(w, bad.Segment)
	info, err := w.segments.Stat(t.Context(), key)
	w.ok(err)
	body, err := w.segments.ReadRange(t.Context(), key, 0, info.Size)
	w.ok(err)
	w.ok(w.segments.Delete(t.Context(), key))
	damaged := damage(append([]byte(nil), body...))
	if damaged != nil {
		w.ok(w.segments.Put(t.Context(), key, damaged))
	}
	time.Sleep(time.Hour)
	c := w.counted()
	j := w.janitor()
	r, err := j.Once(t.Context(), false)
	if err == nil || r.Compaction.Unreadable != 1 || len(told.of(ports.CorruptionFound)) != 1 {
		t.Errorf("the first pass: %+v, %v, %d events", r.Compaction, err, len(told.of(ports.CorruptionFound)))
	}
	if r.Compaction.Replaced < 99-15 || r.Compaction.Replaced > 99+16 {
		t.Errorf("%d extents were replaced: want those on both sides", r.Compaction.Replaced)
	}
	reads := c.n("ReadRange")
	for range 10 {
		r, err = j.Once(t.Context(), false)
		w.ok(err)
	}
	if again := c.n("ReadRange") - reads; again != 0 || r.Compaction.Unreadable != 1 {
		t.Errorf("ten more passes read %d times, %+v", again, r.Compaction)
	}
	time.Sleep(2 * time.Hour)
	_, _ = j.Once(t.Context(), false) // it may be tried again by now
	if w.extentAt(40) != bad.Segment {
		t.Error("the damaged extent was compacted away")
	}
	w.ok(w.segments.Delete(t.Context(), key))
	w.ok(w.segments.Put(t.Context(), key, body)) // somebody brings it back
	time.Sleep(2 * time.Hour)
	w.settle()
	w.reads(topic)
}

// extentAt returns in which segment offset o of the only partition is.
func (w *world) extentAt(o domain.Offset) domain.SegmentID {
	for _, e := range w.meta.Snapshot().Extents {
		if e.Base <= o && o <= e.Last {
			return e.Segment
		}
	}
	return domain.SegmentID{}
}

func keyOf(w *world, id domain.SegmentID) string {
	for _, r := range w.meta.Snapshot().Segments {
		if r.ID == id {
			return r.Key
		}
	}
	return ""
}

// TestCompaction_AStoreThatDamagesWhatItIsGivenLosesNothing: the new object is
// read again before the old ones go.
func TestCompaction_AStoreThatDamagesWhatItIsGivenLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 1, domain.Retention{})
		w.fill(topic, 0, 1, 64)
		time.Sleep(time.Hour)
		w.store = damaging{w.segments}
		if r, err := w.janitor().Once(t.Context(), false); !errors.Is(err, domain.ErrCorrupt) || r.Compaction.Segments != 0 {
			t.Errorf("%+v, %v", r.Compaction, err)
		}
		w.reads(topic)
		w.store = w.segments
		w.settle()
		w.reads(topic)
		time.Sleep(2 * time.Hour)
		w.once(false)
		time.Sleep(time.Hour)
		w.once(false)
		w.clean()
	})
}

// damaging flips a bit of each object that it is given.
type damaging struct{ ports.SegmentStore }

func (d damaging) Put(ctx context.Context, key string, body []byte) error {
	body = append([]byte(nil), body...)
	body[len(body)/2] ^= 1
	return d.SegmentStore.Put(ctx, key, body)
}

func TestCompaction_APartThatFailsDoesNotKeepTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 4, domain.Retention{})
		for p := range 4 {
			w.fill(topic, p, 1, 32)
		}
		bad := keyOf(w, w.meta.Snapshot().Extents[40].Segment) // of partition 1
		time.Sleep(time.Hour)
		denied := ports.StorageError("read", ports.Transient, errors.New("access denied"))
		w.when(func(c fault.Call) bool { return c.Method == "ReadRange" && c.Subject[:len(bad)] == bad }, fault.Decision{Fail: denied})
		if r, err := w.janitor().Once(t.Context(), false); err == nil || r.Compaction.Replaced < 3*32+16 {
			t.Errorf("%+v, %v", r.Compaction, err)
		}
		w.reads(topic)
	})
}

func TestCompaction_LeavesAStoreThatIsDownAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 1, domain.Retention{})
		w.fill(topic, 0, 1, 64)
		time.Sleep(time.Hour)
		down := ports.StorageError("read", ports.Transient, errors.New("down"))
		w.when(func(c fault.Call) bool { return c.Port == fault.Segments }, fault.Decision{Fail: down})
		j := w.janitor()
		for range 5 {
			if r, err := j.Once(t.Context(), false); err == nil || r.Compaction.Unreadable != 0 {
				t.Errorf("%+v, %v", r.Compaction, err)
			}
		}
		w.metadata, w.store = w.meta, w.segments
		w.settle()
		w.reads(topic)
	})
}

// TestCompaction_BesideOtherJanitorsAndRetentionLosesNothing.
func TestCompaction_BesideOtherJanitorsAndRetentionLosesNothing(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.cfg.CompactAfter, w.cfg.DeleteGrace, w.cfg.ReservationGrace = 0, time.Minute, time.Minute
			w.cfg.CompactSegmentBytes, w.cfg.CompactExtentBytes = 64<<10, 16<<10
			f := fault.Random(seed, fault.Rates{Delay: 0.5, MaxDelay: 3 * time.Second})
			w.metadata, w.store = fault.NewMetadata(w.meta, f), fault.NewSegments(w.segments, f)
			topic := w.topic("orders", 5, domain.Retention{Bytes: 20_000})
			var janitors sync.WaitGroup
			for n := range uint64(3) {
				w.cfg.Seed = 3*seed + n + 1
				j := w.janitor()
				janitors.Go(func() {
					for range 6 {
						if _, err := j.Once(t.Context(), n == 0); err != nil && !lostRace(err) {
							t.Error(err)
						}
					}
				})
			}
			for range 10 {
				w.fill(topic, 0, 5, 40)
				time.Sleep(time.Second)
			}
			janitors.Wait()
			w.ok(w.meta.Snapshot().Check())
			w.reads(topic)
			time.Sleep(time.Hour)
			w.metadata, w.store = w.meta, w.segments
			w.settle()
			time.Sleep(time.Hour)
			w.once(false)
			w.clean()
			w.reads(topic)
		})
	}
}

// lostRace reports whether err may come of two janitors at work on the same: what
// one wants to read the other has replaced and removed.
func lostRace(err error) bool { return errors.Is(err, ports.ErrObjectNotFound) }

// TestCompaction_TwoAtOnceDoNotRewriteTheSameForLong: the one who comes late
// leaves the rest to the other.
func TestCompaction_TwoAtOnceDoNotRewriteTheSameForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.CompactBytesPerSecond, w.cfg.CompactSegmentBytes, w.cfg.CompactExtentBytes = 100<<10, 16<<10, 8<<10
		topic := w.topic("orders", 8, domain.Retention{})
		w.fill(topic, 0, 8, 400)
		time.Sleep(time.Hour)
		var both sync.WaitGroup
		var lost, copies [2]int
		for n := range 2 {
			j := w.janitor()
			both.Go(func() {
				r, err := j.Once(t.Context(), false)
				lost[n], copies[n] = r.Compaction.Lost, r.Compaction.Copies
				if err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if all, waste := copies[0]+copies[1], lost[0]+lost[1]; all == 0 || waste > all/4 {
			t.Errorf("%d copies came too late, %d in time", waste, all)
		}
		w.settle()
		w.reads(topic)
	})
}

func TestCompaction_KeepsToItsBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.CompactBytesPerSecond = 1000
		topic := w.topic("orders", 1, domain.Retention{})
		w.fill(topic, 0, 1, 100)
		time.Sleep(time.Hour)
		begin := time.Now()
		r := w.once(false).Compaction
		if took, least := time.Since(begin), time.Duration(3*r.Bytes/1000-1)*time.Second; took < least || r.Bytes == 0 {
			t.Errorf("moved three times %d bytes in %v, want at least %v", r.Bytes, took, least)
		}
	})
}
