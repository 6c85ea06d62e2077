package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/cache"
	"github.com/streamhouse/streamhouse/ports"
)

// gate holds up the reads of the store below until it is opened.
type gate struct {
	b      *below
	opened chan struct{}
}

// shut makes every read of b wait.
func shut(b *below) *gate {
	g := &gate{b, make(chan struct{})}
	b.read = func(ctx context.Context, key string, position, length int64) ([]byte, error) {
		select {
		case <-g.opened:
			return b.Segments.ReadUpTo(ctx, key, position, length)
		case <-ctx.Done():
			return nil, ports.StorageError("read", ports.Transient, ctx.Err())
		}
	}
	return g
}

func (g *gate) open() { close(g.opened) }

type result struct {
	bytes []byte
	err   error
}

// background reads in a goroutine of its own.
func background(ctx context.Context, s ports.SegmentStore, key string, position, length int64) <-chan result {
	c := make(chan result, 1)
	go func() {
		b, err := s.ReadRange(ctx, key, position, length)
		c <- result{b, err}
	}()
	return c
}

// bubble runs f with a store in virtual time.
func bubble(t *testing.T, cfg cache.Config, f func(t *testing.T, s *cache.Store, b *below)) {
	synctest.Test(t, func(t *testing.T) {
		s, b, _ := open(t, cfg)
		f(t, s, b)
	})
}

func TestFlight_ServesEverybodyWithOneRead(t *testing.T) {
	bubble(t, small(), func(t *testing.T, s *cache.Store, b *below) {
		want := stored(t, b, oldKey, 1000)
		g := shut(b)
		var all []<-chan result
		for i := range int64(50) {
			all = append(all, background(t.Context(), s, oldKey, i, 100+i))
		}
		synctest.Wait()
		g.open()
		for i, c := range all {
			r := <-c
			if r.err != nil || !bytes.Equal(r.bytes, want[i:100+2*i]) {
				t.Errorf("reader %d: %d bytes, %v", i, len(r.bytes), r.err)
			}
			clear(r.bytes) // it is the reader's own
		}
		if n := b.reads.Load(); n > 2 { // the first reader wants one block, the others two
			t.Errorf("%d reads for 50 readers of two blocks", n)
		}
		if s.Flights() != 0 {
			t.Error("a flight does not end")
		}
	})
}

func TestFlight_OutlivesItsFirstReader(t *testing.T) {
	bubble(t, small(), func(t *testing.T, s *cache.Store, b *below) {
		want := stored(t, b, oldKey, 100)
		g := shut(b)
		ctx, leave := context.WithCancel(t.Context())
		first := background(ctx, s, oldKey, 0, 10)
		synctest.Wait()
		second := background(t.Context(), s, oldKey, 50, 10)
		synctest.Wait()
		leave()
		if r := <-first; !errors.Is(r.err, context.Canceled) || ports.KindOf(r.err) != ports.Transient {
			t.Errorf("who leaves gets %v", r.err)
		}
		g.open()
		if r := <-second; r.err != nil || !bytes.Equal(r.bytes, want[50:60]) {
			t.Errorf("who stays gets %d bytes, %v", len(r.bytes), r.err)
		}
		if n := b.reads.Load(); n != 1 {
			t.Errorf("%d reads", n)
		}
	})
}

func TestFlight_EndsWhenNobodyWaits(t *testing.T) {
	bubble(t, small(), func(t *testing.T, s *cache.Store, b *below) {
		want := stored(t, b, oldKey, 100)
		g := shut(b)
		ctx, leave := context.WithCancel(t.Context())
		left := background(ctx, s, oldKey, 0, 10)
		synctest.Wait()
		leave()
		<-left
		synctest.Wait()
		if n := b.reads.Load(); n != 1 || s.Flights() != 0 {
			t.Errorf("%d reads have ended, %d blocks are on flights", n, s.Flights())
		}
		next := background(t.Context(), s, oldKey, 0, 10)
		synctest.Wait()
		g.open()
		if r := <-next; r.err != nil || !bytes.Equal(r.bytes, want[:10]) {
			t.Errorf("the next reader: %v", r.err)
		}
	})
}

