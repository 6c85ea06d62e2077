package sqlite

import (
	"slices"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// snapshotOf reads all rows of s, in the form that the store in memory gives
// its own.
func snapshotOf(t *testing.T, s *Store) (all memory.Snapshot) {
	t.Helper()
	err := s.read(t.Context(), "snapshot", func(c *conn) error {
		all = memory.Snapshot{}
		for _, part := range []struct {
			text string
			add  func(*row) error
		}{
			{"SELECT topic_no, topic_id, name, partitions, retention_ns, retention_bytes, created_at FROM topics ORDER BY name",
				func(r *row) error {
					all.Topics = append(all.Topics, scanTopic(r).Topic)
					return nil
				}},
			{`SELECT topic_id, partition_key & 0xfffff, log_start, next_offset, bytes
				FROM partitions JOIN topics ON topic_no = partition_key >> 20 ORDER BY topic_id, partition_key`,
				func(r *row) error {
					all.Partitions = append(all.Partitions, memory.PartitionRow{
						PartitionKey: scanKey(r), LogStart: domain.Offset(r.int(2)), NextOffset: domain.Offset(r.int(3)), Bytes: r.int(4),
					})
					return nil
				}},
			{`SELECT topic_id, partition_key & 0xfffff, base_offset, last_offset, segment_id, position, length, batches, max_timestamp, committed_at
				FROM extents JOIN (SELECT topic_no, topic_id FROM topics UNION ALL SELECT topic_no, topic_id FROM deleted_topics)
				ON topic_no = partition_key >> 20 JOIN segments USING (segment_no)
				ORDER BY topic_id, partition_key, base_offset`,
				func(r *row) error {
					key := scanKey(r)
					all.Extents = append(all.Extents, commit.Extent{
						Topic: key.Topic, Partition: key.Partition, Base: domain.Offset(r.int(2)), Last: domain.Offset(r.int(3)),
						Segment: domain.SegmentID(r.uuid(4)), Position: r.int(5), Length: r.int(6), Batches: int32(r.int(7)), MaxTimestamp: r.int(8), CommittedAt: r.int(9),
					})
					return nil
				}},
			{`SELECT segment_id, object_key, state, created_at, size_bytes, crc32c, live_extents, outcomes, replaced IS NOT NULL FROM segments ORDER BY segment_id`,
				func(r *row) error {
					seg := memory.SegmentRow{
						ID: domain.SegmentID(r.uuid(0)), Key: r.text(1), State: ports.SegmentState(r.int(2)),
						CreatedAt: time.UnixMilli(r.int(3)), Size: r.int(4), CRC32C: uint32(r.int(5)), Live: int(r.int(6)), Replaced: r.int(8) != 0,
					}
					var err error
					if !r.null(7) {
						seg.Outcomes, err = unpackOutcomes(r.blob(7))
					}
					all.Segments = append(all.Segments, seg)
					return err
				}},
			{`SELECT producer_id, coalesce(name, ''), epoch,
				max(active_at, (SELECT coalesce(max(accepted_at), 0) FROM producer_partitions AS p WHERE p.producer_id = producers.producer_id))
				FROM producers ORDER BY producer_id`,
				func(r *row) error {
					all.Producers = append(all.Producers, memory.ProducerRow{
						ID: domain.ProducerID(r.int(0)), Name: r.text(1), Epoch: domain.Epoch(r.int(2)), ActiveAt: time.UnixMilli(r.int(3)),
					})
					return nil
				}},
			{`SELECT topic_id, partition_key & 0xfffff, producer_id, state
				FROM producer_partitions JOIN topics ON topic_no = partition_key >> 20 ORDER BY producer_id, topic_id, partition_key`,
				func(r *row) error {
					state, err := unpackState(r.blob(3))
					all.Streams = append(all.Streams, memory.StreamRow{
						StreamKey: commit.StreamKey{Producer: domain.ProducerID(r.int(2)), PartitionKey: scanKey(r)}, State: *state,
					})
					return err
				}},
		} {
			if err := c.query(&query{part.text}, part.add); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all.Partitions, func(a, b memory.PartitionRow) int { return memory.ComparePartitions(a.PartitionKey, b.PartitionKey) })
	return all
}

func scanKey(r *row) commit.PartitionKey {
	return commit.PartitionKey{Topic: domain.TopicID(r.uuid(0)), Partition: domain.PartitionID(r.int(1))}
}
