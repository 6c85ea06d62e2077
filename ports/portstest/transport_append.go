package portstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func appendStores(x *transportUnderTest) {
	s := x.producer()
	a := x.append(s.batch(1, "a", "b"), s.batch(0, "c"), s.batch(1, "d"))
	if got, want := a.stored(), []domain.Offset{0, 0, 2}; !slices.Equal(got, want) {
		x.Errorf("bases %d, want %d", got, want)
	}
	x.holds(0, "c")
	x.holds(1, "a", "b", "d")
	x.holds(2)
}

func appendNothing(x *transportUnderTest) { x.append().wait() }

func appendKeepsOrder(x *transportUnderTest)                { keepsOrder(x, x.producer()) }
func appendKeepsOrderWithoutProducer(x *transportUnderTest) { keepsOrder(x, x.anonymous()) }

// keepsOrder appends batches one call after the other, without waiting for any.
func keepsOrder(x *transportUnderTest, s *source) {
	const batches = 300
	var all []*appended
	want := map[domain.PartitionID][]string{}
	for i := range batches {
		p := domain.PartitionID(i % 3)
		value := fmt.Sprint(i)
		all = append(all, x.append(s.batch(p, value)))
		want[p] = append(want[p], value)
	}
	for i, a := range all {
		if base := a.stored()[0]; base != domain.Offset(i/3) {
			x.Fatalf("batch %d of its partition is at offset %d", i/3, base)
		}
	}
	for p := range domain.PartitionID(3) {
		x.holds(p, want[p]...)
	}
}

func appendRace(x *transportUnderTest) {
	const producers, batches = 8, 60
	var wg sync.WaitGroup
	for i := range producers {
		s := x.producer()
		wg.Go(func() {
			for n := range batches {
				a := x.append(s.batch(0, fmt.Sprintf("%d/%03d", i, n)), s.batch(domain.PartitionID(1+i%7), "x"))
				if n%7 == 0 {
					a.wait()
				}
			}
		})
	}
	wg.Wait()
	newest := map[string]string{}
	count := 0
	for _, v := range x.until(0, producers*batches) {
		if from, n, ok := strings.Cut(v, "/"); ok {
			if n <= newest[from] {
				x.Fatalf("producer %s: batch %s after %s", from, n, newest[from])
			}
			newest[from] = n
			count++
		}
	}
	if count != producers*batches {
		x.Errorf("%d batches are stored, want %d", count, producers*batches)
	}
}

// until reads partition p until it holds n records or more.
func (x *transportUnderTest) until(p domain.PartitionID, n int) []string {
	x.Helper()
	for deadline := time.Now().Add(patience); ; {
		values := x.values(p)
		if len(values) >= n {
			return values
		}
		if time.Now().After(deadline) {
			x.Fatalf("partition %d holds %d records after %s, want %d", p, len(values), patience, n)
		}
		x.fetch(ports.FetchRequest{
			Partitions: x.positions(domain.Offset(len(values)), p), MaxBytes: 1, MaxWait: time.Second,
		})
	}
}

func appendRepeat(x *transportUnderTest) {
	s := x.producer()
	first := s.batch(0, "a", "b")
	x.append(s.batch(1, "other")).stored()
	before := x.append(first).stored()[0]
	x.append(s.batch(0, "c")).stored()
	for range 3 {
		if again := x.append(first).stored()[0]; again != before {
			x.Errorf("the repeat is at %d, the first was at %d", again, before)
		}
	}
	x.holds(0, "a", "b", "c")
}

func appendForgotten(x *transportUnderTest) {
	s := x.producer()
	first := s.batch(0, "first")
	x.append(first).stored()
	for i := range 6 {
		x.append(s.batch(0, fmt.Sprint(i))).stored()
	}
	r := x.append(first).wait()[0]
	if !errors.Is(r.Err, domain.ErrOffsetUnknown) || domain.FateOf(r.Err).Stored != domain.StoredYes {
		x.Errorf("a forgotten repeat gets base %d and error %v, want ErrOffsetUnknown", r.Base, r.Err)
	}
	x.holds(0, "first", "0", "1", "2", "3", "4", "5")
}

