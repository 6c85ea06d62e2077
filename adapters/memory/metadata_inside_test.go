package memory_test

import (
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func BenchmarkMetadata(b *testing.B) {
	portstest.BenchmarkMetadataStore(b, func(testing.TB) ports.MetadataStore {
		return memory.NewMetadata(memory.MetadataOptions{Seed: 1})
	})
}

// fill makes some of every kind of row, and returns the snapshot.
func fill(t *testing.T, m *memory.Metadata) memory.Snapshot {
	t.Helper()
	ctx := t.Context()
	topic, err := m.CreateTopic(ctx, domain.TopicSpec{Name: "orders", Partitions: 2})
	check(t, err)
	session, err := m.RegisterProducer(ctx, "billing")
	check(t, err)
	refs, err := m.Reserve(ctx, 3)
	check(t, err)
	batch := func(first domain.Sequence) []commit.Batch {
		return []commit.Batch{{
			Topic: topic.ID, Partition: 1, Producer: session.ID, Epoch: session.Epoch,
			FirstSequence: first, Records: 5, Position: 64, Length: 100, MaxTimestamp: 7,
		}}
	}
	_, err = m.Commit(ctx, []commit.Segment{
		{ID: refs[0].ID, Size: 200, CRC32C: 9, Batches: batch(0)}, {ID: refs[1].ID, Batches: batch(0)},
	})
	check(t, err)
	return m.Snapshot()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestMetadata_SameSeedAndCallsGiveTheSameRows(t *testing.T) {
	var runs [3]memory.Snapshot
	for i, seed := range []uint64{7, 7, 8} {
		synctest.Test(t, func(t *testing.T) {
			runs[i] = fill(t, memory.NewMetadata(memory.MetadataOptions{Seed: seed}))
		})
	}
	if !reflect.DeepEqual(runs[0], runs[1]) {
		t.Errorf("seed 7 gave %+v and then %+v", runs[0], runs[1])
	}
	if runs[0].Topics[0].ID == runs[2].Topics[0].ID {
		t.Error("seeds 7 and 8 gave the same topic id")
	}
}

func TestMetadata_SeedZeroIsRandom(t *testing.T) {
	a, b := memory.NewMetadata(memory.MetadataOptions{}), memory.NewMetadata(memory.MetadataOptions{})
	if a.ClusterID() == b.ClusterID() {
		t.Error("two unseeded stores have one cluster id")
	}
}

func TestSnapshot_HoldsEveryRowSortedAndSharesNothing(t *testing.T) {
	m := memory.NewMetadata(memory.MetadataOptions{Seed: 3})
	s := fill(t, m)
	check(t, s.Check())
	if len(s.Topics) != 1 || len(s.Partitions) != 2 || len(s.Extents) != 1 || len(s.Segments) != 3 ||
		len(s.Producers) != 1 || len(s.Streams) != 1 {
		t.Fatalf("snapshot is %+v", s)
	}
	states := make(map[ports.SegmentState]int)
	for _, row := range s.Segments {
		states[row.State]++
	}
	if states[ports.SegmentCommitted] != 1 || states[ports.SegmentDeleting] != 1 || states[ports.SegmentPending] != 1 {
		t.Fatalf("segment states are %v", states)
	}
	s.Extents[0].Base, s.Streams[0].State.Recent[0].Base, s.Partitions[1].NextOffset = 99, 99, 99
	for i := range s.Segments {
		for j := range s.Segments[i].Outcomes {
			s.Segments[i].Outcomes[j].Base = 99
		}
	}
	if again := m.Snapshot(); reflect.DeepEqual(again, s) || again.Check() != nil {
		t.Error("a change of the snapshot changed the store")
	}
}

func TestSnapshotCheck_FindsWhatIsBroken(t *testing.T) {
	breaks := map[string]func(s *memory.Snapshot){
		"live extents are counted":       func(s *memory.Snapshot) { segmentIn(s, ports.SegmentCommitted).Live = 2 },
		"is deleting with 1 live":        func(s *memory.Snapshot) { segmentIn(s, ports.SegmentCommitted).State = ports.SegmentDeleting },
		"is pending with 0 live extents": func(s *memory.Snapshot) { segmentIn(s, ports.SegmentDeleting).State = ports.SegmentPending },
		"high watermark is 6":            func(s *memory.Snapshot) { s.Partitions[1].NextOffset = 6 },
		"does not hold the log":          func(s *memory.Snapshot) { s.Extents[0].Base = 1 },
		"bytes are counted":              func(s *memory.Snapshot) { s.Partitions[1].Bytes = 1 },
		"no extents from":                func(s *memory.Snapshot) { s.Extents = nil },
		"does not follow":                func(s *memory.Snapshot) { s.Extents = append(s.Extents, s.Extents[0]) },
		"extents but does not exist":     func(s *memory.Snapshot) { s.Partitions = s.Partitions[:1] },
		"has extents but":                func(s *memory.Snapshot) { s.Segments = nil },
	}
	for want, damage := range breaks {
		s := fill(t, memory.NewMetadata(memory.MetadataOptions{Seed: 3}))
		damage(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("check says %v, want %q", err, want)
		}
	}
}

func segmentIn(s *memory.Snapshot, state ports.SegmentState) *memory.SegmentRow {
	for i := range s.Segments {
		if s.Segments[i].State == state {
			return &s.Segments[i]
		}
	}
	panic("no segment in the state")
}

func TestMetadata_WakesBeforeCommitReturnsAndOutsideItsLock(t *testing.T) {
	m := memory.NewMetadata(memory.MetadataOptions{Seed: 3})
	var order []string
	for _, name := range []string{"first", "second"} {
		m.Subscribe(func() {
			order = append(order, name)
			m.Snapshot() // would block if the store were locked
		})
	}
	fill(t, m)
	if got := strings.Join(order, " "); got != "first second" {
		t.Errorf("woken: %q", got)
	}
}

// Cancel promises that wake is not running, and will not run, once it returned:
// else the race detector finds the write below.
func TestSubscribe_CancelWaitsForTheWakeInProgress(t *testing.T) {
	m := memory.NewMetadata(memory.MetadataOptions{Seed: 3})
	waking, committed := make(chan struct{}), make(chan struct{})
	woken := false
	cancel := m.Subscribe(func() {
		close(waking)
		runtime.Gosched()
		woken = true
	})
	go func() {
		defer close(committed)
		fill(t, m)
	}()
	<-waking
	cancel()
	if !woken {
		t.Error("cancel returned while wake was running")
	}
	<-committed
}

func TestMetadata_ForgetsExpiredSessionsOfMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory.NewMetadata(memory.MetadataOptions{Seed: 3})
		fill(t, m)
		for range 100 {
			_, err := m.RegisterProducer(t.Context(), "")
			check(t, err)
		}
		time.Sleep(ports.ProducerExpiry)
		_, err := m.RegisterProducer(t.Context(), "")
		check(t, err)
		if s := m.Snapshot(); len(s.Producers) != 2 || len(s.Streams) != 0 {
			t.Errorf("left are the producers %+v and streams %+v, want the named and the new", s.Producers, s.Streams)
		}
	})
}

func TestCluster_JoinsBothStores(t *testing.T) {
	c := memory.NewCluster()
	var _ ports.Cluster = c
	check(t, c.Segments().Put(t.Context(), "segments/00/a", []byte("body")))
	_, err := c.Metadata().ListTopics(t.Context())
	check(t, err)
	check(t, c.Close())
	if _, err := c.Metadata().ListTopics(t.Context()); ports.KindOf(err) != ports.Definite {
		t.Errorf("closed cluster answered %v", err)
	}
}
