// Package topics creates, describes and changes topics by name.
package topics

import (
	"context"
	"errors"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// Topics administers the topics of one metadata store. It keeps nothing in
// memory: each call sees what every process has done before it. It may be used
// from several goroutines.
//
// A call by name acts on the topic that has the name when the call looks it up.
// If that topic is deleted before the call is done, the answer is
// *domain.TopicNotFoundError, even if the name was given to a new topic meanwhile.
type Topics struct {
	store ports.Topics
}

// Description is a topic and the state of each of its partitions, in order.
type Description struct {
	domain.Topic
	States []domain.PartitionState
}

// New returns the administration of the topics in store.
func New(store ports.Topics) *Topics { return &Topics{store: store} }

// Create creates a topic with empty partitions and returns it. A topic that
// was deleted leaves its name free; the new one has another id.
//
// *domain.TopicExistsError: the name is taken, and that topic is as it was. *domain.InvalidNameError,
// *domain.ConfigError: spec is not valid, and nothing was asked of the store.
func (t *Topics) Create(ctx context.Context, spec domain.TopicSpec) (domain.Topic, error) {
	if err := spec.Validate(); err != nil {
		return domain.Topic{}, err
	}
	return t.store.CreateTopic(ctx, spec)
}

// Describe returns the topic with the bounds and size of each partition, all
// from one moment. *domain.TopicNotFoundError if there is none of the name.
func (t *Topics) Describe(ctx context.Context, name string) (Description, error) {
	topic, err := t.find(ctx, name)
	if err != nil {
		return Description{}, err
	}
	states, err := t.store.DescribePartitions(ctx, topic.ID)
	if err != nil {
		return Description{}, named(name, err)
	}
	// The topic may have been widened between the two calls.
	topic.Partitions = int32(len(states))
	return Description{Topic: topic, States: states}, nil
}

// List returns all topics, sorted by name.
func (t *Topics) List(ctx context.Context) ([]domain.Topic, error) {
	return t.store.ListTopics(ctx)
}

// Delete deletes the topic and with it every record. Producers and consumers
// that use it get domain.ErrTopicNotFound. The name is free again at once.
//
// *domain.TopicNotFoundError if there is none of the name.
func (t *Topics) Delete(ctx context.Context, name string) error {
	topic, err := t.find(ctx, name)
	if err != nil {
		return err
	}
	return named(name, t.store.DeleteTopic(ctx, topic.ID))
}

// Widen raises the topic's partition count and returns the topic as it is then.
// The same count changes nothing. Records stay where they are, but the key of a
// record sent from now on may choose another partition than before.
//
// *domain.ConfigError if partitions is below the present count or over
// domain.MaxPartitions; *domain.TopicNotFoundError.
func (t *Topics) Widen(ctx context.Context, name string, partitions int32) (domain.Topic, error) {
	if err := domain.ValidatePartitionCount(partitions); err != nil {
		return domain.Topic{}, err
	}
	topic, err := t.find(ctx, name)
	if err != nil {
		return domain.Topic{}, err
	}
	topic, err = t.store.WidenTopic(ctx, topic.ID, partitions)
	return topic, named(name, err)
}

// SetRetention replaces the topic's retention and returns the topic. The zero
// Retention keeps everything.
//
// *domain.ConfigError if a bound is negative; *domain.TopicNotFoundError.
func (t *Topics) SetRetention(ctx context.Context, name string, r domain.Retention) (domain.Topic, error) {
	if err := r.Validate(); err != nil {
		return domain.Topic{}, err
	}
	topic, err := t.find(ctx, name)
	if err != nil {
		return domain.Topic{}, err
	}
	topic, err = t.store.SetRetention(ctx, topic.ID, r)
	return topic, named(name, err)
}

// find refuses a name that no topic can have without asking the store.
func (t *Topics) find(ctx context.Context, name string) (domain.Topic, error) {
	if err := domain.ValidateName("topic", name); err != nil {
		return domain.Topic{}, err
	}
	return t.store.Topic(ctx, name)
}

// named gives the name back to an answer that was about an id.
func named(name string, err error) error {
	if errors.Is(err, domain.ErrTopicNotFound) {
		return &domain.TopicNotFoundError{Topic: name}
	}
	return err
}
