package consumer

import (
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/domain"
)

// ErrNotAssigned: the consumer does not read the partition; Assign it first.
var ErrNotAssigned = errors.New("partition not assigned")

// ErrBusy: another ReadToEnd of the consumer has not ended.
var ErrBusy = errors.New("consumer is read to its end already")

// PartitionError is a failure to read on in one partition, at the offset that
// the consumer stands at and stays at. It tells by Err what failed:
// *domain.OutOfRangeError, domain.ErrTopicNotFound, domain.ErrCorrupt, or an error
// of the stores.
type PartitionError struct {
	Topic     string
	Partition domain.PartitionID
	Offset    domain.Offset
	Err       error
}

func (e *PartitionError) Error() string {
	var bounds *domain.OutOfRangeError
	if errors.As(e.Err, &bounds) {
		return e.Err.Error() // It names the place itself.
	}
	return fmt.Sprintf("read topic %q partition %d offset %d: %v", e.Topic, e.Partition, e.Offset, e.Err)
}

func (e *PartitionError) Unwrap() error { return e.Err }

// failure makes the error of partition p, with the topic's name where the
// fetcher could not know it.
func (p *partition) failure(err error) *PartitionError {
	var bounds *domain.OutOfRangeError
	switch {
	case errors.As(err, &bounds):
		named := *bounds
		named.Topic, named.Partition, named.Offset = p.topic, p.key.Partition, p.position
		err = &named
	case errors.Is(err, domain.ErrTopicNotFound):
		err = fmt.Errorf("topic %s was deleted since it was assigned; if the name is in use again, assign it again: %w",
			p.key.Topic, &domain.TopicNotFoundError{Topic: p.topic})
	}
	return &PartitionError{Topic: p.topic, Partition: p.key.Partition, Offset: p.position, Err: err}
}

func notAssigned(topic string, id domain.PartitionID) error {
	return fmt.Errorf("topic %q partition %d: %w", topic, id, ErrNotAssigned)
}