func appendRefused(x *transportUnderTest) {
	deleted, err := x.meta.CreateTopic(x.Context(), domain.TopicSpec{Name: "deleted", Partitions: 1})
	x.ok(err)
	x.ok(x.meta.DeleteTopic(x.Context(), deleted.ID))
	old, err := x.meta.RegisterProducer(x.Context(), "name")
	x.ok(err)
	_, err = x.meta.RegisterProducer(x.Context(), "name")
	x.ok(err)

	s := x.producer()
	s.batch(1, "never sent")
	nowhere := s.batch(2, "nowhere")
	nowhere.Topic = deleted.ID
	outside := s.batch(8, "outside")
	a := x.append(
		s.batch(1, "gap"), nowhere, outside,
		x.encode(3, batch.Producer{ID: old.ID, Epoch: old.Epoch}, "fenced"),
		x.encode(4, batch.Producer{ID: old.ID + 1000, Epoch: 0}, "no session"),
		s.batch(5, "fine"),
	)
	want := []error{
		domain.ErrOutOfOrder, domain.ErrTopicNotFound, nil, domain.ErrFenced, domain.ErrSessionExpired, nil,
	}
	for i, r := range a.wait() {
		if i == 2 { // which of the two the topic lacks is not told apart
			if !errors.Is(r.Err, domain.ErrInvalidPartition) && !errors.Is(r.Err, domain.ErrTopicNotFound) {
				x.Errorf("partition 8 of 8: %v", r.Err)
			}
		} else if !errors.Is(r.Err, want[i]) {
			x.Errorf("batch %d: %v, want %v", i, r.Err, want[i])
		}
		if r.Err != nil && domain.FateOf(r.Err).Stored != domain.StoredNo {
			x.Errorf("batch %d: %v does not say that it is not stored", i, r.Err)
		}
	}
	x.holds(5, "fine")
	for _, p := range []domain.PartitionID{1, 3, 4} {
		x.holds(p)
	}
}

func appendCorrupt(x *transportUnderTest) {
	s := x.producer()
	flipped := s.batch(1, "flipped")
	flipped.Bytes[len(flipped.Bytes)-1] ^= 1
	short := s.batch(2, "short")
	short.Bytes = short.Bytes[:len(short.Bytes)-1]
	numbered := s.batch(3, "numbered")
	batch.SetBaseOffset(numbered.Bytes, 7)
	empty := ports.Batch{PartitionKey: x.key(4)}
	a := x.append(flipped, s.batch(0, "fine"), short, numbered, empty)
	for i, r := range a.wait() {
		var c *domain.CorruptError
		if i == 1 {
			x.ok(r.Err)
		} else if !errors.As(r.Err, &c) {
			x.Errorf("batch %d: %v, want a *domain.CorruptError", i, r.Err)
		}
	}
	x.holds(0, "fine")
	for p := domain.PartitionID(1); p < 5; p++ {
		x.holds(p)
	}
}

func appendLarge(x *transportUnderTest) {
	s := x.producer()
	value := strings.Repeat("0123456789abcdef", 15<<20/16)
	a := x.append(s.batch(0, "before"), s.batch(0, value), s.batch(0, "after"))
	if got, want := a.stored(), []domain.Offset{0, 1, 2}; !slices.Equal(got, want) {
		x.Errorf("bases %d, want %d", got, want)
	}
	if got := x.values(0); len(got) != 3 || got[1] != value {
		x.Errorf("%d records are read, want the 3 written", len(got))
	}
}

func appendEnded(x *transportUnderTest) {
	ctx, cancel := context.WithCancel(x.Context())
	cancel()
	a := &appended{x: x, results: make([]ports.AppendResult, 1), calls: make([]int, 1), done: make(chan struct{})}
	err := x.transport.Append(ctx, []ports.Batch{x.producer().batch(0, "late")}, a.settle)
	if err == nil {
		err = a.wait()[0].Err
	}
	if err == nil {
		x.Errorf("a batch was stored for a context that had ended")
	} else if ports.KindOf(err) == ports.Transient {
		x.holds(0)
	}
}

