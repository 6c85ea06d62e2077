package ports

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// Transport brings encoded batches into the log: by writing segments directly,
// or through an agent.
type Transport interface {
	// Append takes batches over, in order. It returns when their order is
	// fixed: a batch of a later Append call never enters the log before one of an earlier
	// call of the same producer and partition. It blocks while the transport has no room, and
	// returns an error only if it took over none of them (then settle is not called).
	//
	// Afterwards settle is called exactly once for each index of batches, from
	// any goroutine, in any order; not later than shortly after ctx ends: a batch whose fate is
	// open by then is settled with an Ambiguous error though it may yet be stored. Settle must not
	// block. The bytes of a batch must not change before its settle.
	//
	// A batch may be appended again after any settlement; a batch with a
	// producer is stored once at most, whatever the number of Appends.
	Append(ctx context.Context, batches []Batch, settle func(i int, r AppendResult)) error

	// Close settles everything taken over, and releases the transport. Later
	// Appends return domain.ErrClosed.
	Close(ctx context.Context) error
}

// Batch is one encoded record batch (see domain/batch) for one partition. Its
// producer, sequence and count are in its bytes.
type Batch struct {
	commit.PartitionKey
	Bytes []byte
	// Checked says that whoever hands the batch over has just computed its
	// checksum, in this process: it need not be computed again at once.
	Checked bool
}

// AppendResult is a batch's fate.
//
// Err nil: stored, Base is the first record's offset. domain.ErrOffsetUnknown: stored, offset
// forgotten. domain.ErrTopicNotFound, domain.ErrFenced, domain.ErrSessionExpired, domain.ErrCorrupt: refused,
// not stored by this Append. domain.ErrOutOfOrder: refused, a batch before it is not stored. Others: see KindOf.
type AppendResult struct {
	Base domain.Offset
	Err  error
}

// Fetcher reads committed batches: from the stores, or through an agent.
type Fetcher interface {
	// Fetch reads from each partition's offset on. If none has anything it
	// waits up to MaxWait for the first to get something, and returns what there is then. It
	// returns one FetchedPartition for each requested, in order; it may
	// leave some empty to stay within MaxBytes, and takes turns between calls so that none is
	// starved. The error means that nothing could be read.
	Fetch(ctx context.Context, r FetchRequest) ([]FetchedPartition, error)

	// OffsetAt returns the offset of the first record whose timestamp is at
	// least t, and the high watermark if there is none. Timestamps need not rise with offsets.
	// domain.ErrTopicNotFound, domain.ErrInvalidPartition.
	OffsetAt(ctx context.Context, key commit.PartitionKey, t time.Time) (domain.Offset, error)
}

// FetchRequest asks for records of several partitions.
type FetchRequest struct {
	Partitions []FetchPosition
	// MaxBytes bounds the stored bytes returned, except that the first extent
	// of one partition is always returned. 0 asks for the bounds only.
	MaxBytes int64
	// MaxWait is how long to wait for data. 0 does not wait.
	MaxWait time.Duration
}

// FetchPosition is where to read on in one partition.
type FetchPosition struct {
	commit.PartitionKey
	Offset domain.Offset
}

// FetchedPartition is what one partition gave.
type FetchedPartition struct {
	LogStart      domain.Offset
	HighWatermark domain.Offset
	// Batches holds whole record batches, one after the other, their base
	// offsets set. The first may begin before the requested offset: skip those records. CRCs
	// are not checked yet: whoever decodes checks them. The bytes are the caller's.
	Batches []byte
	// Sources says where Batches lies, from its first byte on. It may cover a
	// part of it only, or nothing.
	Sources Sources
	// Err concerns this partition only: *domain.OutOfRangeError (without the
	// topic's name), domain.ErrTopicNotFound, domain.ErrInvalidPartition, *domain.CorruptError,
	// or a failed read.
	Err error
}

// Source is where bytes that were fetched lie: Length of them from Position on
// in the segment.
type Source struct {
	Segment          domain.SegmentID
	Position, Length int64
}

// Sources are where bytes lie that follow each other.
type Sources []Source

// Locate returns the segment of byte number at, and its position there; false
// if it is not known.
func (s Sources) Locate(at int64) (id domain.SegmentID, position int64, known bool) {
	for _, s := range s {
		if at < s.Length {
			return s.Segment, s.Position + at, at >= 0
		}
		at -= s.Length
	}
	return id, 0, false
}

// Skip returns where the bytes lie that follow the first n.
func (s Sources) Skip(n int64) Sources {
	for i, first := range s {
		if n < first.Length {
			rest := append(Sources(nil), s[i:]...)
			rest[0].Position, rest[0].Length = first.Position+n, first.Length-n
			return rest
		}
		n -= first.Length
	}
	return nil
}
