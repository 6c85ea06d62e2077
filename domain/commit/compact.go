package commit

import (
	"fmt"

	"github.com/streamhouse/streamhouse/domain"
)

// Compaction asks that the segment ID, whose object is durable, takes the place
// of extents of other segments: it holds the same batches, byte for byte.
type Compaction struct {
	ID     domain.SegmentID
	Size   int64
	CRC32C uint32
	Copies []Copy
}

// Copy says that the batches of the extents Of, which follow each other without
// a gap in one partition, stand one after the other at Position of the new segment.
type Copy struct {
	Position int64
	Of       []Extent
}

// Validate refuses a compaction that cannot be meant: without copies, a copy of
// nothing, extents of several partitions or with a gap between them, copies that overlap or
// lie outside the object, a partition's offsets twice.
func (c Compaction) Validate() error {
	if len(c.Copies) == 0 {
		return fmt.Errorf("compaction into segment %s holds nothing: %w", c.ID, domain.ErrInternal)
	}
	end := int64(0)
	next := make(map[PartitionKey]domain.Offset, len(c.Copies))
	for _, cp := range c.Copies {
		if err := cp.validate(c.ID); err != nil {
			return fmt.Errorf("compaction into segment %s: %w: %w", c.ID, err, domain.ErrInternal)
		}
		e := cp.Extent(c.ID)
		from, again := next[e.Key()]
		if cp.Position < end || e.Length > c.Size-cp.Position || again && e.Base < from {
			return fmt.Errorf("compaction into segment %s of %d bytes: copy of %d bytes at %d of offsets %d to %d overlaps or lies outside: %w",
				c.ID, c.Size, e.Length, cp.Position, e.Base, e.Last, domain.ErrInternal)
		}
		end, next[e.Key()] = cp.Position+e.Length, e.Last+1
	}
	return nil
}

func (c Copy) validate(id domain.SegmentID) error {
	if len(c.Of) == 0 {
		return fmt.Errorf("a copy of nothing")
	}
	for i, e := range c.Of {
		if e.Segment == id || e.Length <= 0 || e.Last < e.Base {
			return fmt.Errorf("a copy of offsets %d to %d, %d bytes of segment %s", e.Base, e.Last, e.Length, e.Segment)
		}
		if i > 0 && (e.Key() != c.Of[0].Key() || e.Base != c.Of[i-1].Last+1) {
			return fmt.Errorf("extent at %d does not follow the one that ends at %d", e.Base, c.Of[i-1].Last)
		}
	}
	return nil
}

// Extent is the extent that the copy becomes in segment id. Its CommittedAt is
// the newest of those it replaces.
func (c Copy) Extent(id domain.SegmentID) Extent {
	e := c.Of[0]
	e.Segment, e.Position = id, c.Position
	for _, o := range c.Of[1:] {
		e.Last = o.Last
		e.Length += o.Length
		e.Batches += o.Batches
		e.MaxTimestamp = max(e.MaxTimestamp, o.MaxTimestamp)
		e.CommittedAt = max(e.CommittedAt, o.CommittedAt)
	}
	return e
}

// Holds reports whether present, the extents that the log has now with base
// offsets from that of c's first extent to its last offset, are still those that c is a copy of.
// If not, some were trimmed, or replaced by another compaction, and the copy is of no
// use. Metadata stores ask it inside the transaction that replaces.
func (c Copy) Holds(present []Extent) bool {
	if len(present) != len(c.Of) {
		return false
	}
	for i, e := range c.Of {
		p := present[i]
		same := p.Base == e.Base && p.Last == e.Last && p.Segment == e.Segment &&
			p.Position == e.Position && p.Length == e.Length && p.Batches == e.Batches
		if !same {
			return false
		}
	}
	return true
}
