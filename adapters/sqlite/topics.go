package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// partitionBits is how many of a partition key's lower bits are the partition;
// domain.MaxPartitions fits.
const partitionBits = 20

func partitionKey(topicNo int64, p domain.PartitionID) int64 {
	return topicNo<<partitionBits | int64(p)
}

func partitionOf(key int64) domain.PartitionID {
	return domain.PartitionID(key & (1<<partitionBits - 1))
}

const topicColumns = "SELECT topic_no, topic_id, name, partitions, retention_ns, retention_bytes, created_at FROM topics "

var (
	topicByName = query{topicColumns + "WHERE name = ?"}
	topicByID   = query{topicColumns + "WHERE topic_id = ?"}
	allTopics   = query{topicColumns + "ORDER BY name"}

	insertTopic = query{`INSERT INTO topics (topic_id, name, partitions, retention_ns, retention_bytes, created_at)
		VALUES (?, ?, ?, ?, ?, ?) RETURNING topic_no`}
	// Empty ones with the keys ?1 to ?2 and the checksum ?3.
	insertPartitions = query{`WITH RECURSIVE p(key) AS (SELECT ?1 UNION ALL SELECT key + 1 FROM p WHERE key < ?2)
		INSERT INTO partitions (` + partitionColumns + `) SELECT key, 0, 0, 0, ?3 FROM p`}
	partitionsOf    = query{"SELECT " + partitionColumns + " FROM partitions WHERE partition_key BETWEEN ? AND ? ORDER BY partition_key"}
	updateTopicSize = query{"UPDATE topics SET partitions = ? WHERE topic_no = ?"}
	updateRetention = query{"UPDATE topics SET retention_ns = ?, retention_bytes = ? WHERE topic_no = ?"}

	deleteTopic      = query{"DELETE FROM topics WHERE topic_no = ?"}
	deletePartitions = query{"DELETE FROM partitions WHERE partition_key BETWEEN ? AND ?"}
)

// topicRow is a topic and its number.
type topicRow struct {
	no int64
	domain.Topic
}

func scanTopic(r *row) topicRow {
	if n := r.int(3); (n < 1 || n > domain.MaxPartitions) && r.err == nil {
		r.err = damagedError(fmt.Sprintf("a topic has %d partitions", n))
	}
	return topicRow{no: r.int(0), Topic: domain.Topic{
		ID:         domain.TopicID(r.uuid(1)),
		Name:       r.text(2),
		Partitions: int32(r.int(3)),
		Retention:  domain.Retention{Age: time.Duration(r.int(4)), Bytes: r.int(5)},
		CreatedAt:  time.UnixMilli(r.int(6)).UTC(),
	}}
}

// keys returns the first and the last partition key that t can ever have.
func (t topicRow) keys() (first, last int64) {
	return topicKeys(t.no)
}

func topicKeys(topicNo int64) (first, last int64) {
	return partitionKey(topicNo, 0), partitionKey(topicNo, domain.MaxPartitions)
}

// CreateTopic implements ports.Topics.
func (s *Store) CreateTopic(ctx context.Context, spec domain.TopicSpec) (domain.Topic, error) {
	if err := spec.Validate(); err != nil {
		return domain.Topic{}, err
	}
	var t domain.Topic
	err := s.write(ctx, "create topic "+spec.Name, func(c *conn) error {
		var err error
		t, err = s.createTopic(c, spec)
		return err
	})
	return given(t, err)
}

// given returns v, or nothing with an error.
func given[T any](v T, err error) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return v, nil
}

func (s *Store) createTopic(c *conn, spec domain.TopicSpec) (domain.Topic, error) {
	switch _, err := c.topic(&topicByName, spec.Name); {
	case err == nil:
		return domain.Topic{}, &domain.TopicExistsError{Topic: spec.Name}
	case !errors.Is(err, domain.ErrTopicNotFound):
		return domain.Topic{}, err
	}
	now := s.now()
	t := topicRow{Topic: domain.Topic{
		ID: domain.TopicID(newID(now)), Name: spec.Name, Partitions: spec.Partitions,
		Retention: spec.Retention, CreatedAt: time.UnixMilli(now.UnixMilli()).UTC(),
	}}
	err := c.query(&insertTopic, func(r *row) error {
		t.no = r.int(0)
		return nil
	}, t.ID[:], t.Name, int64(t.Partitions), int64(t.Retention.Age), t.Retention.Bytes, now.UnixMilli())
	if err != nil {
		return domain.Topic{}, err
	}
	return t.Topic, c.addPartitions(t.no, 0, spec.Partitions)
}

// addPartitions makes the partitions from up to but not including to.
func (c *conn) addPartitions(topicNo int64, from, to int32) error {
	if from >= to {
		return nil
	}
	first, last := partitionKey(topicNo, domain.PartitionID(from)), partitionKey(topicNo, domain.PartitionID(to-1))
	return c.exec(&insertPartitions, first, last, sumOfPartition(commit.Partition{}))
}

