package verify

import (
	"cmp"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// Kind says what is wrong.
type Kind string

const (
	// MissingObject: a committed segment has no object.
	MissingObject Kind = "missing-object"
	// WrongSize: a segment's object is longer or shorter than was committed.
	WrongSize Kind = "wrong-size"
	// WrongChecksum: the object is a whole segment, but its checksum is not the
	// one that was committed.
	WrongChecksum Kind = "wrong-checksum"
	// WrongIdentity: the object is that of another segment or cluster.
	WrongIdentity Kind = "wrong-identity"
	// CorruptObject: bytes of the object are not what was written.
	CorruptObject Kind = "corrupt-object"
	// CorruptRecords: the bytes are what was written, but records in them cannot
	// be decoded.
	CorruptRecords Kind = "corrupt-records"
	// UnreadableObject: the segment store has the object and does not give it.
	UnreadableObject Kind = "unreadable-object"
	// WrongKey: the row of a segment names another object than the segment's.
	WrongKey Kind = "wrong-key"
	// WrongExtent: an extent is not what its segment holds at its place.
	WrongExtent Kind = "wrong-extent"
	// DanglingExtent: an extent refers to a segment that does not exist or is
	// not committed.
	DanglingExtent Kind = "dangling-extent"
	// OffsetGap: no extent holds the offset, and extents after it do.
	OffsetGap Kind = "offset-gap"
	// OffsetOverlap: two extents hold the offset.
	OffsetOverlap Kind = "offset-overlap"
	// WrongLogStart: the first extent of a partition does not hold its log start.
	WrongLogStart Kind = "wrong-log-start"
	// WrongHighWatermark: the extents of a partition do not end at its high
	// watermark.
	WrongHighWatermark Kind = "wrong-high-watermark"
	// WrongBytes: a partition counts other bytes than its extents have.
	WrongBytes Kind = "wrong-bytes"
	// NoPartition: extents are of a partition that their topic does not have.
	NoPartition Kind = "no-partition"
	// WrongLiveCount: a segment counts other extents than refer to it.
	WrongLiveCount Kind = "wrong-live-count"
	// WrongState: a segment is committed without live extents, or has some and
	// is not.
	WrongState Kind = "wrong-state"
)

// Problem is one thing that is damaged.
type Problem struct {
	Kind Kind `json:"kind"`
	// Topic is empty and Partition -1 if it concerns no partition. Where it
	// concerns a whole segment, they and Offset name the first extent in it.
	Topic     string             `json:"topic,omitempty"`
	TopicID   string             `json:"topic_id,omitempty"`
	Partition domain.PartitionID `json:"partition"`
	// Offset is the first one that is concerned, -1 if that has no meaning.
	Offset domain.Offset `json:"offset"`
	// Segment and Key are empty if it concerns no segment.
	Segment string `json:"segment,omitempty"`
	Key     string `json:"key,omitempty"`
	// What says it in words.
	What string `json:"what"`
}

func compareProblems(a, b Problem) int {
	return cmp.Or(
		cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.TopicID, b.TopicID), cmp.Compare(a.Partition, b.Partition),
		cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Segment, b.Segment), cmp.Compare(a.Kind, b.Kind),
	)
}

// Report is what a walk has found.
type Report struct {
	Cluster    string `json:"cluster"`
	Topics     int    `json:"topics"`
	Partitions int    `json:"partitions"`
	Extents    int    `json:"extents"`
	// Segments counts the rows at the beginning of the walk, Checked those whose
	// object was read and compared.
	Segments SegmentCounts `json:"segments"`
	Checked  int           `json:"checked"`
	// Objects counts all that the segment store lists, Bytes their sizes.
	Objects   int   `json:"objects"`
	Bytes     int64 `json:"bytes"`
	BytesRead int64 `json:"bytes_read"`

	// Problems are damages, at most Options.MaxProblems of ProblemCount.
	Problems     []Problem `json:"problems"`
	ProblemCount int       `json:"problem_count"`

	// What follows is no damage. Orphans are objects of this cluster that no row
	// speaks for; a sweep removes them. Foreign are those whose key or header is not of a segment of
	// this cluster; they are left alone. Garbage waits for its collection.
	Orphans Leftover `json:"orphans"`
	Foreign Leftover `json:"foreign"`
	Garbage Garbage  `json:"garbage"`

	// Unsettled counts partitions that changed under each look, so that nothing
	// can be said of them.
	Unsettled int `json:"unsettled"`
	// Walks is how often the extents were walked over.
	Walks   int     `json:"walks"`
	Seconds float64 `json:"seconds"`
}

// OK reports that nothing is damaged.
func (r *Report) OK() bool { return r.ProblemCount == 0 }

// SegmentCounts counts segments by state.
type SegmentCounts struct {
	Pending   int `json:"pending"`
	Committed int `json:"committed"`
	Deleting  int `json:"deleting"`
	Deleted   int `json:"deleted"`
}

func (c *SegmentCounts) add(s ports.SegmentState) {
	switch s {
	case ports.SegmentPending:
		c.Pending++
	case ports.SegmentCommitted:
		c.Committed++
	case ports.SegmentDeleting:
		c.Deleting++
	case ports.SegmentDeleted:
		c.Deleted++
	}
}

// Leftover counts objects. Keys are the first of them, at most 100.
type Leftover struct {
	Count int      `json:"count"`
	Bytes int64    `json:"bytes"`
	Keys  []string `json:"keys,omitempty"`
}

const maxKeys = 100

func (l *Leftover) add(o ports.ObjectInfo) {
	l.Count++
	l.Bytes += o.Size
	if len(l.Keys) < maxKeys {
		l.Keys = append(l.Keys, o.Key)
	}
}

// Garbage is what the janitor will collect.
type Garbage struct {
	// Pending are objects that are uploaded and not committed, by writers that
	// are about to or never will; Deleting those that nothing refers to any more.
	Pending  Leftover `json:"pending"`
	Deleting Leftover `json:"deleting"`
	// Extents of deleted topics, which are purged.
	Extents     int   `json:"extents"`
	ExtentBytes int64 `json:"extent_bytes"`
}
