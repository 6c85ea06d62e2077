package postgres

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/ports"
)

// fillMany makes 40 topics of 50 partitions, 20,000 segments in all states, 20,000 extents and as many
// producers, and nothing of it analysed.
const fillMany = `
	INSERT INTO topics (topic_id, name, partitions, retention_ns, retention_bytes, created_at, deleted_at)
		SELECT gen_random_uuid(), 'topic-' || n, 50, 3600000000000, 1000, 1, CASE WHEN n > 35 THEN 1 END FROM generate_series(1, 40) AS n;
	INSERT INTO partitions (topic_no, partition, next_offset, bytes) SELECT topic_no, n, 10, 1000 FROM topics, generate_series(0, 49) AS n WHERE deleted_at IS NULL;
	INSERT INTO segments (segment_id, object_key, state, created_at, state_at, live_extents)
		SELECT gen_random_uuid(), 'key', 1 + n % 4, 1, 1, CASE n % 4 WHEN 1 THEN 100000 ELSE 0 END FROM generate_series(1, 20000) AS n;
	INSERT INTO extents (topic_no, partition, base_offset, last_offset, segment_id, position, length, batches, max_timestamp, committed_at)
		SELECT topic_no, p, n, n, s.segment_id, 1, 100, 1, 1, 1 FROM topics, generate_series(0, 49) AS p, generate_series(0, 9) AS n,
		(SELECT segment_id FROM segments WHERE state = 2 LIMIT 1) AS s;
	INSERT INTO producers (name, epoch, active_at) SELECT CASE n % 2 WHEN 0 THEN 'producer-' || n END, 0, 1 FROM generate_series(1, 20000) AS n;
	INSERT INTO producer_partitions (producer_id, topic_no, partition, accepted_at, epoch, last_sequence, recent)
		SELECT producer_id, 1 + producer_id % 40, 0, 1, 0, 1, '{}' FROM producers`

var buffers = regexp.MustCompile(`Buffers: shared((?: (?:hit|read|dirtied|written)=\d+)+)`)

// touched is how many pages a statement looks at: the first line of the plan sums them up.
func touched(t *testing.T, plan []string) int {
	t.Helper()
	for _, line := range plan {
		if m := buffers.FindStringSubmatch(line); m != nil {
			sum := 0
			for _, part := range strings.Fields(m[1]) {
				name, n, _ := strings.Cut(part, "=")
				if name == "hit" || name == "read" {
					sum += must[int](t)(strconv.Atoi(n))
				}
			}
			return sum
		}
	}
	t.Fatalf("a plan without buffers:\n%s", strings.Join(plan, "\n"))
	return 0
}

// The tables have hundreds of pages each; a step of ten rows looks at some ten pages of an index and
// of a table for each row, however much there is, analysed or not. (Not so retentionDue, which looks at all
// partitions.)
func TestStatements_CostByTheirLimitNotByTheTables(t *testing.T) {
	s := newTest(t, Options{})
	c := s.connect(t)
	defer closeConn(c)
	if _, err := c.Exec(t.Context(), fillMany); err != nil {
		t.Fatal(err)
	}
	var topic, deleted, segment [16]byte
	row := c.QueryRow(t.Context(), `SELECT (SELECT topic_id FROM topics WHERE topic_no = 7), (SELECT topic_id FROM topics WHERE topic_no = 37), segment_id FROM segments WHERE state = 3 LIMIT 1`)
	if err := row.Scan(&topic, &deleted, &segment); err != nil {
		t.Fatal(err)
	}
	const limit = 10
	one := func(v any) []any { return []any{v} }
	statements := map[string][]any{
		planReads:         {[][16]byte{topic, topic}, []int32{1, 2}, []int64{3, 4}, []int64{300, 300}, []int32{10, 10}},
		extentByTime:      {topic, int32(1), int64(1)},
		topicByID:         one(topic),
		topicByName:       one("topic-7"),
		topicNumbers:      one([][16]byte{topic}),
		lockProducers:     one([]int64{7, 8}),
		lockPartitions:    {[]int64{7, 7}, []int32{1, 2}},
		streamsByKey:      {[]int64{7}, []int64{8}, []int32{0}},
		lastAccepted:      one(int64(7)),
		lockSegments:      one([][16]byte{segment}),
		lockSegmentsBelow: {int64(7), int32(1), int64(5)},
		dropExtentsBelow:  {int64(7), int32(1), int64(5)},
		oldestExtents:     {int64(7), int32(1), limit},
		lockDeletedTopic:  one([16]byte{}),
		lockPurged:        {int64(37), limit},
		purgeExtents:      {int64(37), limit},
		someStreams:       {int64(37), limit},
		deleteTopicEmpty:  one(int64(37)),
		expirePending:     {int64(1000), limit},
		forgetDeleted:     {int64(1000), limit},
		markDeleted:       one([][16]byte{segment}),
		listGarbage:       {[16]byte{}, int64(1000), limit},
		listExtents:       {topic, int32(3), int64(4), limit},
		segmentsAfter:     {[16]byte{}, limit},
		segmentsByID:      one([][16]byte{segment}),
		lockProducer:      one("producer-10"),
		lockIdle:          one(ports.ProducerExpiry.Milliseconds()),
		deleteIdle:        {ports.ProducerExpiry.Milliseconds(), []int64{7, 9}},
		presentExtents:    {[]int64{7}, []int32{1}, []int64{2}, []int64{4}},
		dropReplaced:      {[]int64{7}, []int32{1}, []int64{2}},
	}
	for _, analysed := range []bool{false, true} {
		if analysed {
			if _, err := c.Exec(t.Context(), "VACUUM ANALYZE topics, partitions, segments, extents, producers, producer_partitions"); err != nil {
				t.Fatal(err)
			}
		}
		for statement, args := range statements {
			tx := must[pgx.Tx](t)(c.Begin(t.Context()))
			plan, err := texts(t, tx, "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF) "+statement, args...)
			if err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
			if n := touched(t, plan); n > 400 {
				t.Errorf("analysed %v: %d pages for\n%s\n%s", analysed, n, statement, strings.Join(plan, "\n"))
			}
			rollBack(tx)
		}
	}
}