// topic finds one topic by q. domain.ErrTopicNotFound if there is none.
func (c *conn) topic(q *query, key driver.Value) (topicRow, error) {
	var t topicRow
	found := false
	err := c.query(q, func(r *row) error {
		t, found = scanTopic(r), true
		return nil
	}, key)
	if err == nil && !found {
		err = domain.ErrTopicNotFound
	}
	return t, err
}

func (c *conn) topicByID(id domain.TopicID) (topicRow, error) {
	t, err := c.topic(&topicByID, id[:])
	if errors.Is(err, domain.ErrTopicNotFound) {
		err = fmt.Errorf("topic %s: %w", id, err)
	}
	return t, err
}

// Topic implements ports.Topics.
func (s *Store) Topic(ctx context.Context, name string) (domain.Topic, error) {
	var t topicRow
	err := s.read(ctx, "find topic "+strconv.Quote(name), func(c *conn) error {
		var err error
		t, err = c.topic(&topicByName, name)
		if errors.Is(err, domain.ErrTopicNotFound) {
			err = &domain.TopicNotFoundError{Topic: name}
		}
		return err
	})
	return given(t.Topic, err)
}

// ListTopics implements ports.Topics.
func (s *Store) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	var all []domain.Topic
	err := s.read(ctx, "list topics", func(c *conn) error {
		all = []domain.Topic{}
		return c.query(&allTopics, func(r *row) error {
			all = append(all, scanTopic(r).Topic)
			return nil
		})
	})
	return given(all, err)
}

// DescribePartitions implements ports.Topics.
func (s *Store) DescribePartitions(ctx context.Context, id domain.TopicID) ([]domain.PartitionState, error) {
	var states []domain.PartitionState
	err := s.read(ctx, fmt.Sprintf("describe topic %s", id), func(c *conn) error {
		t, err := c.topicByID(id)
		if err != nil {
			return err
		}
		states = slices.Grow(states[:0], int(t.Partitions))
		first, last := t.keys()
		return c.query(&partitionsOf, func(r *row) error {
			pk, p := scanPartition(r)
			states = append(states, domain.PartitionState{
				Partition: domain.PartitionID(pk - first), LogStart: p.LogStart, HighWatermark: p.NextOffset, Bytes: p.Bytes,
			})
			return nil
		}, first, last)
	})
	return given(states, err)
}

// DeleteTopic implements ports.Topics. It costs by the topic's partitions; what
// they held, and what producers sent to them, is for PurgeTopics.
func (s *Store) DeleteTopic(ctx context.Context, id domain.TopicID) error {
	return s.write(ctx, fmt.Sprintf("delete topic %s", id), func(c *conn) error {
		t, err := c.topicByID(id)
		if err != nil {
			return err
		}
		if err := c.bury(t, s.now().UnixMilli()); err != nil {
			return err
		}
		first, last := t.keys()
		if err := c.exec(&deletePartitions, first, last); err != nil {
			return err
		}
		return c.exec(&deleteTopic, t.no)
	})
}

// WidenTopic implements ports.Topics.
func (s *Store) WidenTopic(ctx context.Context, id domain.TopicID, partitions int32) (domain.Topic, error) {
	var t topicRow
	err := s.write(ctx, fmt.Sprintf("widen topic %s", id), func(c *conn) (err error) {
		if t, err = c.topicByID(id); err != nil {
			return err
		}
		if partitions < t.Partitions || partitions > domain.MaxPartitions {
			return &domain.ConfigError{
				Field: "partitions", Value: strconv.Itoa(int(partitions)),
				Want: fmt.Sprintf("%d (the present count) to %d", t.Partitions, domain.MaxPartitions),
			}
		}
		if err := c.addPartitions(t.no, t.Partitions, partitions); err != nil {
			return err
		}
		t.Partitions = partitions
		return c.exec(&updateTopicSize, int64(partitions), t.no)
	})
	return given(t.Topic, err)
}

// SetRetention implements ports.Topics.
func (s *Store) SetRetention(ctx context.Context, id domain.TopicID, r domain.Retention) (domain.Topic, error) {
	if err := r.Validate(); err != nil {
		return domain.Topic{}, err
	}
	var t topicRow
	err := s.write(ctx, fmt.Sprintf("set retention of topic %s", id), func(c *conn) (err error) {
		if t, err = c.topicByID(id); err != nil {
			return err
		}
		t.Retention = r
		return c.exec(&updateRetention, int64(r.Age), r.Bytes, t.no)
	})
	return given(t.Topic, err)
}

// partition finds a partition's row, or says which part of key does not exist.
func (c *conn) partition(key commit.PartitionKey) (t topicRow, p commit.Partition, err error) {
	if t, err = c.topicByID(key.Topic); err != nil {
		return t, p, err
	}
	if key.Partition < 0 || int32(key.Partition) >= t.Partitions {
		return t, p, &domain.InvalidPartitionError{Topic: t.Name, Partition: key.Partition, Count: t.Partitions}
	}
	pk := partitionKey(t.no, key.Partition)
	err = c.query(&partitionsOf, func(r *row) error {
		_, p = scanPartition(r)
		return nil
	}, pk, pk)
	return t, p, err
}
