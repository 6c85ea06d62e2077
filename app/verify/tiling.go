package verify

import (
	"fmt"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// fault is something wrong at an offset of a partition.
type fault struct {
	kind   Kind
	offset domain.Offset
	what   string
}

// tiling puts the extents of one partition side by side, as they come, and
// compares them with the state that the partition had before the first of them was read.
type tiling struct {
	state   domain.PartitionState
	extents int
	first   commit.Extent
	last    commit.Extent
	next    domain.Offset // the offset after the last extent
	bytes   int64
	// marked says that an extent ends, or the first begins, where the high
	// watermark was, and atMark how many bytes there are before it.
	marked bool
	atMark int64
	// faults lie between two extents of one snapshot, or within one: at most
	// maxFaults of faultCount.
	faults     []fault
	faultCount int
}

const maxFaults = 100

func (t *tiling) fault(kind Kind, offset domain.Offset, format string, args ...any) {
	if t.faultCount++; len(t.faults) < maxFaults {
		t.faults = append(t.faults, fault{kind, offset, fmt.Sprintf(format, args...)})
	}
}

func (t *tiling) add(e commit.Extent) {
	if t.extents == 0 {
		t.first, t.next = e, e.Base
		t.mark()
	}
	switch {
	case e.Base > t.next:
		t.fault(OffsetGap, t.next, "no extent holds offsets %d to %d", t.next, e.Base-1)
	case e.Base < t.next:
		t.fault(OffsetOverlap, e.Base, "the extents at %d and at %d both hold offset %d", t.last.Base, e.Base, e.Base)
	}
	if e.Last < e.Base || e.Length <= 0 || e.Batches < 1 {
		t.fault(WrongExtent, e.Base, "an extent of offsets %d to %d with %d batches in %d bytes", e.Base, e.Last, e.Batches, e.Length)
	}
	t.extents++
	t.last, t.next = e, e.Last+1
	t.bytes += e.Length
	t.mark()
}

func (t *tiling) mark() {
	if t.next == t.state.HighWatermark {
		t.marked, t.atMark = true, t.bytes
	}
}

// holdsStart reports whether the first extent holds the log start that the
// partition had before.
func (t *tiling) holdsStart() bool {
	return t.extents > 0 && t.first.Base <= t.state.LogStart && t.state.LogStart <= t.first.Last
}

// clean reports that all is as it should be. If the first extent holds the old log start, it
// was the first one then too, since what goes goes from the low end; and from there to the old high
// watermark the bytes are what they were, whatever was appended or compacted meanwhile.
func (t *tiling) clean() bool {
	if t.extents == 0 {
		return t.state.LogStart == t.state.HighWatermark && t.state.Bytes == 0
	}
	return t.faultCount == 0 && t.holdsStart() && t.marked && (t.atMark == t.state.Bytes || mutant.On(mutantBytesUnchecked))
}
