package memory

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// CreateTopic implements ports.Topics.
func (m *Metadata) CreateTopic(ctx context.Context, spec domain.TopicSpec) (domain.Topic, error) {
	if err := spec.Validate(); err != nil {
		return domain.Topic{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "create topic "+spec.Name); err != nil {
		return domain.Topic{}, err
	}
	if _, taken := m.names[spec.Name]; taken {
		return domain.Topic{}, &domain.TopicExistsError{Topic: spec.Name}
	}
	t := &domain.Topic{
		ID:        domain.TopicID(m.newID()),
		Name:      spec.Name,
		Retention: spec.Retention,
		CreatedAt: time.UnixMilli(m.now().UnixMilli()).UTC(),
	}
	m.topics[t.ID] = t
	m.names[t.Name] = t.ID
	m.widen(t, spec.Partitions)
	return *t, nil
}

// widen gives t the partitions that it lacks to have n. It needs the lock.
func (m *Metadata) widen(t *domain.Topic, n int32) {
	for p := t.Partitions; p < n; p++ {
		key := commit.PartitionKey{Topic: t.ID, Partition: domain.PartitionID(p)}
		m.rows.Partitions[key] = new(commit.Partition)
	}
	t.Partitions = n
}

// Topic implements ports.Topics.
func (m *Metadata) Topic(ctx context.Context, name string) (domain.Topic, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.begin(ctx, "find topic "+strconv.Quote(name)); err != nil {
		return domain.Topic{}, err
	}
	id, found := m.names[name]
	if !found {
		return domain.Topic{}, &domain.TopicNotFoundError{Topic: name}
	}
	return *m.topics[id], nil
}

// ListTopics implements ports.Topics.
func (m *Metadata) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.begin(ctx, "list topics"); err != nil {
		return nil, err
	}
	return m.sortedTopics(), nil
}

func (m *Metadata) sortedTopics() []domain.Topic {
	all := make([]domain.Topic, 0, len(m.topics))
	for _, t := range m.topics {
		all = append(all, *t)
	}
	slices.SortFunc(all, func(a, b domain.Topic) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// DescribePartitions implements ports.Topics.
func (m *Metadata) DescribePartitions(ctx context.Context, id domain.TopicID) ([]domain.PartitionState, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t, err := m.find(ctx, "describe", id)
	if err != nil {
		return nil, err
	}
	states := make([]domain.PartitionState, t.Partitions)
	for i := range states {
		p := m.rows.Partitions[commit.PartitionKey{Topic: id, Partition: domain.PartitionID(i)}]
		states[i] = domain.PartitionState{
			Partition: domain.PartitionID(i), LogStart: p.LogStart, HighWatermark: p.NextOffset, Bytes: p.Bytes,
		}
	}
	return states, nil
}

// find begins a call that concerns the topic id. It needs the lock.
func (m *Metadata) find(ctx context.Context, op string, id domain.TopicID) (*domain.Topic, error) {
	if err := m.begin(ctx, fmt.Sprintf("%s topic %s", op, id)); err != nil {
		return nil, err
	}
	return m.topic(id)
}

// DeleteTopic implements ports.Topics.
func (m *Metadata) DeleteTopic(ctx context.Context, id domain.TopicID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.find(ctx, "delete", id)
	if err != nil {
		return err
	}
	for p := range t.Partitions {
		key := commit.PartitionKey{Topic: id, Partition: domain.PartitionID(p)}
		delete(m.rows.Partitions, key)
	}
	for key := range m.rows.Streams {
		if key.Topic == id {
			delete(m.rows.Streams, key)
		}
	}
	delete(m.names, t.Name)
	delete(m.topics, id)
	return nil
}

// WidenTopic implements ports.Topics.
func (m *Metadata) WidenTopic(ctx context.Context, id domain.TopicID, partitions int32) (domain.Topic, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.find(ctx, "widen", id)
	if err != nil {
		return domain.Topic{}, err
	}
	if partitions < t.Partitions || partitions > domain.MaxPartitions {
		return domain.Topic{}, &domain.ConfigError{
			Field: "partitions", Value: strconv.Itoa(int(partitions)),
			Want: fmt.Sprintf("%d (the present count) to %d", t.Partitions, domain.MaxPartitions),
		}
	}
	m.widen(t, partitions)
	return *t, nil
}

// SetRetention implements ports.Topics.
func (m *Metadata) SetRetention(ctx context.Context, id domain.TopicID, r domain.Retention) (domain.Topic, error) {
	if err := r.Validate(); err != nil {
		return domain.Topic{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.find(ctx, "set retention of", id)
	if err != nil {
		return domain.Topic{}, err
	}
	t.Retention = r
	return *t, nil
}
