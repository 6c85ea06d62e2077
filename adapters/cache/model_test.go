package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/adapters/cache"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// TestModel_AnswersAsTheStoreAloneDoes does random things to a store with a memory
// and to one without.
func TestModel_AnswersAsTheStoreAloneDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := small(func(c *cache.Config) {
			c.RecentBytes, c.BlockBytes = rapid.Int64Range(0, 4000).Draw(t, "recent"), rapid.Int64Range(0, 4000).Draw(t, "blocks")
			c.BlockSize = rapid.Int64Range(1, 40).Draw(t, "size")
			c.ReadBytes = c.BlockSize * rapid.Int64Range(1, 4).Draw(t, "read")
		})
		plain := memory.NewSegments()
		b := &below{Segments: memory.NewSegments()}
		s := cache.New(b, ports.NoTelemetry{}, cfg)
		defer s.Close()
		key := rapid.SampledFrom([]string{"segments/00/a", "segments/00/b", "segments/00/c", "Bad"})
		ctx := context.Background()
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, o := key.Draw(t, "key"), body(rapid.IntRange(0, 300).Draw(t, "bytes"))
				if len(o) > 0 {
					o[0] = rapid.Byte().Draw(t, "first")
				}
				same(t, "put", plain.Put(ctx, k, o), s.Put(ctx, k, o))
			},
			"put beside": func(t *rapid.T) {
				k, o := key.Draw(t, "key"), body(rapid.IntRange(0, 300).Draw(t, "bytes"))
				same(t, "put", plain.Put(ctx, k, o), b.Put(ctx, k, o))
			},
			"read": func(t *rapid.T) {
				k, p, n := key.Draw(t, "key"), rapid.Int64Range(-1, 310).Draw(t, "position"), rapid.Int64Range(-1, 310).Draw(t, "length")
				want, wantErr := plain.ReadRange(ctx, k, p, n)
				got, err := s.ReadRange(ctx, k, p, n)
				same(t, "read", wantErr, err)
				if !bytes.Equal(want, got) {
					t.Fatalf("read %x, want %x", got, want)
				}
				clear(got)
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				same(t, "delete", plain.Delete(ctx, k), s.Delete(ctx, k))
			},
			"forget": func(t *rapid.T) { s.Forget(key.Draw(t, "key")) },
			"": func(t *rapid.T) {
				recent, blocks, really := s.Held()
				if recent > cfg.RecentBytes || blocks > cfg.BlockBytes || recent+blocks != really {
					t.Fatalf("%d of %d and %d of %d bytes are held, really %d", recent, cfg.RecentBytes, blocks, cfg.BlockBytes, really)
				}
				if n := s.Flights(); n != 0 {
					t.Fatalf("%d blocks are on flights that nobody waits for", n)
				}
			},
		})
	})
}

func same(t *rapid.T, what string, want, got error) {
	bothNil := want == nil && got == nil
	if (want == nil) != (got == nil) || !bothNil && ports.KindOf(want) != ports.KindOf(got) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	for _, class := range []error{ports.ErrObjectNotFound, ports.ErrObjectExists, domain.ErrCorrupt, domain.ErrStorage} {
		if errors.Is(want, class) != errors.Is(got, class) {
			t.Fatalf("%s: %v, want %v", what, got, want)
		}
	}
}

// TestLoad_KeepsItsBounds lets many readers at a small store at once, some of whom
// leave, while objects come and go.
func TestLoad_KeepsItsBounds(t *testing.T) {
	cfg := small(func(c *cache.Config) { c.RecentBytes, c.BlockBytes = 20_000, 40_000 })
	s, b, _ := open(t, cfg)
	const objects, size = 40, 2000
	want := body(size)
	var writers, readers sync.WaitGroup
	key := func(i int) string { return fmt.Sprintf("segments/00/%d", i) }
	for i := range objects {
		stored(t, b, key(i), size)
	}
	stop := make(chan struct{})
	writers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			fresh := fmt.Sprintf("segments/01/%d", i)
			if err := s.Put(t.Context(), fresh, want); err != nil {
				t.Error(err)
			}
			s.Forget(key(i % objects))
			if err := s.Delete(t.Context(), fresh); err != nil {
				t.Error(err)
			}
		}
	})
	for r := range uint64(8) {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(r, 1))
			for range 1500 {
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(4) == 0 {
					go cancel()
				}
				p := random.Int64N(size - 1)
				n := 1 + random.Int64N(size-p)
				got, err := s.ReadRange(ctx, key(random.IntN(objects)), p, n)
				if err == nil && !bytes.Equal(got, want[p:p+n]) || err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("%d bytes at %d: %d bytes, %v", n, p, len(got), err)
				}
				cancel()
				if recent, blocks, really := s.Held(); recent > cfg.RecentBytes || blocks > cfg.BlockBytes || recent+blocks != really {
					t.Errorf("%d and %d bytes are held, really %d", recent, blocks, really)
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
	if n := s.Flights(); n != 0 {
		t.Errorf("%d blocks are on flights that nobody waits for", n)
	}
}
