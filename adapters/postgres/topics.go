package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

const (
	topicColumns = "SELECT topic_no, topic_id, name, partitions, retention_ns, retention_bytes, created_at FROM topics "
	topicByName  = topicColumns + "WHERE name = $1 AND deleted_at IS NULL"
	topicByID    = topicColumns + "WHERE topic_id = $1 AND deleted_at IS NULL"
	allTopics    = topicColumns + "WHERE deleted_at IS NULL ORDER BY name"
	// A change of the topic waits for other changes of it; commits do not care.
	lockTopic = topicByID + " FOR NO KEY UPDATE"

	insertTopic = `INSERT INTO topics (topic_id, name, partitions, retention_ns, retention_bytes, created_at)
		VALUES ($1, $2, $3, $4, $5, now_ms()) ON CONFLICT (name) WHERE deleted_at IS NULL DO NOTHING RETURNING topic_no, created_at`
	// Empty ones from $2 to $3.
	insertPartitions = "INSERT INTO partitions (topic_no, partition) SELECT $1, generate_series($2::integer, $3::integer)"
	partitionsOf     = `SELECT t.partitions, p.partition, p.log_start, p.next_offset, p.bytes FROM topics AS t
		JOIN partitions AS p USING (topic_no) WHERE t.topic_id = $1 AND t.deleted_at IS NULL ORDER BY p.partition`
	updateTopicSize = "UPDATE topics SET partitions = $2 WHERE topic_no = $1"
	updateRetention = "UPDATE topics SET retention_ns = $2, retention_bytes = $3 WHERE topic_no = $1"

	// A commit that is under way holds some of the partitions; what it adds is
	// there before they go.
	lockPartitionsOf = "SELECT partition FROM partitions WHERE topic_no = $1 ORDER BY partition FOR UPDATE"
	deletePartitions = "DELETE FROM partitions WHERE topic_no = $1"
	markTopicDeleted = "UPDATE topics SET deleted_at = now_ms() WHERE topic_no = $1"
)

// topicRow is a topic and its number.
type topicRow struct {
	no int64
	domain.Topic
}

func scanTopic(r pgx.Row) (t topicRow, err error) {
	var id [16]byte
	var age, created int64
	err = r.Scan(&t.no, &id, &t.Name, &t.Partitions, &age, &t.Retention.Bytes, &created)
	t.ID, t.Retention.Age, t.CreatedAt = domain.TopicID(id), time.Duration(age), time.UnixMilli(created).UTC()
	return t, err
}

// rower is a connection or a transaction.
type rower interface {
	QueryRow(ctx context.Context, statement string, args ...any) pgx.Row
}

// topicWith finds one topic. domain.ErrTopicNotFound if there is none.
func topicWith(ctx context.Context, q rower, statement string, id domain.TopicID) (topicRow, error) {
	t, err := scanTopic(q.QueryRow(ctx, statement, [16]byte(id)))
	if errors.Is(err, pgx.ErrNoRows) {
		err = fmt.Errorf("topic %s: %w", id, domain.ErrTopicNotFound)
	}
	return t, err
}

// CreateTopic implements ports.Topics.
func (s *Store) CreateTopic(ctx context.Context, spec domain.TopicSpec) (domain.Topic, error) {
	if err := spec.Validate(); err != nil {
		return domain.Topic{}, err
	}
	t := topicRow{Topic: domain.Topic{
		ID: domain.TopicID(newID()), Name: spec.Name, Partitions: spec.Partitions, Retention: spec.Retention,
	}}
	err := s.write(ctx, "create topic "+spec.Name, func(ctx context.Context, tx pgx.Tx) error {
		var created int64
		err := tx.QueryRow(ctx, insertTopic, [16]byte(t.ID), t.Name, t.Partitions, int64(t.Retention.Age), t.Retention.Bytes).Scan(&t.no, &created)
		if errors.Is(err, pgx.ErrNoRows) {
			return &domain.TopicExistsError{Topic: spec.Name}
		}
		if err != nil {
			return err
		}
		t.CreatedAt = time.UnixMilli(created).UTC()
		return exec(ctx, tx, insertPartitions, t.no, int32(0), spec.Partitions-1)
	})
	return given(&t.Topic, err)
}

// Topic implements ports.Topics.
func (s *Store) Topic(ctx context.Context, name string) (domain.Topic, error) {
	var t topicRow
	if domain.ValidateName("topic", name) != nil { // there is none, and the server takes no such text
		if err := s.enter(ctx, "find topic "+strconv.Quote(name)); err != nil {
			return domain.Topic{}, err
		}
		s.calls.Done()
		return domain.Topic{}, &domain.TopicNotFoundError{Topic: name}
	}
	err := s.read(ctx, "find topic "+strconv.Quote(name), func(c *pgxpool.Conn) (err error) {
		t, err = scanTopic(c.QueryRow(ctx, topicByName, name))
		if errors.Is(err, pgx.ErrNoRows) {
			err = &domain.TopicNotFoundError{Topic: name}
		}
		return err
	})
	return given(&t.Topic, err)
}

// ListTopics implements ports.Topics.
func (s *Store) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	var all []domain.Topic
	err := s.read(ctx, "list topics", func(c *pgxpool.Conn) error {
		all = []domain.Topic{}
		return query(ctx, c, allTopics, func(r pgx.Rows) error {
			t, err := scanTopic(r)
			all = append(all, t.Topic)
			return err
		})
	})
	return given(&all, err)
}

