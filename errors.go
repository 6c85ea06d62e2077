package streamhouse

import (
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/domain"
)

// Fate is what a caller needs to know about an error to go on: whether the
// record was stored, whether the same call can succeed later, and whether the producer is
// of further use.
type Fate = domain.Fate

// Stored answers whether a record is in the log.
type Stored = domain.Stored

// The answers.
const (
	StoredUnknown = domain.StoredUnknown
	StoredNo      = domain.StoredNo
	StoredYes     = domain.StoredYes
)

// FateOf returns the fate of err. An error that says nothing about it is StoredUnknown.
func FateOf(err error) Fate { return domain.FateOf(err) }

// The classes of error, for errors.Is.
var (
	ErrNoAgentsAvailable = domain.ErrNoAgentsAvailable
	ErrAgentConnection   = domain.ErrAgentConnection
	ErrAgent             = domain.ErrAgent
	ErrTopicNotFound     = domain.ErrTopicNotFound
	ErrTopicExists       = domain.ErrTopicExists
	ErrInvalidPartition  = domain.ErrInvalidPartition
	ErrInvalidName       = domain.ErrInvalidName
	ErrMetadata          = domain.ErrMetadata
	ErrStorage           = domain.ErrStorage
	ErrSerialization     = domain.ErrSerialization
	ErrCompression       = domain.ErrCompression
	ErrConfig            = domain.ErrConfig
	ErrTimeout           = domain.ErrTimeout
	ErrInternal          = domain.ErrInternal
	ErrOutcomeUnknown    = domain.ErrOutcomeUnknown
	ErrClosed            = domain.ErrClosed
	ErrRecordTooLarge    = domain.ErrRecordTooLarge
	ErrFenced            = domain.ErrFenced
	ErrBufferFull        = domain.ErrBufferFull
	ErrWouldBlock        = domain.ErrWouldBlock
	ErrOutOfRange        = domain.ErrOutOfRange
	ErrCorrupt           = domain.ErrCorrupt
	ErrOutOfOrder        = domain.ErrOutOfOrder
	ErrOffsetUnknown     = domain.ErrOffsetUnknown
	ErrSessionExpired    = domain.ErrSessionExpired
	ErrNotAssigned       = consumer.ErrNotAssigned
	ErrBusy              = consumer.ErrBusy
)

// The errors that carry data, for errors.As.
type (
	// TopicNotFoundError names the topic.
	TopicNotFoundError = domain.TopicNotFoundError
	// TopicExistsError names the topic.
	TopicExistsError = domain.TopicExistsError
	// InvalidPartitionError holds topic, partition and the partition count.
	InvalidPartitionError = domain.InvalidPartitionError
	// InvalidNameError quotes the name.
	InvalidNameError = domain.InvalidNameError
	// ConfigError holds the setting, its value and what it may be.
	ConfigError = domain.ConfigError
	// RecordTooLargeError holds the size and the bound.
	RecordTooLargeError = domain.RecordTooLargeError
	// OutOfRangeError holds the offset and both bounds.
	OutOfRangeError = domain.OutOfRangeError
	// CorruptError names the segment and what is wrong with it.
	CorruptError = domain.CorruptError
	// FencedError names the producer.
	FencedError = domain.FencedError
	// NoAgentsAvailableError names the agent group.
	NoAgentsAvailableError = domain.NoAgentsAvailableError
	// DeliveryError is how a send ends that was given up.
	DeliveryError = domain.DeliveryError
	// BatchError holds the error of each record of a SendBatch.
	BatchError = producer.BatchError
	// PartitionError names the partition that a Poll could not read.
	PartitionError = consumer.PartitionError
)
