package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// everyUpkeep makes each call of upkeep and inspection do some work.
func everyUpkeep(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	keep, drop, empty := createTopic(t, s, "keep", 2), createTopic(t, s, "drop", 2), createTopic(t, s, "empty", 1)
	p := must[ports.ProducerSession](t)(s.RegisterProducer(ctx, "billing"))
	for i := range domain.Sequence(6) {
		must[[]ports.CommitResult](t)(s.Commit(ctx, []commit.Segment{segmentOf(t, s, keep, p, 10*i, 2), segmentOf(t, s, drop, p, 10*i, 2)}))
	}
	key := commit.PartitionKey{Topic: keep.ID}
	plans := must[[]ports.Plan](t)(s.Plan(ctx, []ports.PlanRequest{{PartitionKey: key, From: 30, MaxBytes: 1 << 20}}))
	refs := must[[]ports.SegmentRef](t)(s.Reserve(ctx, 3))
	c := commit.Compaction{ID: refs[0].ID, Size: 1000, Copies: []commit.Copy{{}}}
	for _, e := range plans[0].Extents {
		c.Copies[0].Of = append(c.Copies[0].Of, e.Extent)
	}
	for range 2 {
		if held := must[int](t)(s.Replace(ctx, c)); held != 1 {
			t.Fatalf("%d copies hold", held)
		}
	}
	must[domain.Offset](t)(s.Trim(ctx, key, 10))
	must[domain.Topic](t)(s.SetRetention(ctx, keep.ID, domain.Retention{Age: time.Nanosecond, Bytes: 1}))
	if due := must[[]commit.PartitionKey](t)(s.RetentionDue(ctx, ports.FirstPartition, 100)); len(due) != 2 {
		t.Fatalf("retention is due for %v", due)
	}
	if r := must[ports.Removed](t)(s.Retain(ctx, key, 2)); r.Extents != 2 {
		t.Fatalf("retention removed %+v", r)
	}
	for _, id := range []domain.TopicID{drop.ID, empty.ID} {
		if err := s.DeleteTopic(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	must[[]ports.ExtentRef](t)(s.Extents(ctx, ports.FirstExtent, 100))
	must[ports.Removed](t)(s.PurgeTopics(ctx, 5))
	if r := must[ports.Removed](t)(s.PurgeTopics(ctx, 100)); r.Extents != 7 {
		t.Fatalf("the purge removed %+v", r)
	}
	if n := must[int](t)(s.ExpireReservations(ctx, 0, 100)); n != 2 {
		t.Fatalf("%d reservations expired", n)
	}
	var ids []domain.SegmentID
	for _, g := range must[[]ports.SegmentRef](t)(s.Garbage(ctx, 0, domain.SegmentID{}, 100)) {
		ids = append(ids, g.ID)
	}
	if err := s.MarkDeleted(ctx, ids); err != nil {
		t.Fatal(err)
	}
	if n := must[int](t)(s.ForgetDeleted(ctx, 0, 100)); n != len(ids) || n < 8 {
		t.Fatalf("%d segments were forgotten of %d", n, len(ids))
	}
	must[[]ports.SegmentRow](t)(s.Segments(ctx, domain.SegmentID{}, 100))
	must[[]ports.SegmentRow](t)(s.SegmentsByID(ctx, []domain.SegmentID{refs[0].ID, refs[1].ID}))
}

// wholeTable finds in a query plan what costs by the size of a table. One row of the deleted
// topics that wait costs the same however many there are.
var (
	wholeTable = regexp.MustCompile(`^SCAN (\w+)|TEMP B-TREE|AUTOMATIC`)
	harmless   = regexp.MustCompile(`^SCAN (v|\d+ CONSTANT ROWS?|CONSTANT ROW|\d+-ROW VALUES CLAUSE|\(subquery-\d+\)|deleted_topics USING (COVERING )?INDEX deleted_topics_(full|empty))$`)
)

func TestUpkeep_NoStatementCostsByTheSizeOfATable(t *testing.T) {
	s := newTest(t)
	everyUpkeep(t, s)
	texts := make(map[string]bool)
	for _, pool := range []chan *conn{s.writer, s.idle} {
		for range cap(pool) {
			c := <-pool
			if c != nil {
				for q := range c.stmts {
					texts[q.text] = true
				}
			}
			pool <- c
		}
	}
	if len(texts) < 40 {
		t.Fatalf("only %d statements were prepared", len(texts))
	}
	explain := regexp.MustCompile(`^\s*(SELECT|WITH|UPDATE|DELETE|INSERT|REPLACE)`)
	allowed := map[string]bool{"SELECT topic_no, topic_id, name, partitions, retention_ns, retention_bytes, created_at FROM topics ORDER BY name": true}
	for text := range texts {
		if !explain.MatchString(text) || allowed[text] {
			continue
		}
		err := s.read(t.Context(), "explain", func(c *conn) error {
			return c.query(&query{"EXPLAIN QUERY PLAN " + text}, func(r *row) error {
				if step := r.text(3); wholeTable.MatchString(step) && !harmless.MatchString(step) && !strings.HasPrefix(text, "WITH RECURSIVE") {
					t.Errorf("%s: %s", step, text)
				}
				return nil
			}, make([]driver.Value, strings.Count(text, "?"))...)
		})
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// fillFast writes a topic's extents past the port, each in a segment of its own.
func fillFast(t testing.TB, s *Store, topic domain.Topic, extents int) {
	t.Helper()
	err := s.write(context.Background(), "fill", func(c *conn) error {
		numbered, err := c.topicByID(topic.ID)
		if err != nil {
			return err
		}
		pk := partitionKey(numbered.no, 0)
		now := time.Now()
		insert := query{"INSERT INTO segments (segment_id, object_key, state, created_at, state_at, live_extents, outcomes) VALUES (?, ?, 2, ?, ?, 1, ?) RETURNING segment_no"}
		for i := range extents {
			id := domain.SegmentID(newID(now))
			e := commit.Extent{Base: domain.Offset(i), Last: domain.Offset(i), Length: 100, Batches: 1, CommittedAt: now.UnixMilli()}
			var no int64
			err := c.query(&insert, func(r *row) error { no = r.int(0); return nil }, id[:], segment.Key(id), now.UnixMilli(), now.UnixMilli(), packOutcomes(nil))
			if err == nil {
				err = c.execBulk(insertExtents, insertArgs(nil, pk, no, e))
			}
			if err != nil {
				return err
			}
		}
		p := commit.Partition{NextOffset: domain.Offset(extents), Bytes: 100 * int64(extents)}
		return c.exec(&updateBounds, int64(p.LogStart), int64(p.NextOffset), p.Bytes, sumOfPartition(p), pk)
	})
	if err != nil {
		t.Fatal(err)
	}
}

var updateBounds = query{"UPDATE partitions SET log_start = ?, next_offset = ?, bytes = ?, row_crc32c = ? WHERE partition_key = ?"}

func TestDeleteTopic_DoesNotCostByWhatTheTopicHolds(t *testing.T) {
	s := newTest(t)
	changes := func(extents int) int64 {
		topic := createTopic(t, s, fmt.Sprintf("topic-%d", extents), 1)
		fillFast(t, s, topic, extents)
		before := s.changes(t)
		if err := s.DeleteTopic(t.Context(), topic.ID); err != nil {
			t.Fatal(err)
		}
		return s.changes(t) - before
	}
	few, many := changes(1), changes(5000)
	if few != many {
		t.Errorf("deleting a topic of one extent changes %d rows, of 5000 it changes %d", few, many)
	}
	for left := 5001; left > 0; {
		before := s.changes(t)
		r := must[ports.Removed](t)(s.PurgeTopics(t.Context(), 700))
		left -= r.Extents
		// An extent, its segment, and a few rows of topics.
		if n := s.changes(t) - before; n > 2*700+10 || r.Extents == 0 {
			t.Fatalf("a step of %d extents changed %d rows", r.Extents, n)
		}
	}
	checkInvariants(t, s.path)
}

// changes is how many rows the writing connection has changed.
func (s *Store) changes(t *testing.T) (n int64) {
	t.Helper()
	err := s.write(t.Context(), "look", func(c *conn) error {
		v, err := c.value("SELECT total_changes()")
		n, _ = v.(int64)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The sequences of a deleted topic go in steps, and sessions last as long as
// what was sent to it said.
func TestPurgeTopics_SweepsWhatProducersSentInSteps(t *testing.T) {
	s := newTest(t)
	const producers = 9
	topic, keep := createTopic(t, s, "drop", 3), createTopic(t, s, "keep", 1)
	clock := time.Now()
	s.now = func() time.Time { return clock }
	var sessions []ports.ProducerSession
	for range producers {
		sessions = append(sessions, must[ports.ProducerSession](t)(s.RegisterProducer(t.Context(), "")))
	}
	clock = clock.Add(30 * time.Minute) // less than active_at may be late
	for _, p := range sessions {
		must[domain.Offset](t)(commitOnce(t.Context(), s, topic, p, 0))
	}
	if err := s.DeleteTopic(t.Context(), topic.ID); err != nil {
		t.Fatal(err)
	}
	counts := func() (topics, streams int64) {
		err := s.read(t.Context(), "count", func(c *conn) error {
			a, errA := c.value("SELECT count(*) FROM deleted_topics")
			b, errB := c.value("SELECT count(*) FROM producer_partitions")
			topics, _ = a.(int64)
			streams, _ = b.(int64)
			if errA != nil {
				return errA
			}
			return errB
		})
		if err != nil {
			t.Fatal(err)
		}
		return topics, streams
	}
	_, left := counts()
	if left == 0 {
		t.Fatal("nothing was sent")
	}
	steps := 0
	for topics := int64(1); topics > 0; steps++ {
		before := left
		must[ports.Removed](t)(s.PurgeTopics(t.Context(), 4))
		if topics, left = counts(); before-left > 4 || steps > 100 {
			t.Fatalf("step %d removed %d of %d rows", steps, before-left, before)
		}
		checkInvariants(t, s.path)
	}
	if left != 0 || steps < 4 {
		t.Errorf("%d rows are left after %d steps", left, steps)
	}
	clock = clock.Add(ports.ProducerExpiry - time.Minute)
	for _, p := range sessions {
		if _, err := commitOnce(t.Context(), s, keep, p, 0); err != nil {
			t.Errorf("the session has not lasted: %v", err)
		}
	}
}

func TestTrim_TakesMoreExtentsThanOneStatement(t *testing.T) {
	s := newTest(t)
	topic := createTopic(t, s, "orders", 1)
	const extents = ports.MaxUpkeep + 500
	fillFast(t, s, topic, extents)
	key := commit.PartitionKey{Topic: topic.ID}
	if start := must[domain.Offset](t)(s.Trim(t.Context(), key, extents-3)); start != extents-3 {
		t.Errorf("trimmed to %d", start)
	}
	state := must[[]domain.PartitionState](t)(s.DescribePartitions(t.Context(), topic.ID))[0]
	if want := (domain.PartitionState{LogStart: extents - 3, HighWatermark: extents, Bytes: 300}); state != want {
		t.Errorf("partition is %+v, want %+v", state, want)
	}
	garbage := must[[]ports.SegmentRef](t)(s.Garbage(t.Context(), 0, domain.SegmentID{}, ports.MaxUpkeep))
	if len(garbage) != ports.MaxUpkeep {
		t.Errorf("%d segments are garbage", len(garbage))
	}
	checkInvariants(t, s.path)
}
