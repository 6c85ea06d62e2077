package ports

import (
	"context"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// MaxUpkeep is the most rows that one step of Upkeep or Inspection takes.
const MaxUpkeep = 10_000

// CheckUpkeepLimit refuses a limit of Upkeep or Inspection that is out of range.
func CheckUpkeepLimit(op string, limit int) error {
	if limit < 1 || limit > MaxUpkeep {
		return MetadataError(op, Definite, fmt.Errorf("a limit of %d rows: want 1 to %d", limit, MaxUpkeep))
	}
	return nil
}

// SegmentState is how far a segment has come. It only ever rises.
type SegmentState uint8

const (
	// SegmentPending: reserved, perhaps uploaded; not committed.
	SegmentPending SegmentState = iota + 1
	// SegmentCommitted: extents refer to it.
	SegmentCommitted
	// SegmentDeleting: nothing refers to it, or ever will; its object may go.
	SegmentDeleting
	// SegmentDeleted: its object is gone. The row still answers replays.
	SegmentDeleted
)

func (s SegmentState) String() string {
	switch s {
	case SegmentPending:
		return "pending"
	case SegmentCommitted:
		return "committed"
	case SegmentDeleting:
		return "deleting"
	case SegmentDeleted:
		return "deleted"
	default:
		return "unknown"
	}
}

// Upkeep removes what is no longer needed and puts together what is too small.
//
// Each call is one transaction on the store's clock that takes at most limit
// rows, 1 to MaxUpkeep (another limit is a Definite error), and goes on where the last one stopped;
// any number of processes may call at the same time. Nothing is decided by what a caller read
// before. The same call again is always safe, also after an Ambiguous error.
type Upkeep interface {
	// Retain applies the topic's retention to the low end of one partition: it
	// removes whole extents, at most limit, that were committed Retention.Age ago or longer, or without
	// which the partition still has Retention.Bytes; it stops at the first that must stay, and
	// raises the log start to it. Segments without live extents become garbage.
	// domain.ErrTopicNotFound; domain.ErrInvalidPartition.
	Retain(ctx context.Context, key commit.PartitionKey, limit int) (Removed, error)

	// PurgeTopics removes up to limit extents of deleted topics. Segments
	// without live extents become garbage.
	PurgeTopics(ctx context.Context, limit int) (Removed, error)

	// ExpireReservations makes garbage of up to limit segments that have been
	// pending for grace or longer. A commit of one of them fails from then on: any grace is safe, a short
	// one costs retries. It returns how many.
	ExpireReservations(ctx context.Context, grace time.Duration, limit int) (int, error)

	// Garbage returns up to limit segments with ids greater than after, in
	// order, that have been SegmentDeleting for grace or longer. It changes nothing.
	Garbage(ctx context.Context, grace time.Duration, after domain.SegmentID, limit int) ([]SegmentRef, error)

	// MarkDeleted says that the objects of the segments are gone. Those that are
	// not SegmentDeleting are left as they are. At most MaxUpkeep ids; none is no error.
	MarkDeleted(ctx context.Context, ids []domain.SegmentID) error

	// ForgetDeleted drops up to limit rows of segments that have been
	// SegmentDeleted for age or longer, and with them the outcomes of their commits: a replay
	// that comes even later is refused. It returns how many.
	ForgetDeleted(ctx context.Context, age time.Duration, limit int) (int, error)

	// Replace lets a segment that was reserved here, and whose object the caller
	// has made durable and has verified, take the place of other extents: copy by copy, where
	// commit.Copy.Holds. Offsets and bytes of the partitions do not change, and readers see
	// the old extents or the new, never neither. Segments without live extents become garbage; so
	// does the new one if no copy held. Times of the new extents come from the rows, not from c. It returns how many copies held; after an earlier
	// success, how many held then.
	//
	// A segment that is not pending or was not committed by Replace, and a
	// compaction that fails Validate, are Definite errors.
	Replace(ctx context.Context, c commit.Compaction) (int, error)
}

// Removed is what one step took away.
type Removed struct {
	Extents int
	Bytes   int64
	// LogStart is the partition's afterwards. 0 for PurgeTopics.
	LogStart domain.Offset
	// More says that the step ended at its limit.
	More bool
}

// Inspection shows everything there is, page by page, to those who check it.
// Each page is one snapshot; pages are not of one snapshot together.
type Inspection interface {
	// Extents returns up to limit extents after the given place, in the order
	// of topic id, partition and base offset, those of deleted topics included.
	Extents(ctx context.Context, after ExtentPlace, limit int) ([]ExtentRef, error)

	// Segments returns up to limit segments with ids greater than after, in
	// order.
	Segments(ctx context.Context, after domain.SegmentID, limit int) ([]SegmentRow, error)

	// RetentionDue returns up to limit partitions after the given one, in order
	// of topic id and partition, from which Retain would remove something now. It costs by the
	// partitions there are, not by their extents.
	RetentionDue(ctx context.Context, after commit.PartitionKey, limit int) ([]commit.PartitionKey, error)

	// SegmentsByID returns the rows of those ids that have one, in no
	// particular order. At most MaxUpkeep ids; none is no error.
	SegmentsByID(ctx context.Context, ids []domain.SegmentID) ([]SegmentRow, error)
}

// ExtentPlace names an extent's place among all. The zero value with Base -1
// stands before all.
type ExtentPlace struct {
	commit.PartitionKey
	Base domain.Offset
}

// FirstPartition stands before all partitions.
var FirstPartition = commit.PartitionKey{Partition: -1}

// FirstExtent stands before all extents.
var FirstExtent = ExtentPlace{Base: -1}

// PlaceOf returns the place of e.
func PlaceOf(e commit.Extent) ExtentPlace { return ExtentPlace{e.Key(), e.Base} }

// SegmentRow is what a metadata store knows of one segment.
type SegmentRow struct {
	SegmentRef
	State SegmentState
	// Size and CRC32C are the object's, from the commit; 0 before it.
	Size   int64
	CRC32C uint32
	// Live counts the extents that refer to the segment.
	Live int
	// CreatedAt is when the segment was reserved, StateAt when it came into its
	// state, both on the store's clock.
	CreatedAt, StateAt time.Time
}
