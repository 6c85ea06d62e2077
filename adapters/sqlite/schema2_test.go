package sqlite

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// schema1 is what testdata/schema1.db.gz holds, a file that a program of schema 1 has
// written, told by that program.
type schema1 struct {
	Cluster    []byte
	Topics     []domain.Topic
	Partitions map[string][]domain.PartitionState
	Plans      map[string][]ports.Plan // from each partition's log start
	Segments   []struct {
		Segment            []byte
		Key                string
		State              ports.SegmentState
		Created, Committed int64
		Size               int64
		CRC32C             uint32
		Live               int
		Outcomes           []commit.Outcome
	}
	Sessions []ports.ProducerSession // an unnamed one, and one of billing
}

// schema1File unpacks the file, and says what it holds.
func schema1File(t *testing.T) (path string, held schema1) {
	t.Helper()
	packed := must[*gzip.Reader](t)(gzip.NewReader(bytes.NewReader(readFile(t, filepath.Join("testdata", "schema1.db.gz")))))
	path = filepath.Join(t.TempDir(), "metadata.db")
	writeFile(t, path, must[[]byte](t)(io.ReadAll(packed)))
	if err := json.Unmarshal(readFile(t, filepath.Join("testdata", "schema1.json")), &held); err != nil {
		t.Fatal(err)
	}
	return path, held
}

func TestSchema2_KeepsEverythingThatAFileOfSchema1Holds(t *testing.T) {
	path, held := schema1File(t)
	began := time.Now().Truncate(time.Millisecond)
	s := openTest(t, path)
	if id := s.ClusterID(); !bytes.Equal(id[:], held.Cluster) {
		t.Errorf("the cluster id is %s", id)
	}
	topics := must[[]domain.Topic](t)(s.ListTopics(t.Context()))
	if !reflect.DeepEqual(topics, held.Topics) {
		t.Errorf("topics are %+v, want %+v", topics, held.Topics)
	}
	committed := held.checkSegments(t, s, began)
	for _, topic := range topics {
		held.checkTopic(t, s, topic, committed)
	}
	held.checkReplays(t, s)
	held.checkSessions(t, s, topics[1])
	checkInvariants(t, path)
}

// checkSegments compares the rows of segments, and returns when each was
// committed.
func (held schema1) checkSegments(t *testing.T, s *Store, began time.Time) map[domain.SegmentID]int64 {
	t.Helper()
	rows := must[[]ports.SegmentRow](t)(s.Segments(t.Context(), domain.SegmentID{}, 100))
	if len(rows) != len(held.Segments) || len(rows) == 0 {
		t.Fatalf("%d segments, want %d", len(rows), len(held.Segments))
	}
	committed := make(map[domain.SegmentID]int64)
	states := make(map[ports.SegmentState]int)
	for i, want := range held.Segments {
		got := rows[i]
		states[got.State]++
		committed[got.ID] = want.Committed
		at := map[ports.SegmentState]int64{ports.SegmentPending: want.Created, ports.SegmentCommitted: want.Committed}[got.State]
		if got.State == ports.SegmentDeleting && got.StateAt.Before(began) || at != 0 && got.StateAt.UnixMilli() != at {
			t.Errorf("segment %+v came into its state at %s", want, got.StateAt)
		}
		if !bytes.Equal(got.ID[:], want.Segment) || got.Key != want.Key || got.State != want.State || got.Size != want.Size ||
			got.CRC32C != want.CRC32C || got.Live != want.Live || got.CreatedAt.UnixMilli() != want.Created {
			t.Errorf("segment is %+v, want %+v", got, want)
		}
	}
	if states[ports.SegmentPending] == 0 || states[ports.SegmentCommitted] == 0 || states[ports.SegmentDeleting] == 0 {
		t.Errorf("the file holds no segments of some state: %v", states)
	}
	return committed
}

func (held schema1) checkTopic(t *testing.T, s *Store, topic domain.Topic, committed map[domain.SegmentID]int64) {
	t.Helper()
	states := must[[]domain.PartitionState](t)(s.DescribePartitions(t.Context(), topic.ID))
	if !reflect.DeepEqual(states, held.Partitions[topic.Name]) {
		t.Errorf("partitions of %s are %+v, want %+v", topic.Name, states, held.Partitions[topic.Name])
	}
	for i, want := range held.Plans[topic.Name] {
		r := ports.PlanRequest{PartitionKey: commit.PartitionKey{Topic: topic.ID, Partition: domain.PartitionID(i)}, From: want.LogStart, MaxBytes: 1 << 30}
		got := must[[]ports.Plan](t)(s.Plan(t.Context(), []ports.PlanRequest{r}))[0]
		for j := range want.Extents {
			want.Extents[j].CommittedAt = committed[want.Extents[j].Segment]
		}
		if got.LogStart != want.LogStart || got.HighWatermark != want.HighWatermark || !slices.Equal(got.Extents, want.Extents) || got.Err != nil {
			t.Errorf("plan of %s/%d is %+v, want %+v", topic.Name, i, got, want)
		}
	}
}

