package direct_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var errCut = errors.New("connection cut")

// inBubble runs a test with a rig in a synctest bubble, and checks at the end
// that nothing is left of what it did.
func inBubble(t *testing.T, change func(*direct.Config), test func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, change)
		test(t, r)
		r.close()
		synctest.Wait()
		if !r.writer.Idle() {
			t.Error("the writer is closed and not idle")
		}
	})
}

// refused fails the test unless the next answer has an error of the kind.
func (r *rig) refused(answers <-chan answer, kind ports.Kind, target error) {
	r.t.Helper()
	a := <-answers
	if a.Err == nil || ports.KindOf(a.Err) != kind || target != nil && !errors.Is(a.Err, target) {
		r.t.Errorf("settled with %v (%v), want a %v error of %v", a.Err, ports.KindOf(a.Err), kind, target)
	}
	if a.Err != nil && a.Base != -1 {
		r.t.Errorf("an error comes with offset %d", a.Base)
	}
}

// open fails the test if an answer has come.
func (r *rig) open(answers <-chan answer) {
	r.t.Helper()
	synctest.Wait()
	if len(answers) > 0 {
		r.t.Errorf("settled too early: %+v", <-answers)
	}
}

func TestCommit_IsRepeatedWithTheSameSegmentsAfterALostAnswer(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		var asked [][]commit.Segment
		r.meta.commit.set(func(ctx context.Context, s []commit.Segment) ([]ports.CommitResult, error) {
			asked = append(asked, s)
			results, err := r.meta.Metadata.Commit(ctx, s)
			if len(asked) < 4 {
				return nil, ports.MetadataError("commit", ports.Ambiguous, errCut)
			}
			return results, err
		})
		r.stored(r.append(t.Context(), r.batch(0, batch.NoProducer, "a", "b")), 0)
		for _, again := range asked[1:] {
			if !reflect.DeepEqual(again, asked[0]) {
				t.Errorf("asked for %v, then for %v", asked[0], again)
			}
		}
		if v := fmt.Sprint(r.values(0)); v != "[a b]" {
			t.Errorf("stored %s, want [a b]", v)
		}
	})
}

func TestCommit_IsAmbiguousWhenItsBudgetIsSpent(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.meta.commit.set(func(ctx context.Context, _ []commit.Segment) ([]ports.CommitResult, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		start := time.Now()
		first := r.append(context.Background(), r.batch(0, batch.NoProducer, "a"))
		synctest.Wait()
		behind := r.append(context.Background(), r.batch(0, batch.NoProducer, "b"))
		beside := r.append(context.Background(), r.batch(1, batch.NoProducer, "c"))
		synctest.Wait()
		r.refused(first, ports.Ambiguous, domain.ErrMetadata)
		if took := time.Since(start); took < 2*time.Minute || took > 3*time.Minute {
			t.Errorf("given up after %s, want the budget of 2 minutes", took)
		}
		r.refused(behind, ports.Transient, domain.ErrOutOfOrder)
		r.refused(beside, ports.Ambiguous, domain.ErrMetadata)
	})
}

func TestCommit_IsNotBoundToTheCallersContext(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		begun, goOn := make(chan time.Duration), make(chan struct{})
		r.meta.commit.set(func(ctx context.Context, s []commit.Segment) ([]ports.CommitResult, error) {
			deadline, _ := ctx.Deadline()
			begun <- time.Until(deadline)
			<-goOn
			if ctx.Err() != nil {
				t.Errorf("the commit's context ended: %v", ctx.Err())
			}
			return r.meta.Metadata.Commit(ctx, s)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answers := r.append(ctx, r.batch(0, batch.NoProducer, "a"))
		if left := <-begun; left != 30*time.Second {
			t.Errorf("the commit has %s, want 30s", left)
		}
		r.refused(answers, ports.Ambiguous, domain.ErrTimeout)
		close(goOn)
		synctest.Wait()
		if v := fmt.Sprint(r.values(0)); v != "[a]" {
			t.Errorf("stored %s, want [a]", v)
		}
	})
}

func TestCommit_LeavesOutWhatExpiredWhileTheStoreWasBusy(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		var busy atomic.Bool
		busy.Store(true)
		r.meta.commit.set(func(ctx context.Context, s []commit.Segment) ([]ports.CommitResult, error) {
			if busy.Load() {
				return nil, ports.MetadataError("commit", ports.Transient, errors.New("busy"))
			}
			return r.meta.Metadata.Commit(ctx, s)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		early := r.append(ctx, r.batch(0, batch.NoProducer, "early"))
		late := r.append(t.Context(), r.batch(0, batch.NoProducer, "late"))
		r.refused(early, ports.Transient, domain.ErrTimeout)
		busy.Store(false)
		r.stored(late, 0)
		if v := fmt.Sprint(r.values(0)); v != "[late]" {
			t.Errorf("stored %s, want [late]", v)
		}
	})
}

func TestCommit_RefusalFailsOnlyTheSegmentToBlame(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		gate := make(chan struct{})
		r.meta.commit.set(func(ctx context.Context, s []commit.Segment) ([]ports.CommitResult, error) {
			<-gate
			for _, seg := range s {
				if seg.Batches[0].Partition == 1 {
					return nil, ports.MetadataError("commit", ports.Definite, errors.New("constraint"))
				}
			}
			return r.meta.Metadata.Commit(ctx, s)
		})
		first := r.append(t.Context(), r.batch(3, batch.NoProducer, "first"))
		synctest.Wait()
		var answers []<-chan answer
		for p := range domain.PartitionID(3) {
			answers = append(answers, r.append(t.Context(), r.batch(p, batch.NoProducer, "x")))
			synctest.Wait()
		}
		close(gate)
		r.stored(first, 0)
		r.stored(answers[0], 0)
		r.refused(answers[1], ports.Definite, domain.ErrMetadata)
		r.stored(answers[2], 0)
	})
}

