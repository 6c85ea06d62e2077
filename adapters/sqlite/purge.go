package sqlite

import (
	"context"
	"database/sql/driver"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

var (
	hasExtents         = query{"SELECT 1 FROM extents WHERE partition_key BETWEEN ? AND ? LIMIT 1"}
	insertDeletedTopic = query{"INSERT INTO deleted_topics (topic_no, topic_id, deleted_at, swept) VALUES (?, ?, ?, ?)"}
	fullTopic          = query{"SELECT topic_no, topic_id FROM deleted_topics WHERE swept IS NULL ORDER BY topic_no LIMIT 1"}
	emptyTopic         = query{"SELECT topic_no, topic_id, swept FROM deleted_topics WHERE swept IS NOT NULL ORDER BY topic_no LIMIT 1"}
	setSwept           = query{"UPDATE deleted_topics SET swept = ? WHERE topic_no = ?"}
	deleteDeletedTopic = query{"DELETE FROM deleted_topics WHERE topic_no = ?"}

	// The ?2 producers after ?1: how many there are, and the last.
	nextProducers = query{`SELECT count(*), coalesce(max(producer_id), 0) FROM
		(SELECT producer_id FROM producers WHERE producer_id > ?1 ORDER BY producer_id LIMIT ?2)`}
	// What the producers after ?1 up to ?2 have sent to the partitions ?3 to ?4.
	topicStreams = query{`SELECT s.producer_id, s.partition_key, s.accepted_at FROM producers
		CROSS JOIN producer_partitions AS s ON s.producer_id = producers.producer_id AND s.partition_key BETWEEN ?3 AND ?4
		WHERE producers.producer_id > ?1 AND producers.producer_id <= ?2 ORDER BY producers.producer_id, s.partition_key LIMIT ?5`}
	// What the streams alone know, how long their sessions last, is kept.
	saveActive    = query{"UPDATE producers SET active_at = max(active_at, ?) WHERE producer_id = ?"}
	deleteStreams = newBulk("DELETE FROM producer_partitions WHERE (producer_id, partition_key) IN (VALUES ", "(?, ?)", ")")
)

// deletedTopic is a topic that is deleted and not yet purged.
type deletedTopic struct {
	no    int64
	id    domain.TopicID
	swept int64
}

func (c *conn) deletedTopic(q *query) (t deletedTopic, found bool, err error) {
	err = c.query(q, func(r *row) error {
		t, found = deletedTopic{no: r.int(0), id: domain.TopicID(r.uuid(1))}, true
		if len(r.values) > 2 {
			t.swept = r.int(2)
		}
		return nil
	})
	return t, found, err
}

// bury makes t a deleted topic.
func (c *conn) bury(t topicRow, now int64) error {
	first, last := t.keys()
	full, err := c.count(&hasExtents, first, last)
	if err != nil {
		return err
	}
	var swept driver.Value
	if full == 0 {
		swept = int64(0)
	}
	return c.exec(&insertDeletedTopic, t.no, t.ID[:], now, swept)
}

// PurgeTopics implements ports.Upkeep. It also removes, by the same limit, what
// producers have sent to topics that have no extents any more.
func (s *Store) PurgeTopics(ctx context.Context, limit int) (ports.Removed, error) {
	var removed ports.Removed
	err := s.upkeep(ctx, "purge deleted topics", limit, func(c *conn, now int64) (err error) {
		if removed, err = c.purgeExtents(limit, now); err != nil {
			return err
		}
		return c.purgeStreams(limit - removed.Extents)
	})
	return given(removed, err)
}

func (c *conn) purgeExtents(limit int, now int64) (removed ports.Removed, err error) {
	for removed.Extents < limit {
		t, found, err := c.deletedTopic(&fullTopic)
		if err != nil || !found {
			return removed, err
		}
		room := limit - removed.Extents
		first, last := topicKeys(t.no)
		rows, err := c.extentRows(&extentsAfter, t.id, first, int64(-1), last, int64(room))
		if err != nil {
			return removed, err
		}
		if err := c.dropExtents(rows, now); err != nil {
			return removed, err
		}
		removed.Extents += len(rows)
		removed.Bytes += lengthOf(rows)
		if len(rows) < room {
			if err := c.exec(&setSwept, int64(0), t.no); err != nil {
				return removed, err
			}
		}
	}
	removed.More = true
	return removed, nil
}

// purgeStreams looks at up to limit producers, and removes up to as many rows.
func (c *conn) purgeStreams(limit int) error {
	for limit > 0 {
		t, found, err := c.deletedTopic(&emptyTopic)
		if err != nil || !found {
			return err
		}
		looked, to, err := c.nextProducers(t.swept, limit)
		if err != nil {
			return err
		}
		removed, at, err := c.dropStreams(t, to, limit)
		if err != nil {
			return err
		}
		switch {
		case removed == limit: // The last of them may have more.
			err = c.exec(&setSwept, at-1, t.no)
		case looked == limit:
			err = c.exec(&setSwept, to, t.no)
		default:
			err = c.exec(&deleteDeletedTopic, t.no)
		}
		if err != nil {
			return err
		}
		limit -= max(1, looked, removed)
	}
	return nil
}

func (c *conn) nextProducers(after int64, limit int) (n int, last int64, err error) {
	err = c.query(&nextProducers, func(r *row) error {
		n, last = int(r.int(0)), r.int(1)
		return nil
	}, after, int64(limit))
	return n, last, err
}

// dropStreams removes what the next producers, up to the one given, have sent to
// t: at most limit rows. It returns how many, and the producer of the last.
func (c *conn) dropStreams(t deletedTopic, to int64, limit int) (n int, last int64, err error) {
	first, end := topicKeys(t.no)
	active := make(map[int64]int64)
	var keys []driver.Value
	err = c.query(&topicStreams, func(r *row) error {
		last = r.int(0)
		active[last] = max(active[last], r.int(2))
		keys = append(keys, last, r.int(1))
		return nil
	}, t.swept, to, first, end, int64(limit))
	if err != nil {
		return 0, 0, err
	}
	for id, at := range active {
		if err := c.exec(&saveActive, at, id); err != nil {
			return 0, 0, err
		}
	}
	return len(keys) / deleteStreams.width, last, c.execBulk(deleteStreams, keys)
}
