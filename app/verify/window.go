package verify

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// window is a range of segment ids whose extents are held at the same time.
type window struct {
	after, upTo domain.SegmentID // ids greater than the one, up to the other
	open        bool             // there is no upper end
	rows        []row            // those that extents should refer to, by id
	extents     []extent         // each row has its part, see row.start
	topics      []domain.TopicID // extents name topics by their index here
}

// row is a segment that is committed, or says that it has live extents.
type row struct {
	id     domain.SegmentID
	size   int64
	crc32c uint32
	state  ports.SegmentState
	live   int
	// start is where the row's part of window.extents begins, room how long it is.
	start, room int
	// found counts the extents that refer to it, those without room too.
	found int
}

// extent is what is held of a commit.Extent.
type extent struct {
	base, last       domain.Offset
	position, length int64
	maxTimestamp     int64
	topic            int32
	partition        domain.PartitionID
	batches          int32
}

// countSegments counts all rows, for the report and for the progress's totals.
// The last of them is the last that is checked: a walk does not run after its writers.
func (v *verifier) countSegments(ctx context.Context) error {
	return v.walkSegments(ctx, domain.SegmentID{}, func(r ports.SegmentRow) bool {
		v.report.Segments.add(r.State)
		v.lastID = r.ID
		if isHeld(r) {
			v.progress.TotalSegments++
			v.progress.TotalBytes += max(r.Size, 0)
		}
		return true
	}, func() { v.tell(Counting) })
}

func isHeld(r ports.SegmentRow) bool { return r.State == ports.SegmentCommitted || r.Live != 0 }

// walkSegments gives each the rows after an id, in order, until it reports
// false.
func (v *verifier) walkSegments(ctx context.Context, after domain.SegmentID, each func(ports.SegmentRow) bool, paged func()) error {
	for {
		page, err := ask(ctx, func() ([]ports.SegmentRow, error) { return v.metadata.Segments(ctx, after, v.o.PageRows) })
		if err != nil {
			return err
		}
		for _, r := range page {
			if bytes.Compare(r.ID[:], after[:]) <= 0 {
				return fmt.Errorf("list segments: %w", errStuck)
			}
			if !each(r) {
				return nil
			}
			after = r.ID
		}
		paged()
		if len(page) < v.o.PageRows {
			return nil
		}
	}
}

// nextWindow takes the next segments whose extents fit into memory together, by
// what the rows say; and if one alone has more, that one.
func (v *verifier) nextWindow(ctx context.Context, after domain.SegmentID) (*window, error) {
	w := &window{after: after, upTo: after, open: true}
	room := 0
	err := v.walkSegments(ctx, after, func(r ports.SegmentRow) bool {
		if bytes.Compare(r.ID[:], v.lastID[:]) > 0 {
			return false
		}
		if isHeld(r) {
			n := max(r.Live, 1)
			if len(w.rows) > 0 && n > v.o.MemoryExtents-room {
				w.open = false
				return false
			}
			w.rows = append(w.rows, row{id: r.ID, size: r.Size, crc32c: r.CRC32C, state: r.State, live: r.Live, start: room, room: n})
			room += n
			if r.Key != segment.Key(r.ID) {
				v.add(Problem{
					Kind: WrongKey, Partition: -1, Offset: -1, Segment: r.ID.String(), Key: r.Key,
					What: fmt.Sprintf("the row names the object %q, the segment's is %q", r.Key, segment.Key(r.ID)),
				})
			}
		}
		w.upTo = r.ID
		return true
	}, func() { v.tell(WalkingExtents) })
	if len(w.rows) > 1 { // then all fit; what one row counts is not believed
		w.extents = make([]extent, room)
	}
	return w, err
}

// find returns the row of a segment, nil if there is none in the window.
func (w *window) find(id domain.SegmentID) *row {
	i, found := slices.BinarySearchFunc(w.rows, id, func(r row, id domain.SegmentID) int { return bytes.Compare(r.id[:], id[:]) })
	if !found {
		return nil
	}
	return &w.rows[i]
}

// covers reports whether the id is in the window's range.
func (w *window) covers(id domain.SegmentID) bool {
	if mutant.On(mutantWindowEdge) && id == w.upTo {
		return false
	}
	return bytes.Compare(id[:], w.after[:]) > 0 && (w.open || bytes.Compare(id[:], w.upTo[:]) <= 0)
}

// collect keeps those extents of a page that refer to segments of w, and looks
// again at those that refer to none.
func (v *verifier) collect(ctx context.Context, w *window, page []ports.ExtentRef) error {
	var suspects []ports.ExtentRef
	for _, e := range page {
		if !w.covers(e.Segment) {
			continue
		}
		if r := w.find(e.Segment); r != nil {
			w.keep(r, e.Extent)
			continue
		}
		suspects = append(suspects, e)
	}
	return v.judgeDangling(ctx, suspects)
}

// keep holds an extent that refers to r. More than r counts there cannot be,
// which is reported by the count; they are not held.
func (w *window) keep(r *row, e commit.Extent) {
	r.found++
	if r.found > r.room {
		return
	}
	if n := len(w.topics); n == 0 || w.topics[n-1] != e.Topic { // extents come by topic
		w.topics = append(w.topics, e.Topic)
	}
	held := extent{
		base: e.Base, last: e.Last, position: e.Position, length: e.Length, maxTimestamp: e.MaxTimestamp,
		topic: int32(len(w.topics) - 1), partition: e.Partition, batches: e.Batches,
	}
	if at := r.start + r.found - 1; at < len(w.extents) {
		w.extents[at] = held
	} else {
		w.extents = append(w.extents, held) // the window's only row
	}
}

// held returns the extents that refer to r.
func (w *window) held(r *row) []extent {
	if r.found == 0 {
		return nil
	}
	return w.extents[r.start : r.start+min(r.found, r.room)]
}

// judgeDangling looks again at extents whose segments were not committed when
// the rows were read: most were committed since. The order of reads is extent, row, extent.
// An extent is there only while its segment is committed; so if it is there before and after a
// moment at which the segment is not, no change can explain it.
func (v *verifier) judgeDangling(ctx context.Context, suspects []ports.ExtentRef) error {
	ids := make([]domain.SegmentID, 0, len(suspects))
	for _, e := range suspects {
		ids = append(ids, e.Segment)
	}
	slices.SortFunc(ids, func(a, b domain.SegmentID) int { return bytes.Compare(a[:], b[:]) })
	rows, err := v.rowsOf(ctx, slices.Compact(ids))
	if err != nil {
		return err
	}
	suspects = slices.DeleteFunc(suspects, func(e ports.ExtentRef) bool {
		return rows[e.Segment].State == ports.SegmentCommitted && !mutant.On(mutantDanglingUnasked)
	})
	there, err := v.stillThere(ctx, suspects)
	if err != nil {
		return err
	}
	for _, e := range suspects {
		if !there[ports.PlaceOf(e.Extent)] && !mutant.On(mutantDanglingAtOnce) {
			continue
		}
		what := "the segment does not exist"
		if r, found := rows[e.Segment]; found {
			what = fmt.Sprintf("the segment is %s", r.State)
		}
		v.add(Problem{
			Kind: DanglingExtent, Topic: v.names[e.Topic], TopicID: e.Topic.String(), Partition: e.Partition, Offset: e.Base,
			Segment: e.Segment.String(), Key: e.ObjectKey, What: fmt.Sprintf("offsets %d to %d: %s", e.Base, e.Last, what),
		})
	}
	return nil
}