func (held schema1) checkReplays(t *testing.T, s *Store) {
	t.Helper()
	for _, seg := range held.Segments {
		if seg.Outcomes == nil {
			continue
		}
		results := must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{{ID: domain.SegmentID(seg.Segment)}}))
		if !reflect.DeepEqual(results[0].Outcomes, seg.Outcomes) || results[0].Err != nil {
			t.Errorf("a replay of %x is answered %+v, want %v", seg.Segment, results[0], seg.Outcomes)
		}
	}
}

// checkSessions goes on from what the producers have sent. Their sessions have
// expired by any clock of today.
func (held schema1) checkSessions(t *testing.T, s *Store, orders domain.Topic) {
	t.Helper()
	s.now = func() time.Time { return time.UnixMilli(held.Segments[0].Created).Add(time.Hour) }
	unnamed, billing := held.Sessions[0], held.Sessions[1]
	batch := func(p ports.ProducerSession, partition domain.PartitionID, first domain.Sequence, records int32) commit.Batch {
		return commit.Batch{Topic: orders.ID, Partition: partition, Producer: p.ID, Epoch: p.Epoch, FirstSequence: first, Records: records, Length: 10}
	}
	var pending domain.SegmentID
	for _, seg := range held.Segments {
		if seg.State == ports.SegmentPending {
			pending = domain.SegmentID(seg.Segment)
		}
	}
	results := must[[]ports.CommitResult](t)(s.Commit(t.Context(), []commit.Segment{{ID: pending, Batches: []commit.Batch{
		batch(unnamed, 0, 10, 5), batch(unnamed, 1, 3, 4), batch(unnamed, 1, 7, 1), batch(billing, 0, 4, 1),
	}}}))
	want := []commit.Outcome{
		{Status: commit.Duplicate, Base: 10}, {Status: commit.DuplicateForgotten, Base: -1},
		{Status: commit.Accepted, Base: 9}, {Status: commit.Accepted, Base: 26},
	}
	if !reflect.DeepEqual(results[0].Outcomes, want) {
		t.Errorf("the producers' next batches are answered %v, want %v", results[0], want)
	}
	again := must[ports.ProducerSession](t)(s.RegisterProducer(t.Context(), "billing"))
	if again.ID != billing.ID || again.Epoch != billing.Epoch+1 {
		t.Errorf("session after %+v is %+v", billing, again)
	}
	s.now = time.Now
}

func TestSchema2_TakesUpkeepOfAFileOfSchema1(t *testing.T) {
	path, held := schema1File(t)
	s := openTest(t, path)
	later := time.UnixMilli(held.Segments[0].Created).Add(48 * time.Hour)
	if now := time.Now(); now.After(later) {
		later = now
	}
	s.now = func() time.Time { return later }
	key := commit.PartitionKey{Topic: held.Topics[1].ID, Partition: 2}
	must[domain.Topic](t)(s.SetRetention(t.Context(), key.Topic, domain.Retention{Age: time.Nanosecond}))
	r := must[ports.Removed](t)(s.Retain(t.Context(), key, 100))
	if want := (ports.Removed{Extents: 6, Bytes: 600, LogStart: 12}); r != want {
		t.Errorf("retention removed %+v, want %+v", r, want)
	}
	if err := s.DeleteTopic(t.Context(), key.Topic); err != nil {
		t.Fatal(err)
	}
	for r := (ports.Removed{More: true}); r.More; {
		r = must[ports.Removed](t)(s.PurgeTopics(t.Context(), 2))
	}
	if n := must[int](t)(s.ExpireReservations(t.Context(), time.Hour, 100)); n != 6 {
		t.Errorf("%d reservations have expired", n)
	}
	garbage := must[[]ports.SegmentRef](t)(s.Garbage(t.Context(), 0, domain.SegmentID{}, 100))
	if len(garbage) != len(held.Segments) {
		t.Errorf("%d of %d segments are garbage", len(garbage), len(held.Segments))
	}
	checkInvariants(t, path)
}

func TestSchema2_RefusesAFileOfSchema1WithADamagedExtent(t *testing.T) {
	for _, change := range []string{"length = 1", "segment_no = 999", "row_crc32c = 7"} {
		path, _ := schema1File(t)
		script(t, path, "UPDATE extents SET "+change+" WHERE partition_key & 0xfffff = 2")
		before := readFile(t, path)
		_, err := Open(t.Context(), path, Options{})
		if err == nil || ports.KindOf(err) != ports.Definite || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", change, err)
		}
		if !bytes.Equal(readFile(t, path), before) {
			t.Errorf("%s: the file has changed", change)
		}
	}
}

// A process that was started before the file was brought up to date must not
// write into it what a newer one cannot read.
func TestSchema2_StopsProgramsOfSchema1(t *testing.T) {
	path, _ := schema1File(t)
	openTest(t, path)
	for _, statement := range []string{
		`INSERT INTO extents (partition_key, base_offset, last_offset, segment_no, position, length, batches, max_timestamp, row_crc32c)
			VALUES (1048576, 1000, 1001, 1, 0, 1, 1, 0, 0)`,
		"UPDATE segments SET state = 2, committed_at = 1 WHERE segment_no = 1",
	} {
		s := openTest(t, path)
		err := s.write(t.Context(), "an old statement", func(c *conn) error { return c.exec(&query{statement}) })
		if ports.KindOf(err) != ports.Fatal {
			t.Errorf("%s: %v is %v", statement, err, ports.KindOf(err))
		}
	}
	checkInvariants(t, path)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
