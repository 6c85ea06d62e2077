package sqlite

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func openTest(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newTest(t testing.TB) *Store { return openTest(t, newFile(t)) }

// template makes an empty metadata file, and its cluster's id.
var template = sync.OnceValues(func() (file, cluster []byte) {
	folder, err := os.MkdirTemp("", "sqlite-template")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "metadata.db")
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		panic(err)
	}
	id := s.ClusterID()
	if err := s.Close(); err != nil {
		panic(err)
	}
	if file, err = os.ReadFile(path); err != nil {
		panic(err)
	}
	return file, id[:]
})

// newFile makes an empty metadata file of a new cluster and returns its path. It
// copies the template, which is faster than to begin anew.
func newFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "metadata.db")
	file, old := template()
	id := newID(time.Now())
	if err := os.WriteFile(path, bytes.Replace(file, old, id[:], 1), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func createTopic(t testing.TB, s *Store, name string, partitions int32) domain.Topic {
	t.Helper()
	return must[domain.Topic](t)(s.CreateTopic(t.Context(), domain.TopicSpec{Name: name, Partitions: partitions}))
}

// segmentOf reserves a segment with one batch of ten records for each of the partitions.
func segmentOf(t testing.TB, s *Store, topic domain.Topic, p ports.ProducerSession, first domain.Sequence, partitions int) commit.Segment {
	t.Helper()
	refs := must[[]ports.SegmentRef](t)(s.Reserve(context.Background(), 1))
	return fill(refs[0].ID, topic, p, first, partitions)
}

func fill(id domain.SegmentID, topic domain.Topic, p ports.ProducerSession, first domain.Sequence, partitions int) commit.Segment {
	seg := commit.Segment{ID: id, Size: int64(100 * partitions), CRC32C: 7}
	for i := range partitions {
		seg.Batches = append(seg.Batches, commit.Batch{
			Topic: topic.ID, Partition: domain.PartitionID(i), Producer: p.ID, Epoch: p.Epoch,
			FirstSequence: first, Records: 10, Position: int64(100 * i), Length: 100, MaxTimestamp: int64(first),
		})
	}
	return seg
}

func TestCommit_IsPlannedAndReplayedAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	s := openTest(t, path)
	topic := createTopic(t, s, "orders", 3)
	p := must[ports.ProducerSession](t)(s.RegisterProducer(t.Context(), ""))
	one := segmentOf(t, s, topic, p, 0, 3)
	two := segmentOf(t, s, topic, p, 10, 3)
	for _, r := range must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{one, two})) {
		for _, o := range r.Outcomes {
			if o.Status != commit.Accepted {
				t.Fatalf("outcome %v", o)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, path)
	again := must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{two}))
	if o := again[0].Outcomes[1]; o != (commit.Outcome{Status: commit.Accepted, Base: 10}) {
		t.Fatalf("replay answered %v", o)
	}
	third := segmentOf(t, s, topic, p, 10, 3)
	dup := must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{third}))
	if o := dup[0].Outcomes[2]; o != (commit.Outcome{Status: commit.Duplicate, Base: 10}) {
		t.Fatalf("repeat in another segment answered %v", o)
	}
	key := commit.PartitionKey{Topic: topic.ID, Partition: 1}
	plan := must[[]ports.Plan](t)(s.Plan(t.Context(), []ports.PlanRequest{{PartitionKey: key, From: 5, MaxBytes: 1000}}))[0]
	if plan.HighWatermark != 20 || len(plan.Extents) != 2 || plan.Extents[0].Base != 0 || plan.Extents[1].Last != 19 {
		t.Fatalf("plan %+v", plan)
	}
	if start := must[domain.Offset](t)(s.Trim(t.Context(), key, 15)); start != 15 {
		t.Fatalf("trimmed to %d", start)
	}
}
