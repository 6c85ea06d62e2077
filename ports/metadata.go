package ports

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// MetadataStore is where the truth is kept: topics, offsets, segments and
// producer sessions. Several processes may use one store at the same time.
//
// Every change is one transaction on the store's own clock and is durable when
// the call returns. Reads see every change that was acknowledged, by any process, before
// the read began. No decision rests on something cached.
type MetadataStore interface {
	Topics
	Log
	Producers
	Upkeep
	Inspection

	// ClusterID names this store; every segment carries it.
	ClusterID() domain.ClusterID

	// Close releases the store. Calls in progress end first; later calls return
	// domain.ErrClosed. Close may be called twice.
	Close() error
}

// Topics creates, finds and changes topics.
type Topics interface {
	// CreateTopic creates a topic with a new id and its partitions, each empty
	// with log start and high watermark 0.
	//
	// *domain.TopicExistsError: a topic of the name exists. domain.ErrInvalidName
	// and domain.ErrConfig: spec is not valid. A deleted topic's name is free again.
	CreateTopic(ctx context.Context, spec domain.TopicSpec) (domain.Topic, error)

	// Topic finds a topic by name. *domain.TopicNotFoundError if there is none.
	Topic(ctx context.Context, name string) (domain.Topic, error)

	// ListTopics returns all topics, sorted by name.
	ListTopics(ctx context.Context) ([]domain.Topic, error)

	// DescribePartitions returns the state of every partition of the topic, in
	// order. domain.ErrTopicNotFound if the id does not exist (any more).
	DescribePartitions(ctx context.Context, id domain.TopicID) ([]domain.PartitionState, error)

	// DeleteTopic deletes the topic: from now on commits to it are refused
	// batch by batch and its records cannot be read. Its extents stay until PurgeTopics removes
	// them; only then do segments that hold nothing else become garbage. domain.ErrTopicNotFound if the
	// id does not exist.
	DeleteTopic(ctx context.Context, id domain.TopicID) error

	// WidenTopic raises the partition count and returns the topic as it is then.
	// The same count changes nothing. *domain.ConfigError if partitions is below the present
	// count or over domain.MaxPartitions; domain.ErrTopicNotFound.
	WidenTopic(ctx context.Context, id domain.TopicID, partitions int32) (domain.Topic, error)

	// SetRetention replaces the topic's retention and returns the topic.
	// *domain.ConfigError if it is not valid; domain.ErrTopicNotFound.
	SetRetention(ctx context.Context, id domain.TopicID, r domain.Retention) (domain.Topic, error)
}

// Log gives offsets to uploaded segments and tells readers where records are.
type Log interface {
	// Reserve makes n new segments, 1 to 1024, in state pending, and returns
	// their ids and object keys. What is never committed becomes garbage. Another n
	// is a Definite error.
	Reserve(ctx context.Context, n int) ([]SegmentRef, error)

	// Commit enters uploaded segments into the log, in the given order, in one
	// transaction; the caller has made sure that their objects are durable. It
	// returns one CommitResult a segment.
	//
	// Per segment: pending is judged by commit.Decide and becomes committed, or
	// deleting if nothing in it is live. One that was committed before, whatever became of it
	// since (nothing in it was live, or its records are deleted), returns the outcomes stored by the
	// first commit and changes nothing else (but writes, so that its own durability covers
	// the first). One that became garbage uncommitted, or an unknown id, is a Definite
	// error in the result's Err, and the other segments are not affected.
	//
	// An error means that no segment's result is known: see KindOf. After an
	// Ambiguous one the same call again settles it.
	Commit(ctx context.Context, segments []commit.Segment) ([]CommitResult, error)

	// Plan says, in one snapshot for all requests, where their records are. It
	// costs by what it returns, not by how much lies after.
	Plan(ctx context.Context, requests []PlanRequest) ([]Plan, error)

	// ExtentAt finds the first extent whose MaxTimestamp is at least timestamp
	// (Unix milliseconds). Found is false if there is none. domain.ErrTopicNotFound and
	// domain.ErrInvalidPartition if the partition does not exist.
	ExtentAt(ctx context.Context, key commit.PartitionKey, timestamp int64) (extent ExtentRef, found bool, err error)

	// Trim raises the partition's log start to the offset to. Extents that lie
	// wholly below it go, and a segment that thereby holds nothing live becomes garbage. A
	// lower or equal offset changes nothing. It returns the log start as it is then.
	// *domain.OutOfRangeError if to is above the high watermark or negative; domain.ErrTopicNotFound;
	// domain.ErrInvalidPartition.
	Trim(ctx context.Context, key commit.PartitionKey, to domain.Offset) (domain.Offset, error)

	// Subscribe calls wake after any commit that may have raised a high
	// watermark, at once for commits through this store value and within 50 ms for those of
	// other processes. It may also call wake for no reason, and from several goroutines. Wake
	// must not block, nor call the store or cancel. Wake-ups carry no data: the reader
	// plans again. An idle subscription costs no measurable work.
	//
	// Cancel ends it; wake is not called after cancel has returned.
	Subscribe(wake func()) (cancel func())
}

