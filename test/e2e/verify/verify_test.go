// Package verify_test verifies clusters in a folder: SQLite, files, and the
// janitor that runs beside them, in real time.
package verify_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/adapters/local"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/app/verify"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// lasting is how long the log is in use while it is verified.
const lasting = 3 * time.Second

func TestVerify_OfAFolderInUseAndThenDamaged(t *testing.T) {
	dir := t.TempDir()
	cfg := janitor.DefaultConfig()
	cfg.Interval, cfg.CompactAfter, cfg.CompactFanIn, cfg.DeleteGrace = 50*time.Millisecond, 20*time.Millisecond, 4, 10*time.Millisecond
	cfg.ForgetAfter, cfg.ReservationGrace, cfg.SweepInterval = 100*time.Millisecond, 2*time.Second, time.Second
	store, err := local.Open(t.Context(), dir, local.UnsafeNoFsync(), local.WithJanitor(cfg))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for name, keep := range map[string]domain.Retention{"kept": {}, "aged": {Age: 500 * time.Millisecond}, "sized": {Bytes: 20_000}} {
		if _, err := store.Metadata().CreateTopic(t.Context(), domain.TopicSpec{Name: name, Partitions: 4, Retention: keep}); err != nil {
			t.Fatal(err)
		}
	}
	walks, problems := 0, 0
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	sent := write(ctx, t, store)
	for ctx.Err() == nil {
		r := run(t, store)
		if walks++; !r.OK() {
			t.Errorf("walk %d: %+v", walks, r.Problems)
		}
		problems += r.ProblemCount
	}
	n := <-sent
	r := run(t, store)
	if !r.OK() || r.Unsettled > 0 || problems > 0 || n < 100 || walks < 3 || r.Checked == 0 {
		t.Fatalf("%d records sent, %d walks: %+v", n, walks, r)
	}
	t.Logf("%d records, %d walks, then %d extents in %d segments", n, walks, r.Extents, r.Checked)
	damage(t, store, dir)
}

// write sends records until ctx ends, and then how many it has sent.
func write(ctx context.Context, t *testing.T, store *local.Store) <-chan int64 {
	t.Helper()
	p, err := streamhouse.NewProducerBuilder().Cluster(store).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan int64, 1) // the one answer
	go func() {
		var acknowledged atomic.Int64
		for n := 0; ctx.Err() == nil; n++ {
			for _, topic := range []string{"kept", "aged", "sized"} {
				r := domain.Record{Topic: topic, Value: fmt.Appendf(nil, "record %d of %s", n, topic)}
				p.SendAsync(t.Context(), r, func(_ domain.SendResult, err error) {
					if err == nil {
						acknowledged.Add(1)
					}
				})
			}
			if err := p.Flush(t.Context()); err != nil {
				t.Error(err)
				break
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		done <- acknowledged.Load()
	}()
	return done
}

func run(t *testing.T, store *local.Store) verify.Report {
	t.Helper()
	o := verify.Options{PageRows: 100, MemoryExtents: 500, Records: true, Codecs: []batch.Codec{codec.NewLZ4()}}
	r, err := verify.Run(t.Context(), store.Metadata(), store.Segments(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// damage opens the folder without a janitor, changes a bit of an object that is
// in use, and then removes it.
func damage(t *testing.T, store *local.Store, dir string) {
	t.Helper()
	if err := store.Close(); err != nil { // and its janitor with it
		t.Fatal(err)
	}
	store, err := local.Open(t.Context(), dir, local.WithoutJanitor())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	extents, err := store.Metadata().Extents(t.Context(), ports.FirstExtent, 1)
	if err != nil || len(extents) != 1 {
		t.Fatalf("extents %+v, %v", extents, err)
	}
	e := extents[0]
	file := filepath.Join(dir, filepath.FromSlash(e.ObjectKey))
	object, err := os.ReadFile(file)
	if err == nil {
		err = os.Remove(file)
	}
	if err != nil {
		t.Fatal(err)
	}
	found := func(kind verify.Kind) {
		t.Helper()
		for _, p := range run(t, store).Problems {
			if p.Kind == kind && p.Segment == e.Segment.String() && p.TopicID != "" && p.Key == e.ObjectKey {
				return
			}
		}
		t.Errorf("no %s is found", kind)
	}
	found(verify.MissingObject)
	object[e.Position+70] ^= 4
	if err := os.WriteFile(file, object, 0o600); err != nil {
		t.Fatal(err)
	}
	found(verify.CorruptObject)
	if err := os.WriteFile(file, object[:len(object)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	found(verify.WrongSize)
}
