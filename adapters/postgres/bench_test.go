package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// together runs f in as many goroutines as workers until b ends, and reports
// how many runs there were each second and how long they took.
func together(b *testing.B, workers int, f func(worker, n int)) {
	b.Helper()
	took := make([][]time.Duration, workers)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	began := time.Now()
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for n := 0; left.Add(-1) >= 0; n++ {
				start := time.Now()
				f(w, n)
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	group.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "commits/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkRaw is what the server takes for a commit of one row, in one round
// trip, each worker its own row. With notify=true the same transaction notifies: that lets only one
// transaction of the whole server commit at a time.
func BenchmarkRaw(b *testing.B) {
	for _, notify := range []bool{false, true} {
		for _, workers := range []int{1, 8} {
			b.Run(fmt.Sprintf("notify=%v/workers=%d", notify, workers), func(b *testing.B) { benchRaw(b, workers, notify) })
		}
	}
}

func benchRaw(b *testing.B, workers int, notify bool) {
	s := newTest(b, Options{})
	s.execute(b, "CREATE TABLE raw (id integer PRIMARY KEY, n bigint) WITH (fillfactor = 50)")
	s.execute(b, "INSERT INTO raw SELECT n, 0 FROM generate_series(0, 7) AS n")
	statement := "UPDATE raw SET n = n + 1 WHERE id = $1"
	if notify {
		statement = "WITH u AS (" + statement + " RETURNING 1) SELECT pg_notify('bench', '') FROM u"
	}
	conns := make([]*pgxpool.Conn, workers)
	for i := range conns {
		conns[i] = must[*pgxpool.Conn](b)(s.pool.Acquire(b.Context()))
		defer conns[i].Release()
	}
	together(b, workers, func(w, _ int) {
		if _, err := conns[w].Exec(context.Background(), statement, w); err != nil {
			b.Error(err)
		}
	})
}

// BenchmarkCommit is the same for commits of one segment. With topics=shared all workers
// write the same partitions, and wait for each other's locks.
func BenchmarkCommit(b *testing.B) {
	for _, way := range []Options{{}, {inSteps: true}} {
		for _, shared := range []bool{false, true} {
			for _, workers := range []int{1, 8} {
				for _, partitions := range []int32{1, 16, 1000} {
					if shared && workers == 1 || way.inSteps && (shared || workers > 1) {
						continue
					}
					name := fmt.Sprintf("steps=%v/topics=%s/workers=%d/partitions=%d", way.inSteps, map[bool]string{true: "shared", false: "own"}[shared], workers, partitions)
					b.Run(name, func(b *testing.B) { benchCommit(b, way, workers, partitions, shared) })
				}
			}
		}
	}
}

func benchCommit(b *testing.B, way Options, workers int, partitions int32, shared bool) {
	s := newTest(b, way)
	topics, sessions := make([]domain.Topic, workers), make([]ports.ProducerSession, workers)
	refs := make([][]ports.SegmentRef, workers)
	for w := range workers {
		if w > 0 && shared {
			topics[w] = topics[0]
		} else {
			topics[w] = must[domain.Topic](b)(s.CreateTopic(b.Context(), domain.TopicSpec{Name: fmt.Sprintf("bench-%d", w), Partitions: partitions}))
		}
		sessions[w] = must[ports.ProducerSession](b)(s.RegisterProducer(b.Context(), ""))
		for len(refs[w]) < b.N {
			refs[w] = append(refs[w], must[[]ports.SegmentRef](b)(s.Reserve(b.Context(), 1024))...)
		}
	}
	together(b, workers, func(w, n int) {
		seg := commit.Segment{ID: refs[w][n].ID, Size: 1 << 20, Batches: make([]commit.Batch, partitions)}
		for p := range seg.Batches {
			seg.Batches[p] = commit.Batch{
				Topic: topics[w].ID, Partition: domain.PartitionID(p), Producer: sessions[w].ID, FirstSequence: domain.Sequence(n) * 10,
				Records: 10, Position: int64(64 + 100*p), Length: 100,
			}
		}
		results, err := s.Commit(context.Background(), []commit.Segment{seg})
		if err != nil || results[0].Outcomes[0].Status != commit.Accepted {
			b.Error(results, err)
		}
	})
}

// BenchmarkPlan is a read of the bounds and the next few extents of 16 partitions.
func BenchmarkPlan(b *testing.B) {
	for _, extents := range []int{1, 64, 4096} {
		b.Run(fmt.Sprintf("extents=%d", extents), func(b *testing.B) {
			s := newTest(b, Options{})
			topic := must[domain.Topic](b)(s.CreateTopic(b.Context(), domain.TopicSpec{Name: "bench", Partitions: 1}))
			ref := must[[]ports.SegmentRef](b)(s.Reserve(b.Context(), 1))[0]
			seg := commit.Segment{ID: ref.ID, Size: 1 << 20}
			for i := range extents {
				seg.Batches = append(seg.Batches, commit.Batch{Topic: topic.ID, Producer: commit.NoProducer, Records: 1, Position: int64(64 + 200*i), Length: 100})
			}
			if _, err := s.Commit(b.Context(), []commit.Segment{seg}); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				plans, err := s.Plan(b.Context(), []ports.PlanRequest{{PartitionKey: commit.PartitionKey{Topic: topic.ID}, MaxBytes: 1 << 40}})
				if err != nil || len(plans[0].Extents) != extents {
					b.Fatal(len(plans[0].Extents), err)
				}
			}
		})
	}
}
