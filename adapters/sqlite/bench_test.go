package sqlite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// BenchmarkCommit measures one call: its time, and the processor time that the
// process spends on it (cpu-µs/op). With sync "OFF" the disk is left out.
func BenchmarkCommit(b *testing.B) {
	for _, sync := range []string{"", "OFF"} {
		for _, size := range []struct{ segments, partitions int }{{1, 1}, {1, 16}, {8, 16}, {1, 1000}} {
			name := fmt.Sprintf("sync=%s/segments=%d/partitions=%d", sync, size.segments, size.partitions)
			b.Run(name, func(b *testing.B) { benchCommit(b, sync, size.segments, size.partitions) })
		}
	}
}

func benchCommit(b *testing.B, sync string, segments, partitions int) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "metadata.db"), Options{UnsafeSynchronous: sync})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	topic := createTopic(b, s, "orders", int32(partitions))
	p := must[ports.ProducerSession](b)(s.RegisterProducer(b.Context(), ""))
	var refs []ports.SegmentRef
	next := domain.Sequence(0)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	var cpu int64
	var took []time.Duration
	for b.Loop() {
		if len(refs) < segments {
			b.StopTimer()
			refs = must[[]ports.SegmentRef](b)(s.Reserve(ctx, 1024))
			b.StartTimer()
		}
		group := make([]commit.Segment, segments)
		for i := range group {
			group[i] = fill(refs[i].ID, topic, p, next, partitions)
			next = next.Add(10)
		}
		refs = refs[segments:]
		before, began := processorTime(), time.Now()
		results, err := s.Commit(ctx, group)
		took = append(took, time.Since(began))
		cpu += processorTime() - before
		if err != nil || results[0].Outcomes[0].Status != commit.Accepted {
			b.Fatal(results, err)
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-µs/op")
}

// processorTime returns what the process has used, in microseconds.
func processorTime() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano()/1000 + u.Stime.Nano()/1000
}

func BenchmarkOpen(b *testing.B) {
	b.Run("new", func(b *testing.B) {
		dir := b.TempDir()
		for i := 0; b.Loop(); i++ {
			s := must[*Store](b)(Open(b.Context(), filepath.Join(dir, fmt.Sprint(i)), Options{}))
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("existing", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "metadata.db")
		for b.Loop() {
			s := must[*Store](b)(Open(b.Context(), path, Options{}))
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSync is what the disk takes for the write and the sync of a lone
// commit: four pages, over and over in a file of full size.
func BenchmarkSync(b *testing.B) {
	f := must[*os.File](b)(os.Create(filepath.Join(b.TempDir(), "log")))
	defer f.Close()
	page := make([]byte, 4*4120)
	const size = 4 << 20
	must[int](b)(f.WriteAt(make([]byte, size), 0))
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	for at := int64(0); b.Loop(); at = (at + int64(len(page))) % (size - int64(len(page))) {
		must[int](b)(f.WriteAt(page, at))
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
}