func TestFlight_TellsItsFailureToEverybody(t *testing.T) {
	bubble(t, small(), func(t *testing.T, s *cache.Store, b *below) {
		stored(t, b, oldKey, 100)
		fail, cause := make(chan struct{}), errors.New("busy")
		b.read = func(context.Context, string, int64, int64) ([]byte, error) {
			<-fail
			return nil, ports.StorageError("read", ports.Transient, cause)
		}
		var all []<-chan result
		for range 10 {
			all = append(all, background(t.Context(), s, oldKey, 0, 10))
		}
		synctest.Wait()
		close(fail)
		for i, c := range all {
			if r := <-c; !errors.Is(r.err, cause) {
				t.Errorf("reader %d gets %v", i, r.err)
			}
		}
		if n := b.reads.Load(); n != 1 {
			t.Errorf("%d reads", n)
		}
	})
}

func TestDelete_KeepsNothingThatIsBeingRead(t *testing.T) {
	bubble(t, small(func(c *cache.Config) { c.RecentBytes = 0 }), func(t *testing.T, s *cache.Store, b *below) {
		want := stored(t, b, oldKey, 100)
		g := shut(b)
		during := background(t.Context(), s, oldKey, 0, 10)
		synctest.Wait()
		read := b.Segments.ReadRange
		before, _ := read(t.Context(), oldKey, 0, 100)
		if err := s.Delete(t.Context(), oldKey); err != nil {
			t.Fatal(err)
		}
		b.read = func(context.Context, string, int64, int64) ([]byte, error) { return nil, errors.New("asked again") }
		after := background(t.Context(), s, oldKey, 0, 10)
		if r := <-after; r.err == nil {
			t.Error("a read after the delete joins one that began before it")
		}
		g.open()
		if r := <-during; r.err == nil && !bytes.Equal(r.bytes, before[:10]) {
			t.Errorf("the read beside it: %q", r.bytes)
		}
		if _, blocks, _ := s.Held(); blocks != 0 {
			t.Errorf("%d bytes are held of %d that are gone", blocks, len(want))
		}
	})
}

// TestLanes_LetFreshReadsPassAnyNumberOfColdOnes has many readers of old segments
// wait for a store that does not answer.
func TestLanes_LetFreshReadsPassAnyNumberOfColdOnes(t *testing.T) {
	bubble(t, small(), func(t *testing.T, s *cache.Store, b *below) {
		freshKey := keyAt(time.Now().Add(-time.Second), 1)
		want := stored(t, b, freshKey, 100)
		running := make(chan string, 1000)
		release := make(chan struct{})
		b.read = func(ctx context.Context, key string, position, length int64) ([]byte, error) {
			if key != freshKey {
				running <- key
				<-release
			}
			return b.Segments.ReadUpTo(ctx, key, position, length)
		}
		var lagging []<-chan result
		for i := range byte(100) {
			key := keyAt(time.Now().Add(-time.Hour), i)
			if i%2 == 0 {
				key = fmt.Sprintf("segments/00/%d", i) // of no known age
			}
			stored(t, b, key, 100)
			lagging = append(lagging, background(t.Context(), s, key, 0, 100))
		}
		synctest.Wait()
		if n := len(running); n != 2 {
			t.Errorf("%d reads of old segments run at once, want 2", n)
		}
		r := background(t.Context(), s, freshKey, 0, 100)
		synctest.Wait()
		select {
		case r := <-r:
			if r.err != nil || !bytes.Equal(r.bytes, want) {
				t.Errorf("the reader at the end: %v", r.err)
			}
		default:
			t.Error("the reader at the end waits for those far behind")
		}
		close(release)
		for _, c := range lagging {
			if r := <-c; r.err != nil {
				t.Error(r.err)
			}
		}
	})
}

func TestClose_EndsReadsAndWaitsForThem(t *testing.T) {
	bubble(t, small(), func(t *testing.T, s *cache.Store, b *below) {
		stored(t, b, oldKey, 100)
		shut(b)
		r := background(t.Context(), s, oldKey, 0, 10)
		synctest.Wait()
		s.Close()
		if r := <-r; ports.KindOf(r.err) != ports.Definite {
			t.Errorf("a read that was under way: %v", r.err)
		}
		if _, err := s.ReadRange(t.Context(), oldKey, 0, 10); ports.KindOf(err) != ports.Definite {
			t.Errorf("a read after the end: %v", err)
		}
		if recent, blocks, really := s.Held(); recent+blocks+really != 0 || s.Flights() != 0 {
			t.Error("something is held after the end")
		}
	})
}
