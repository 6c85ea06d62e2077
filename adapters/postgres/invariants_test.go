package postgres

import "testing"

// violations are queries that must find nothing in any schema.
var violations = map[string]string{
	"a segment's live extents are those that refer to it": `SELECT segment_id::text FROM segments AS s
		WHERE live_extents <> (SELECT count(*) FROM extents AS e WHERE e.segment_id = s.segment_id)`,
	"an extent's segment exists and is committed": `SELECT e.segment_id::text FROM extents AS e
		LEFT JOIN segments AS s USING (segment_id) WHERE s.state IS DISTINCT FROM 2`,
	"a committed segment is live":     "SELECT segment_id::text FROM segments WHERE state = 2 AND live_extents = 0",
	"a pending segment is not judged": "SELECT segment_id::text FROM segments WHERE state = 1 AND (outcomes IS NOT NULL OR held IS NOT NULL)",
	"a committed segment is judged by a commit or a compaction": `SELECT segment_id::text FROM segments
		WHERE state = 2 AND (outcomes IS NULL) = (held IS NULL)`,
	"no segment is judged twice":            "SELECT segment_id::text FROM segments WHERE outcomes IS NOT NULL AND held IS NOT NULL",
	"a state is not older than its segment": "SELECT segment_id::text FROM segments WHERE state_at < created_at",
	"an extent was committed":               "SELECT base_offset::text FROM extents WHERE committed_at <= 0",
	"times rise with the offsets of a partition, but for compaction": `SELECT base_offset::text FROM
		(SELECT *, lag(committed_at) OVER (PARTITION BY topic_no, partition ORDER BY base_offset) AS before FROM extents) AS e
		WHERE committed_at < before`,
	"extents are dense": `SELECT base_offset::text FROM
		(SELECT *, lag(last_offset, 1, base_offset - 1) OVER (PARTITION BY topic_no, partition ORDER BY base_offset) AS before FROM extents) AS e
		JOIN partitions USING (topic_no, partition) WHERE base_offset <> before + 1`,
	"extents reach from the log start to the high watermark": `SELECT topic_no::text FROM partitions AS p WHERE next_offset > log_start AND
		((SELECT max(last_offset) FROM extents AS e WHERE e.topic_no = p.topic_no AND e.partition = p.partition) IS DISTINCT FROM next_offset - 1 OR
		 (SELECT min(base_offset) FROM extents AS e WHERE e.topic_no = p.topic_no AND e.partition = p.partition) > log_start)`,
	"no extent lies wholly below the log start": "SELECT base_offset::text FROM extents JOIN partitions USING (topic_no, partition) WHERE last_offset < log_start",
	"a partition's bytes are those of its extents": `SELECT topic_no::text FROM partitions AS p
		WHERE bytes <> (SELECT coalesce(sum(length), 0) FROM extents AS e WHERE e.topic_no = p.topic_no AND e.partition = p.partition)`,
	"a topic has all its partitions and no others, a deleted one none": `SELECT t.topic_no::text FROM topics AS t
		WHERE CASE WHEN deleted_at IS NULL THEN partitions ELSE 0 END <> (SELECT count(*) FROM partitions AS p WHERE p.topic_no = t.topic_no)
			OR deleted_at IS NULL AND partitions <> (SELECT count(*) FROM partitions AS p WHERE p.topic_no = t.topic_no AND p.partition < t.partitions)`,
	"what refers to a topic has one": `SELECT topic_no::text FROM
		(SELECT topic_no FROM partitions UNION ALL SELECT topic_no FROM extents UNION ALL SELECT topic_no FROM producer_partitions) AS r
		LEFT JOIN topics AS t USING (topic_no) WHERE t.topic_id IS NULL`,
	"a producer's sequences are of a producer, of no newer epoch, and at most five batches": `SELECT producer_id::text FROM producer_partitions AS s
		LEFT JOIN producers AS p USING (producer_id) WHERE p.epoch IS NULL OR s.epoch > p.epoch OR coalesce(array_length(recent, 1), 0) > 5
			OR array_length(recent, 2) <> 3`,
}

func checkInvariants(t *testing.T, o *opened) {
	t.Helper()
	c := o.connect(t)
	defer closeConn(c)
	for what, statement := range violations {
		if rows := must[[]string](t)(texts(t, c, statement)); len(rows) > 0 {
			t.Errorf("violated: %s: %v", what, rows)
		}
	}
}
