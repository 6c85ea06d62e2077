package ports

import "time"

// Telemetry is told what happens inside. Record must be quick, must not block
// and must not call back.
type Telemetry interface {
	Record(e Event)
}

// EventKind says what happened.
type EventKind uint8

const (
	// SegmentPut: an upload ended. Bytes is the object's size, Count its batches.
	SegmentPut EventKind = iota + 1
	// MetadataCommit: a commit transaction ended. Count is its segments.
	MetadataCommit
	// SegmentReserve: ids were reserved. Count is how many.
	SegmentReserve
	// BatchSettled: a producer's batch was acknowledged or failed. Bytes is its
	// encoded size, Count its records, Duration from its first record's acceptance.
	BatchSettled
	// BatchRetried: a producer will send a batch again. Err is why.
	BatchRetried
	// BatchAbandoned: a producer gave up a batch whose outcome was open.
	BatchAbandoned
	// Fetched: a fetch ended. Bytes is what it read, Count its ranged reads.
	Fetched
	// RetentionPass, CollectionPass, SweepPass, CompactionPass: a janitor's loop
	// has gone round once. Count is what it removed (extents; objects; objects; extents replaced), Bytes
	// how much that was. One with Err has done what it could.
	RetentionPass
	CollectionPass
	SweepPass
	CompactionPass
	// CorruptionFound: bytes in the store are not what was written.
	CorruptionFound
	// RecentHit, CacheHit, CacheMiss: somebody read from a segment store with a memory, and
	// what was wanted was in a recent segment, in blocks that were held, or not all there. Bytes
	// is what was wanted.
	RecentHit
	CacheHit
	CacheMiss
	// CacheRead: a read that it made of the store below has ended. Bytes is what it
	// brought, Count its blocks; Duration includes the wait for its turn.
	CacheRead

	eventKinds
)

// EventKinds is the number of kinds plus one, for arrays indexed by kind.
const EventKinds = int(eventKinds)

// Event is one thing that happened. Err is nil if it went well.
type Event struct {
	Kind     EventKind
	Duration time.Duration
	Bytes    int64
	Count    int
	Err      error
}

// NoTelemetry ignores every event.
type NoTelemetry struct{}

// Record does nothing.
func (NoTelemetry) Record(Event) {}