// DescribePartitions implements ports.Topics.
func (s *Store) DescribePartitions(ctx context.Context, id domain.TopicID) ([]domain.PartitionState, error) {
	var states []domain.PartitionState
	err := s.read(ctx, fmt.Sprintf("describe topic %s", id), func(c *pgxpool.Conn) error {
		states = nil
		err := query(ctx, c, partitionsOf, func(r pgx.Rows) error {
			var p domain.PartitionState
			var count int32
			err := r.Scan(&count, &p.Partition, &p.LogStart, &p.HighWatermark, &p.Bytes)
			if states == nil {
				states = make([]domain.PartitionState, 0, count)
			}
			states = append(states, p)
			return err
		}, [16]byte(id))
		if err == nil && states == nil {
			err = fmt.Errorf("topic %s: %w", id, domain.ErrTopicNotFound)
		}
		return err
	})
	return given(&states, err)
}

// DeleteTopic implements ports.Topics. The topic's extents and the sequences of its
// producers stay for PurgeTopics.
func (s *Store) DeleteTopic(ctx context.Context, id domain.TopicID) error {
	return s.write(ctx, fmt.Sprintf("delete topic %s", id), func(ctx context.Context, tx pgx.Tx) error {
		t, err := topicWith(ctx, tx, lockTopic, id)
		if err != nil {
			return err
		}
		for _, statement := range []string{lockPartitionsOf, deletePartitions, markTopicDeleted} {
			if err := exec(ctx, tx, statement, t.no); err != nil {
				return err
			}
		}
		return nil
	})
}

// WidenTopic implements ports.Topics.
func (s *Store) WidenTopic(ctx context.Context, id domain.TopicID, partitions int32) (domain.Topic, error) {
	var t topicRow
	err := s.write(ctx, fmt.Sprintf("widen topic %s", id), func(ctx context.Context, tx pgx.Tx) (err error) {
		if t, err = topicWith(ctx, tx, lockTopic, id); err != nil {
			return err
		}
		if partitions < t.Partitions || partitions > domain.MaxPartitions {
			return &domain.ConfigError{
				Field: "partitions", Value: strconv.Itoa(int(partitions)),
				Want: fmt.Sprintf("%d (the present count) to %d", t.Partitions, domain.MaxPartitions),
			}
		}
		if err := exec(ctx, tx, insertPartitions, t.no, t.Partitions, partitions-1); err != nil {
			return err
		}
		t.Partitions = partitions
		return exec(ctx, tx, updateTopicSize, t.no, partitions)
	})
	return given(&t.Topic, err)
}

// SetRetention implements ports.Topics.
func (s *Store) SetRetention(ctx context.Context, id domain.TopicID, r domain.Retention) (domain.Topic, error) {
	if err := r.Validate(); err != nil {
		return domain.Topic{}, err
	}
	var t topicRow
	err := s.write(ctx, fmt.Sprintf("set retention of topic %s", id), func(ctx context.Context, tx pgx.Tx) (err error) {
		if t, err = topicWith(ctx, tx, lockTopic, id); err != nil {
			return err
		}
		t.Retention = r
		return exec(ctx, tx, updateRetention, t.no, int64(r.Age), r.Bytes)
	})
	return given(&t.Topic, err)
}

const (
	partitionByKey = `SELECT t.topic_no, t.name, t.partitions, t.retention_ns, t.retention_bytes, p.log_start, p.next_offset, p.bytes
		FROM topics AS t LEFT JOIN partitions AS p ON p.topic_no = t.topic_no AND p.partition = $2
		WHERE t.topic_id = $1 AND t.deleted_at IS NULL`
	lockPartition = "SELECT log_start, next_offset, bytes FROM partitions WHERE topic_no = $1 AND partition = $2 FOR UPDATE"
)

// partition finds a partition's row, or says which part of key does not exist.
// It locks nothing.
func partition(ctx context.Context, tx pgx.Tx, key commit.PartitionKey) (t topicRow, p commit.Partition, err error) {
	var age int64
	var start, next, bytes *int64
	t.ID = key.Topic
	err = tx.QueryRow(ctx, partitionByKey, [16]byte(key.Topic), int32(key.Partition)).Scan(
		&t.no, &t.Name, &t.Partitions, &age, &t.Retention.Bytes, &start, &next, &bytes)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return t, p, fmt.Errorf("topic %s: %w", key.Topic, domain.ErrTopicNotFound)
	case err != nil:
		return t, p, err
	case start == nil:
		return t, p, &domain.InvalidPartitionError{Topic: t.Name, Partition: key.Partition, Count: t.Partitions}
	}
	t.Retention.Age = time.Duration(age)
	return t, commit.Partition{LogStart: domain.Offset(*start), NextOffset: domain.Offset(*next), Bytes: *bytes}, nil
}

// locked locks the partition's row and reads it again. domain.ErrTopicNotFound if
// the topic was deleted meanwhile.
func locked(ctx context.Context, tx pgx.Tx, t topicRow, key commit.PartitionKey) (p commit.Partition, err error) {
	err = tx.QueryRow(ctx, lockPartition, t.no, int32(key.Partition)).Scan(&p.LogStart, &p.NextOffset, &p.Bytes)
	if errors.Is(err, pgx.ErrNoRows) {
		err = fmt.Errorf("topic %s: %w", key.Topic, domain.ErrTopicNotFound)
	}
	return p, err
}
