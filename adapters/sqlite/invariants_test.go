package sqlite

import (
	"database/sql"
	"testing"
)

// violations are queries that must find nothing in any metadata file.
var violations = map[string]string{
	"a segment's live extents are those that refer to it": `SELECT segment_no FROM segments AS s
		WHERE live_extents <> (SELECT count(*) FROM extents AS e WHERE e.segment_no = s.segment_no)`,
	"an extent's segment exists and is committed": `SELECT e.segment_no FROM extents AS e
		LEFT JOIN segments AS s USING (segment_no) WHERE s.state IS NOT 2`,
	"a committed segment is live":     "SELECT segment_no FROM segments WHERE state = 2 AND live_extents = 0",
	"a pending segment is not judged": "SELECT segment_no FROM segments WHERE state = 1 AND (outcomes IS NOT NULL OR replaced IS NOT NULL)",
	"a pending segment is among the reservations": `SELECT segment_no FROM segments AS s WHERE state = 1
		AND NOT EXISTS (SELECT 1 FROM reservations AS r WHERE segment_no BETWEEN first_no AND last_no AND r.created_at = s.created_at)`,
	"a committed segment is judged by a commit or a compaction": `SELECT segment_no FROM segments
		WHERE state = 2 AND (outcomes IS NULL) = (replaced IS NULL)`,
	"no segment is judged twice": "SELECT segment_no FROM segments WHERE outcomes IS NOT NULL AND replaced IS NOT NULL",
	"a state is known, and not older than its segment": `SELECT segment_no FROM segments
		WHERE state NOT BETWEEN 1 AND 4 OR state_at < created_at`,
	"an extent was committed": "SELECT base_offset FROM extents WHERE committed_at <= 0",
	"extents are dense": `SELECT partition_key, base_offset FROM
		(SELECT *, lag(last_offset, 1, base_offset - 1) OVER (PARTITION BY partition_key ORDER BY base_offset) AS before FROM extents)
		WHERE base_offset <> before + 1 OR last_offset < base_offset`,
	"extents reach from the log start to the high watermark": `SELECT partition_key FROM partitions AS p
		WHERE next_offset > log_start AND
			((SELECT max(last_offset) FROM extents AS e WHERE e.partition_key = p.partition_key) IS NOT next_offset - 1 OR
			 (SELECT min(base_offset) FROM extents AS e WHERE e.partition_key = p.partition_key) > log_start)`,
	"no extent lies wholly below the log start": `SELECT partition_key FROM extents JOIN partitions USING (partition_key)
		WHERE last_offset < log_start`,
	"a partition's bytes are those of its extents": `SELECT partition_key FROM partitions AS p
		WHERE bytes <> (SELECT coalesce(sum(length), 0) FROM extents AS e WHERE e.partition_key = p.partition_key)`,
	"a partition belongs to a topic that counts it": `SELECT partition_key FROM partitions
		LEFT JOIN topics ON topic_no = partition_key >> 20 WHERE partition_key & 0xfffff >= coalesce(partitions, 0)`,
	"a topic has all its partitions": `SELECT topic_no FROM topics AS t
		WHERE partitions <> (SELECT count(*) FROM partitions WHERE partition_key >> 20 = t.topic_no)`,
	"an extent's partition exists, or its topic is to be purged": `SELECT partition_key FROM extents
		LEFT JOIN partitions AS p USING (partition_key) LEFT JOIN deleted_topics AS d ON d.topic_no = partition_key >> 20
		WHERE (p.bytes IS NULL) = (d.topic_no IS NULL)`,
	"a deleted topic's sequences are swept when it is empty": `SELECT topic_no FROM deleted_topics AS d
		WHERE (swept IS NULL) <> EXISTS (SELECT 1 FROM extents WHERE partition_key >> 20 = d.topic_no)`,
	"no topic is deleted and there": "SELECT topic_no FROM topics JOIN deleted_topics USING (topic_no)",
	"a producer's sequences belong to a topic": `SELECT partition_key FROM producer_partitions
		LEFT JOIN topics AS t ON t.topic_no = partition_key >> 20 LEFT JOIN deleted_topics AS d ON d.topic_no = partition_key >> 20
		WHERE t.topic_no IS NULL AND d.topic_no IS NULL`,
}

func checkInvariants(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=rw&_query_only=1&_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for what, query := range violations {
		rows, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(what, err)
		}
		if rows.Next() {
			t.Errorf("violated: %s", what)
		}
		if err := rows.Close(); err != nil {
			t.Error(what, err)
		}
	}
	var healthy string
	if err := db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&healthy); err != nil || healthy != "ok" {
		t.Errorf("integrity: %s, %v", healthy, err)
	}
}
