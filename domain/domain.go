// Package domain holds the words of StreamHouse: records, topics, offsets,
// partitioners, results and every error a caller may match.
//
// It knows nothing of files, networks or databases. It imports the standard
// library and dchest/siphash only; test/arch keeps it so.
package domain

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Limits on what a producer may hand over. They bound memory on every surface
// that parses bytes from outside.
const (
	// MaxRecordBytes bounds key, value and headers of one record together.
	MaxRecordBytes = 1 << 20
	// MaxBatchBytes bounds the uncompressed records of one batch.
	MaxBatchBytes = 16 << 20
	// MaxHeaders bounds the headers of one record.
	MaxHeaders = 1000
	// MaxPartitions bounds the partitions of one topic.
	MaxPartitions = 100_000
	// MaxNameBytes bounds topic, group, producer and agent names.
	MaxNameBytes = 249
)

// Offset is a record's place in its partition, dense from 0.
type Offset int64

// PartitionID numbers a topic's partitions from 0.
type PartitionID int32

// TopicID names a topic for ever; a topic deleted and created again under the
// same name has another id.
type TopicID UUID

func (id TopicID) String() string { return UUID(id).String() }

// SegmentID names one object in segment storage, unique per upload attempt.
type SegmentID UUID

func (id SegmentID) String() string { return UUID(id).String() }

// ClusterID names one metadata store and the segments that belong to it.
type ClusterID UUID

func (id ClusterID) String() string { return UUID(id).String() }

// ProducerID names one producer session (or, for a named producer, all its
// sessions). It is what a record batch carries.
type ProducerID int64

// Epoch tells the sessions of one producer id apart; a newer one fences the
// older.
type Epoch int16

// Sequence numbers a producer's records per partition, from 0 to 2^31-1 and
// then from 0 again, as Kafka's idempotent producer (KIP-98) does.
type Sequence int32

// Add returns s advanced by n records, wrapping from 2^31-1 to 0.
func (s Sequence) Add(n int32) Sequence {
	return Sequence((uint32(s) + uint32(n)) & 0x7fffffff)
}

// Header is a name and a value that travel with a record. A nil Value is
// distinct from an empty one.
type Header struct {
	Key   string
	Value []byte
}

// Record is what an application sends. A nil Key or Value is distinct from an
// empty one, and both round-trip.
type Record struct {
	Topic   string
	Key     []byte
	Value   []byte
	Headers []Header
	// Partition sends the record to one partition. The zero value leaves the
	// choice to the producer's Partitioner.
	Partition PartitionChoice
	// Timestamp is kept to the millisecond. Zero means the time of the send.
	Timestamp time.Time
}

// PartitionChoice is either "the partitioner decides" (the zero value) or one
// explicit partition.
type PartitionChoice struct {
	explicit bool
	id       PartitionID
}

// ToPartition chooses partition id. Whether it exists is checked by the send.
func ToPartition(id PartitionID) PartitionChoice {
	return PartitionChoice{explicit: true, id: id}
}

// Explicit returns the chosen partition, and false if the partitioner decides.
func (c PartitionChoice) Explicit() (PartitionID, bool) { return c.id, c.explicit }

func (c PartitionChoice) String() string {
	if !c.explicit {
		return "auto"
	}
	return strconv.Itoa(int(c.id))
}

// SendResult says where an acknowledged record is. It is only ever returned for
// a record that is durable: Offset is never a placeholder.
type SendResult struct {
	Topic     string
	Partition PartitionID
	Offset    Offset
	Timestamp time.Time
}

// Message is a record as a consumer reads it: with its place in the log. Key,
// Value and header values share the memory of the batch they came in; they are
// never overwritten, so they may be kept.
type Message struct {
	Topic     string
	Partition PartitionID
	Offset    Offset
	Timestamp time.Time
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Retention bounds what a topic keeps. Zero means no bound.
type Retention struct {
	// Age is how long a record is kept after it was committed.
	Age time.Duration
	// Bytes is how many stored bytes each partition keeps.
	Bytes int64
}

// Validate reports every negative bound.
func (r Retention) Validate() error {
	var age, bytes error
	if r.Age < 0 {
		age = &ConfigError{Field: "retention age", Value: r.Age.String(), Want: "zero (keep for ever) or more"}
	}
	if r.Bytes < 0 {
		bytes = &ConfigError{Field: "retention bytes", Value: strconv.FormatInt(r.Bytes, 10), Want: "zero (keep all) or more"}
	}
	return errors.Join(age, bytes)
}

// Topic is a named log of Partitions partitions.
type Topic struct {
	ID         TopicID
	Name       string
	Partitions int32
	Retention  Retention
	CreatedAt  time.Time
}

// TopicSpec is what CreateTopic needs.
type TopicSpec struct {
	Name       string
	Partitions int32
	Retention  Retention
}

// Validate reports every fault of the specification.
func (s TopicSpec) Validate() error {
	return errors.Join(ValidateName("topic", s.Name), ValidatePartitionCount(s.Partitions), s.Retention.Validate())
}

// ValidatePartitionCount accepts 1 to MaxPartitions.
func ValidatePartitionCount(n int32) error {
	if n < 1 || n > MaxPartitions {
		return &ConfigError{Field: "partitions", Value: strconv.Itoa(int(n)), Want: fmt.Sprintf("1 to %d", MaxPartitions)}
	}
	return nil
}

// PartitionState is what the metadata store knows of one partition.
type PartitionState struct {
	Partition PartitionID
	// LogStart is the first offset that still exists.
	LogStart Offset
	// HighWatermark is the offset the next record will get.
	HighWatermark Offset
	// Bytes counts the stored (compressed) bytes of the partition.
	Bytes int64
}

// ValidateName accepts [A-Za-z0-9._-]{1,249} except "." and "..". What says in
// the error which kind of name it is: "topic", "producer", "group", "agent".
func ValidateName(what, name string) error {
	if name == "" || len(name) > MaxNameBytes || name == "." || name == ".." {
		return &InvalidNameError{What: what, Name: name}
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return &InvalidNameError{What: what, Name: name}
		}
	}
	return nil
}