func TestCommit_TakesAllThatWasUploadedMeanwhile(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		gate := make(chan struct{})
		var groups []int
		r.meta.commit.set(func(ctx context.Context, s []commit.Segment) ([]ports.CommitResult, error) {
			groups = append(groups, len(s))
			<-gate
			return r.meta.Metadata.Commit(ctx, s)
		})
		var answers []<-chan answer
		for i := range 4 {
			answers = append(answers, r.append(t.Context(), r.batch(0, batch.NoProducer, fmt.Sprint(i))))
			synctest.Wait()
		}
		close(gate)
		for i, a := range answers {
			r.stored(a, domain.Offset(i))
		}
		if fmt.Sprint(groups) != "[1 3]" {
			t.Errorf("commits of %v segments, want [1 3]", groups)
		}
	})
}

func TestCommit_GathersBatchesInFewSegmentsWhileTheStoreIsSlow(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		gate := make(chan struct{})
		r.meta.commit.set(func(ctx context.Context, s []commit.Segment) ([]ports.CommitResult, error) {
			<-gate
			return r.meta.Metadata.Commit(ctx, s)
		})
		var answers []<-chan answer
		for i := range 500 {
			answers = append(answers, r.append(t.Context(), r.batch(0, batch.NoProducer, fmt.Sprint(i))))
			synctest.Wait()
		}
		close(gate)
		for i, a := range answers {
			r.stored(a, domain.Offset(i))
		}
		if n := r.tel.Count(ports.SegmentPut); n > 25 {
			t.Errorf("%d objects for 500 batches behind a slow commit", n)
		}
	})
}

func TestCommit_FatalEndsTheWriter(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		gate := make(chan struct{})
		fatal := ports.MetadataError("commit", ports.Fatal, errors.New("fsync failed"))
		r.meta.commit.set(func(context.Context, []commit.Segment) ([]ports.CommitResult, error) {
			<-gate
			return nil, fatal
		})
		r.store.put.set(func(ctx context.Context, key string, body []byte) error {
			if holds(body, 1) {
				<-ctx.Done()
				return ctx.Err()
			}
			return r.store.Segments.Put(ctx, key, body)
		})
		first := r.append(t.Context(), r.batch(0, batch.NoProducer, "a"))
		synctest.Wait()
		second := r.append(t.Context(), r.batch(0, batch.NoProducer, "b"))
		third := r.append(t.Context(), r.batch(1, batch.NoProducer, "c"))
		synctest.Wait()
		close(gate)
		for _, a := range []<-chan answer{first, second, third} {
			r.refused(a, ports.Fatal, domain.ErrMetadata)
		}
		err := r.writer.Append(t.Context(), []ports.Batch{r.batch(0, batch.NoProducer, "d")}, nil)
		if ports.KindOf(err) != ports.Fatal {
			t.Errorf("append afterwards: %v, want the fatal error", err)
		}
	})
}

func TestCommit_OfACollectedSegmentLeavesTheBatchToItsNextAppend(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		gone := true
		r.meta.commit.set(func(ctx context.Context, s []commit.Segment) ([]ports.CommitResult, error) {
			if gone {
				gone = false
				return []ports.CommitResult{{Err: ports.MetadataError("commit", ports.Definite, errors.New("deleted"))}}, nil
			}
			return r.meta.Metadata.Commit(ctx, s)
		})
		b := r.batch(0, batch.NoProducer, "a")
		r.refused(r.append(t.Context(), b), ports.Transient, domain.ErrMetadata)
		reserved := r.tel.Count(ports.SegmentReserve)
		r.stored(r.append(t.Context(), b), 0)
		if r.tel.Count(ports.SegmentReserve) != reserved+1 {
			t.Error("ids as old as that of the collected segment are still used")
		}
	})
}

func TestCommit_WithTooFewAnswersEndsTheWriter(t *testing.T) {
	for name, results := range map[string][]ports.CommitResult{
		"no segment": {},
		"no batch":   {{Outcomes: nil}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, r *rig) {
				r.meta.commit.set(func(context.Context, []commit.Segment) ([]ports.CommitResult, error) { return results, nil })
				a := <-r.append(t.Context(), r.batch(0, batch.NoProducer, "a"))
				if !errors.Is(a.Err, domain.ErrInternal) || domain.FateOf(a.Err).Stored != domain.StoredUnknown {
					t.Errorf("settled with %v, want ErrInternal", a.Err)
				}
			})
		})
	}
}

func TestCommit_OfAnUnknownStatusIsAnInternalError(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.meta.commit.set(func(context.Context, []commit.Segment) ([]ports.CommitResult, error) {
			return []ports.CommitResult{{Outcomes: []commit.Outcome{{}}}}, nil
		})
		a := <-r.append(t.Context(), r.batch(0, batch.NoProducer, "a"))
		if !errors.Is(a.Err, domain.ErrInternal) {
			t.Errorf("settled with %v, want ErrInternal", a.Err)
		}
	})
}