// ProducerExpiry is how long a producer session outlives its last accepted
// batch, or its registration if it has none.
const ProducerExpiry = 24 * time.Hour

// Producers keeps the sessions of idempotent producers. A session that was idle
// for ProducerExpiry, on the store's clock, is gone: its batches are refused as
// commit.UnknownProducer from then on, or as commit.Fenced if its name has had a newer
// session.
type Producers interface {
	// RegisterProducer opens a session. With an empty name it has a new
	// producer id and epoch 0. With a name the id is the one of all sessions of that name and
	// the epoch is the next; sessions of older epochs are fenced from then on. The id and
	// the epoch of a name do not expire.
	//
	// After epoch 32767 a name gets a new id and epoch 0, and the old id is forgotten:
	// its sessions are refused as commit.UnknownProducer.
	//
	// domain.ErrInvalidName if the name is not valid.
	RegisterProducer(ctx context.Context, name string) (ProducerSession, error)

	// AbandonBatch settles for ever a batch that its producer gives up: either
	// it is stored already, or it never will be and the sequences after it may follow. See
	// sequence.State.Abandon for the rules and commit.Outcome for the answer: Duplicate with
	// its offset if it is stored, Accepted with -1 if it never will be, else as a
	// commit would answer; commit.Abandon decides.
	AbandonBatch(ctx context.Context, b AbandonedBatch) (commit.Outcome, error)
}

// SegmentRef is a reserved segment: its id and where its object goes.
type SegmentRef struct {
	ID  domain.SegmentID
	Key string
}

// CommitResult answers one segment of a commit.
type CommitResult struct {
	// Outcomes answers the segment's batches in their order. Nil if Err is set.
	Outcomes []commit.Outcome
	// Err is a Definite error: this segment is not, and never will be,
	// committed.
	Err error
}

// PlanRequest asks for the extents of one partition that hold From and what
// follows.
type PlanRequest struct {
	commit.PartitionKey
	From domain.Offset
	// MaxBytes bounds the sum of the extents' lengths. The first extent is
	// returned whatever its length, unless MaxBytes is 0: then only the bounds are.
	MaxBytes int64
	// MaxExtents bounds how many extents are returned. 0 means MaxExtents, the
	// constant, which is also the most.
	MaxExtents int
}

// MaxExtents is the most extents that one plan of a partition has.
const MaxExtents = 4096

// Extents is the most extents that the answer has.
func (r PlanRequest) Extents() int {
	if r.MaxExtents <= 0 || r.MaxExtents > MaxExtents {
		return MaxExtents
	}
	return r.MaxExtents
}

// Plan answers one PlanRequest.
type Plan struct {
	LogStart      domain.Offset
	HighWatermark domain.Offset
	// Extents are in offset order without a gap, the first one holds From. It
	// is empty if From is outside LogStart..HighWatermark-1.
	Extents []ExtentRef
	// Err is domain.ErrTopicNotFound or domain.ErrInvalidPartition; the other
	// requests of the call are not affected.
	Err error
}

// ExtentRef is an extent and where its segment's object is.
type ExtentRef struct {
	commit.Extent
	ObjectKey string
}

// ProducerSession identifies a producer to the commit.
type ProducerSession struct {
	ID    domain.ProducerID
	Epoch domain.Epoch
}

// AbandonedBatch names the batch that is given up.
type AbandonedBatch struct {
	commit.StreamKey
	Epoch         domain.Epoch
	FirstSequence domain.Sequence
	Records       int32
}
