package streamhouse

import (
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// The words of the system; see each for its documentation.
type (
	// Record is what is sent.
	Record = domain.Record
	// Header is a name and a value that travel with a record.
	Header = domain.Header
	// Message is a record as it is read, with its place in the log.
	Message = domain.Message
	// SendResult says where an acknowledged record is.
	SendResult = domain.SendResult
	// Offset is a record's place in its partition, dense from 0.
	Offset = domain.Offset
	// PartitionID numbers a topic's partitions from 0.
	PartitionID = domain.PartitionID
	// Topic is a named log of partitions.
	Topic = domain.Topic
	// TopicID names a topic for ever, also after its name was given to another.
	TopicID = domain.TopicID
	// TopicSpec is what creating a topic needs.
	TopicSpec = domain.TopicSpec
	// Retention bounds what a topic keeps. The janitor applies it.
	Retention = domain.Retention
	// PartitionState is the extent of one partition.
	PartitionState = domain.PartitionState
	// Partitioner chooses the partition of records that name none.
	Partitioner = domain.Partitioner
	// PartitionerFunc lets a function be a Partitioner.
	PartitionerFunc = domain.PartitionerFunc
)

// Use cases and what they return.
type (
	// Producer sends records; NewProducerBuilder makes one.
	Producer = producer.Producer
	// Pending is a record on its way.
	Pending = producer.Pending
	// Callback is told the fate of one record.
	Callback = producer.Callback
	// Consumer reads assigned partitions; NewConsumerBuilder makes one.
	Consumer = consumer.Consumer
	// Position says where to begin to read: FromStart, FromEnd, FromOffset, FromTime.
	Position = consumer.Position
	// PartitionLag says how far a consumer is behind on one partition.
	PartitionLag = consumer.PartitionLag
	// Topics creates, finds and changes topics by name; NewTopics makes one.
	Topics = topics.Topics
	// TopicDescription is a topic and the extent of its partitions.
	TopicDescription = topics.Description
)

// The seams. Adapters fill them; an application passes them on.
type (
	// Cluster is a metadata store and a segment store opened together.
	Cluster = ports.Cluster
	// MetadataStore keeps topics, offsets and producer sessions.
	MetadataStore = ports.MetadataStore
	// SegmentStore keeps the objects that hold the records.
	SegmentStore = ports.SegmentStore
	// Transport brings batches into the log.
	Transport = ports.Transport
	// Fetcher reads committed batches.
	Fetcher = ports.Fetcher
	// Telemetry is told what happens inside.
	Telemetry = ports.Telemetry
	// AgentClient reaches a cluster through its agents.
	AgentClient = ports.AgentClient
)

// UnlimitedRetries, given to MaxRetries, leaves the end of retrying to
// DeliveryTimeout alone. It is the default.
const UnlimitedRetries = producer.Unlimited

// ToPartition chooses a record's partition.
func ToPartition(id PartitionID) domain.PartitionChoice { return domain.ToPartition(id) }

// FromStart begins at the first record there is.
func FromStart() Position { return consumer.Start() }

// FromEnd begins with the next record to come.
func FromEnd() Position { return consumer.End() }

// NewTopics works on the topics of a MetadataStore, or of the cluster that an
// AgentClient reaches.
func NewTopics(store ports.Topics) *Topics { return topics.New(store) }

// NewSipHashPartitioner returns the default partitioner: SipHash-2-4 of the key
// modulo the partition count, round robin for records without a key.
func NewSipHashPartitioner() Partitioner { return domain.NewSipHashPartitioner() }

// NewRoundRobinPartitioner takes the partitions in turn, whatever the key.
func NewRoundRobinPartitioner() Partitioner { return domain.NewRoundRobinPartitioner() }

// NewMurmur2Partitioner puts keys where Kafka's own clients put them.
func NewMurmur2Partitioner() Partitioner { return domain.NewMurmur2Partitioner() }

// NewStickyPartitioner keeps to one partition for run records without a key.
func NewStickyPartitioner(run int) Partitioner { return domain.NewStickyPartitioner(run) }
