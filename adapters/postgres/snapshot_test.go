package postgres

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// snapshotOf reads all rows of s, in the form that the store in memory gives
// its own.
func snapshotOf(t *testing.T, s *opened) (all memory.Snapshot) {
	t.Helper()
	all.Topics = must[[]domain.Topic](t)(s.ListTopics(t.Context()))
	for _, e := range must[[]ports.ExtentRef](t)(s.Extents(t.Context(), ports.FirstExtent, ports.MaxUpkeep)) {
		all.Extents = append(all.Extents, e.Extent)
	}
	c := s.connect(t)
	defer closeConn(c)
	for statement, add := range map[string]func(pgx.Rows) error{
		`SELECT topic_id, partition, log_start, next_offset, bytes FROM partitions JOIN topics USING (topic_no)`: func(r pgx.Rows) error {
			var topic [16]byte
			var p memory.PartitionRow
			err := r.Scan(&topic, &p.Partition, &p.LogStart, &p.NextOffset, &p.Bytes)
			p.Topic = topic
			all.Partitions = append(all.Partitions, p)
			return err
		},
		`SELECT segment_id, object_key, state, created_at, size_bytes, crc32c, live_extents, held IS NOT NULL, outcomes FROM segments ORDER BY segment_id`: func(r pgx.Rows) error {
			var id [16]byte
			var state int16
			var created, sum int64
			var packed *[]int64
			var row memory.SegmentRow
			err := r.Scan(&id, &row.Key, &state, &created, &row.Size, &sum, &row.Live, &row.Replaced, &packed)
			row.ID, row.State, row.CreatedAt, row.CRC32C = id, ports.SegmentState(state), time.UnixMilli(created), uint32(sum)
			if packed != nil {
				row.Outcomes = unpackOutcomes(*packed)
			}
			all.Segments = append(all.Segments, row)
			return err
		},
		`SELECT producer_id, coalesce(name, ''), epoch, greatest(active_at, (SELECT max(accepted_at) FROM producer_partitions AS s WHERE s.producer_id = p.producer_id))
			FROM producers AS p ORDER BY producer_id`: func(r pgx.Rows) error {
			var active int64
			var row memory.ProducerRow
			err := r.Scan(&row.ID, &row.Name, &row.Epoch, &active)
			row.ActiveAt = time.UnixMilli(active)
			all.Producers = append(all.Producers, row)
			return err
		},
		`SELECT producer_id, topic_id, partition, epoch, last_sequence, recent FROM producer_partitions JOIN topics USING (topic_no)
			WHERE deleted_at IS NULL ORDER BY producer_id, topic_id, partition`: func(r pgx.Rows) error {
			var topic [16]byte
			var stream streamRow
			var row memory.StreamRow
			err := r.Scan(&row.Producer, &topic, &row.Partition, &stream.epoch, &stream.last, &stream.recent)
			row.Topic, row.State = topic, *stream.state()
			all.Streams = append(all.Streams, row)
			return err
		},
	} {
		if err := query(t.Context(), c, statement, add); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(all.Partitions, func(a, b memory.PartitionRow) int { return comparePartitions(a.PartitionKey, b.PartitionKey) })
	return all
}