// appendContextEnds ends the context of a batch whose upload does not end. It
// must not be stored later unless the answer leaves that open, and once at most
// if it is appended again.
func appendContextEnds(x *transportUnderTest) {
	begun, release := x.holdPuts(0)
	s := x.producer()
	b := s.batch(0, "late")
	ctx, cancel := context.WithCancel(x.Context())
	defer cancel()
	a := x.appendWith(ctx, b)
	x.within(begun, "no upload has begun")
	cancel()
	first := a.wait()[0].Err
	if first == nil {
		x.Fatalf("stored before its object was put")
	}
	release()
	x.append(s.batch(1, "another")).stored()
	if ports.KindOf(first) != ports.Ambiguous {
		x.holds(0)
	}
	x.append(b).stored()
	x.holds(0, "late")
}

func slowUpload(x *transportUnderTest) {
	begun, release := x.holdPuts(0)
	s := x.anonymous()
	first := x.append(s.batch(0, "first"))
	x.within(begun, "no upload has begun")
	both := x.append(s.batch(0, "second"), s.batch(1, "beside"))
	for i := range 20 {
		x.append(s.batch(2, fmt.Sprint(i))).stored()
	}
	third := x.append(s.batch(0, "third"))
	x.until(1, 1)
	if !first.open() || !both.open() || !third.open() {
		x.Errorf("settled before the upload has ended")
	}
	x.holds(0)
	release()
	first.stored()
	both.stored()
	third.stored()
	x.holds(0, "first", "second", "third")
	x.holds(1, "beside")
}

// lostPutAnswer creates the object and then says that it does not know.
func lostPutAnswer(x *transportUnderTest) {
	var once sync.Once
	x.store.onPut(func(ctx context.Context, key string, body []byte) error {
		err := x.store.SegmentStore.Put(ctx, key, body)
		once.Do(func() { err = ports.StorageError("put "+key, ports.Ambiguous, errors.New("answer lost")) })
		return err
	})
	s := x.anonymous()
	x.append(s.batch(0, "a")).stored()
	x.append(s.batch(0, "b")).stored()
	x.holds(0, "a", "b")
}

func refusedPut(x *transportUnderTest) {
	var mu sync.Mutex
	failures := 3
	x.store.onPut(func(ctx context.Context, key string, body []byte) error {
		mu.Lock()
		failures--
		fail := failures >= 0
		mu.Unlock()
		if fail {
			return ports.StorageError("put "+key, ports.Transient, errors.New("busy"))
		}
		return x.store.SegmentStore.Put(ctx, key, body)
	})
	s := x.producer()
	all := []*appended{x.append(s.batch(0, "a")), x.append(s.batch(0, "b")), x.append(s.batch(0, "c"))}
	for i, a := range all {
		if base := a.stored()[0]; base != domain.Offset(i) {
			x.Errorf("batch %d is at %d", i, base)
		}
	}
	x.holds(0, "a", "b", "c")
}

func closeSettles(x *transportUnderTest) {
	s := x.producer()
	var all []*appended
	for i := range 50 {
		all = append(all, x.append(s.batch(0, fmt.Sprint(i))))
	}
	ctx, cancel := context.WithTimeout(x.Context(), patience)
	defer cancel()
	x.ok(x.transport.Close(ctx))
	for i, a := range all {
		if a.open() {
			x.Fatalf("batch %d is not settled", i)
		}
		a.stored()
	}
	err := x.transport.Append(x.Context(), []ports.Batch{s.batch(0, "late")}, func(int, ports.AppendResult) {
		x.Error("a batch was settled that was not taken over")
	})
	if !errors.Is(err, domain.ErrClosed) {
		x.Errorf("append after close: %v, want ErrClosed", err)
	}
}

func closeObeys(x *transportUnderTest) {
	begun, release := x.holdPuts(0)
	s := x.producer()
	a := x.append(s.batch(0, "held"))
	x.within(begun, "no upload has begun")
	ctx, cancel := context.WithCancel(x.Context())
	cancel()
	if err := x.transport.Close(ctx); err == nil {
		x.Errorf("close with an ended context and an open upload: no error")
	}
	r := a.wait()[0]
	release()
	if r.Err == nil {
		x.Errorf("stored before its object was put")
	} else if ports.KindOf(r.Err) == ports.Transient {
		plans, err := x.meta.Plan(x.Context(), []ports.PlanRequest{{PartitionKey: commit.PartitionKey{Topic: x.topic}}})
		x.ok(err)
		if plans[0].HighWatermark != 0 {
			x.Errorf("a batch that was said not to be stored is stored")
		}
	}
}
