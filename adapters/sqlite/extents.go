package sqlite

import (
	"database/sql/driver"
	"maps"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// An extent without its segment shows as a damaged row.
const extentColumns = `SELECT e.partition_key, e.base_offset, e.last_offset, e.position, e.length, e.batches, e.max_timestamp, e.committed_at,
	e.segment_no, e.row_crc32c, s.segment_id, s.object_key
	FROM extents AS e LEFT JOIN segments AS s ON s.segment_no = e.segment_no `

var (
	// Of the partition ?1 from the extent on that holds the offset ?2.
	extentsFrom = query{extentColumns + `WHERE e.partition_key = ?1 AND e.base_offset >=
		(SELECT max(base_offset) FROM extents WHERE partition_key = ?1 AND base_offset <= ?2) ORDER BY e.base_offset LIMIT ?3`}
	extentByTime = query{extentColumns + `WHERE e.partition_key = ? AND e.max_timestamp >= ? ORDER BY e.base_offset LIMIT 1`}
	// Of the partition ?1, those with base offsets from ?2 to ?3.
	extentsBetween = query{extentColumns + `WHERE e.partition_key = ?1 AND e.base_offset BETWEEN ?2 AND ?3 ORDER BY e.base_offset LIMIT ?4`}
	// Of the partitions up to ?3, those after the base offset ?2 of the partition ?1.
	extentsAfter = query{extentColumns + `WHERE (e.partition_key, e.base_offset) > (?1, ?2) AND e.partition_key <= ?3
		ORDER BY e.partition_key, e.base_offset LIMIT ?4`}

	deleteExtents = query{"DELETE FROM extents WHERE partition_key = ? AND base_offset BETWEEN ? AND ?"}
	// The segments v.no that lose v.n extents at v.at.
	releaseSegments = newBulk("WITH v(no, n, at) AS (VALUES ", "(?, ?, ?)",
		`) UPDATE segments SET
			live_extents = live_extents - v.n,
			state = CASE WHEN live_extents = v.n THEN 3 ELSE state END,
			state_at = CASE WHEN live_extents = v.n THEN v.at ELSE state_at END
		FROM v WHERE segment_no = v.no`)
)

// extentRow is an extent and the keys that its row has.
type extentRow struct {
	ports.ExtentRef
	partition int64
	segment   int64
}

// scanExtent reads a row of extentColumns, of a partition of the topic.
func scanExtent(r *row, topic domain.TopicID) extentRow {
	e := extentRow{partition: r.int(0), segment: r.int(8), ExtentRef: ports.ExtentRef{
		Extent: commit.Extent{
			Topic: topic, Partition: partitionOf(r.int(0)),
			Base: domain.Offset(r.int(1)), Last: domain.Offset(r.int(2)),
			Position: r.int(3), Length: r.int(4), Batches: int32(r.int(5)), MaxTimestamp: r.int(6), CommittedAt: r.int(7),
			Segment: domain.SegmentID(r.uuid(10)),
		},
		ObjectKey: r.text(11),
	}}
	if r.int(9) != sumOfExtent(e.partition, e.segment, e.Extent) && r.err == nil {
		r.err = damagedError("an extent's row does not have its checksum")
	}
	return e
}

// extentRows returns what q finds, of partitions of the topic.
func (c *conn) extentRows(q *query, topic domain.TopicID, args ...driver.Value) ([]extentRow, error) {
	var rows []extentRow
	err := c.query(q, func(r *row) error {
		rows = append(rows, scanExtent(r, topic))
		return nil
	}, args...)
	return rows, err
}

func extentsOf(rows []extentRow) []commit.Extent {
	extents := make([]commit.Extent, len(rows))
	for i, r := range rows {
		extents[i] = r.Extent
	}
	return extents
}

func lengthOf(rows []extentRow) (sum int64) {
	for _, r := range rows {
		sum += r.Length
	}
	return sum
}

// dropExtents deletes the rows and lets go of their segments. Rows that follow each
// other in the log go together.
func (c *conn) dropExtents(rows []extentRow, now int64) error {
	for first := 0; first < len(rows); {
		end := first + 1
		for end < len(rows) && rows[end].partition == rows[first].partition && rows[end].Base == rows[end-1].Last+1 {
			end++
		}
		if err := c.exec(&deleteExtents, rows[first].partition, int64(rows[first].Base), int64(rows[end-1].Base)); err != nil {
			return err
		}
		first = end
	}
	if mutant.On(mutantTrimKeepsSegment) {
		return nil
	}
	lost := make(map[int64]int64)
	for _, r := range rows {
		lost[r.segment]++
	}
	args := make([]driver.Value, 0, len(lost)*releaseSegments.width)
	for _, no := range slices.Sorted(maps.Keys(lost)) {
		args = append(args, no, lost[no], now)
	}
	return c.execBulk(releaseSegments, args)
}

// insertArgs appends the values of insertExtents for e.
func insertArgs(args []driver.Value, partition, segment int64, e commit.Extent) []driver.Value {
	return append(args, partition, int64(e.Base), int64(e.Last), segment,
		e.Position, e.Length, int64(e.Batches), e.MaxTimestamp, e.CommittedAt, sumOfExtent(partition, segment, e))
}
