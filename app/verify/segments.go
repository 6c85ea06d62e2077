package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// maxUnreadable is after how many objects in a row that cannot be read the walk
// ends: it is the store then that is not right, and not they.
const maxUnreadable = 16

// finding is a problem of a segment. At is the extent that it concerns; nil if
// it concerns the segment as a whole.
type finding struct {
	Problem
	at *extent
}

// verdict is what a worker says of one segment.
type verdict struct {
	problems []Problem
	checked  bool // the object was read
	read     int64
	planned  int64
	// unreadable is why the object could not be read.
	unreadable error
}

// checkSegments checks the window's rows and their objects, which are read once
// each, several at a time.
func (v *verifier) checkSegments(ctx context.Context, w *window) error {
	v.tell(CheckingSegments)
	return spread(ctx, v.o.Workers, v.rowsWithRoom(ctx, w), func(ctx context.Context, r *row) (verdict, error) {
		defer v.memory.give(r.size)
		c := check{v: v, w: w, row: r, extents: w.held(r)}
		return c.do(ctx)
	}, func(d verdict) error {
		v.add(d.problems...)
		v.report.BytesRead += d.read
		if d.checked {
			v.report.Checked++
		}
		if v.inARow++; d.unreadable == nil {
			v.inARow = 0
		}
		if v.inARow >= maxUnreadable {
			return fmt.Errorf("%d objects in a row could not be read: %w", v.inARow, d.unreadable)
		}
		p := &v.progress
		p.Segments, p.Bytes = min(p.Segments+1, p.TotalSegments), min(p.Bytes+d.planned, p.TotalBytes)
		v.tell(CheckingSegments)
		return nil
	})
}

// rowsWithRoom gives the rows one by one, each when there is room in memory for
// its object.
func (v *verifier) rowsWithRoom(ctx context.Context, w *window) iter.Seq[*row] {
	return func(yield func(*row) bool) {
		for i := range w.rows {
			r := &w.rows[i]
			if !v.memory.take(ctx, r.size) || !yield(r) {
				return
			}
		}
	}
}

// check is the check of one segment.
type check struct {
	v       *verifier
	w       *window
	row     *row
	extents []extent
	verdict verdict
}

// do looks at the segment, and once more if it does not look right.
func (c *check) do(ctx context.Context) (verdict, error) {
	c.verdict.planned = max(c.row.size, 0)
	slices.SortFunc(c.extents, func(a, b extent) int { return cmp.Or(cmp.Compare(a.position, b.position), cmp.Compare(a.base, b.base)) })
	findings, err := c.look(ctx)
	if err == nil && (len(findings) > 0 || c.row.found != c.row.live || !stateFits(c.row.state, c.row.live)) {
		err = c.lookAgain(ctx, len(findings) > 0)
	}
	return c.verdict, err
}

// look looks at the object of a committed segment.
func (c *check) look(ctx context.Context) ([]finding, error) {
	if c.row.state != ports.SegmentCommitted {
		return nil, nil
	}
	return c.examine(ctx)
}

func stateFits(s ports.SegmentState, live int) bool {
	if s == ports.SegmentCommitted {
		return live > 0
	}
	return live == 0
}

// lookAgain reads the object, then the row, then the extents. If the row is still
// committed after the object was read, the object was to be there, as it was written; and an
// extent that is there still was to be in it.
func (c *check) lookAgain(ctx context.Context, object bool) error {
	var findings []finding
	var err error
	if object {
		if findings, err = c.look(ctx); err != nil {
			return err
		}
	}
	rows, err := c.v.rowsOf(ctx, []domain.SegmentID{c.row.id})
	if err != nil {
		return err
	}
	now, found := rows[c.row.id]
	if found && now.State == ports.SegmentCommitted || mutant.On(mutantDamageAtOnce) {
		if findings, err = c.persisting(ctx, findings); err != nil {
			return err
		}
		for _, f := range findings {
			c.verdict.problems = append(c.verdict.problems, f.Problem)
		}
	}
	c.judgeRow(now, found)
	return nil
}

// judgeRow compares the counts. The window's row was read before the extents, and
// now after them. Of a committed segment, no extents come and the count falls with each that goes, so
// that as many were seen as the row counted at some time between.
func (c *check) judgeRow(now ports.SegmentRow, found bool) {
	fits := !found || stateFits(now.State, now.Live)
	if !fits && !stateFits(c.row.state, c.row.live) {
		c.add(WrongState, "the segment is %s with %d live extents", now.State, now.Live)
	}
	if mutant.On(mutantCountOnce) {
		now.Live = c.row.live
	}
	if c.row.found > c.row.live || c.row.found < now.Live {
		c.add(WrongLiveCount, "%d live extents are counted, %d refer to the segment", c.row.live, c.row.found)
	}
}

func (c *check) add(kind Kind, format string, args ...any) {
	c.verdict.problems = append(c.verdict.problems, c.whole(kind, format, args...).Problem)
}

// persisting returns the findings whose extents are in the log still.
func (c *check) persisting(ctx context.Context, findings []finding) ([]finding, error) {
	refs := make([]ports.ExtentRef, 0, len(findings))
	for _, f := range findings {
		if f.at != nil {
			refs = append(refs, ports.ExtentRef{Extent: c.extentOf(f.at)})
		}
	}
	slices.SortFunc(refs, func(a, b ports.ExtentRef) int { return comparePlaces(ports.PlaceOf(a.Extent), ports.PlaceOf(b.Extent)) })
	if mutant.On(mutantExtentAtOnce) {
		return findings, nil
	}
	there, err := c.v.stillThere(ctx, refs)
	return slices.DeleteFunc(findings, func(f finding) bool {
		return f.at != nil && !there[ports.PlaceOf(c.extentOf(f.at))]
	}), err
}

// extentOf returns the extent that e was made of, without the time of its
// commit.
func (c *check) extentOf(e *extent) commit.Extent {
	return commit.Extent{
		Topic: c.w.topics[e.topic], Partition: e.partition, Base: e.base, Last: e.last, Segment: c.row.id,
		Position: e.position, Length: e.length, Batches: e.batches, MaxTimestamp: e.maxTimestamp,
	}
}

// whole makes a finding about the segment, at the first of its extents.
func (c *check) whole(kind Kind, format string, args ...any) finding {
	f := finding{Problem: Problem{
		Kind: kind, Partition: -1, Offset: -1, Segment: c.row.id.String(), Key: segment.Key(c.row.id), What: fmt.Sprintf(format, args...),
	}}
	if len(c.extents) == 0 {
		return f
	}
	f.place(c, &c.extents[0], 0)
	var records int64
	for i := range c.extents {
		records += int64(c.extents[i].last-c.extents[i].base) + 1
	}
	f.What += fmt.Sprintf("; %d extents with %d records are in it", len(c.extents), records)
	return f
}

// one makes a finding about the extent e, from its record number skip on.
func (c *check) one(kind Kind, e *extent, skip int64, format string, args ...any) finding {
	f := finding{at: e, Problem: Problem{
		Kind: kind, Segment: c.row.id.String(), Key: segment.Key(c.row.id),
		What: fmt.Sprintf("offsets %d to %d: ", e.base, e.last) + fmt.Sprintf(format, args...),
	}}
	f.place(c, e, skip)
	return f
}

func (f *finding) place(c *check, e *extent, skip int64) {
	topic := c.w.topics[e.topic]
	f.Topic, f.TopicID, f.Partition, f.Offset = c.v.names[topic], topic.String(), e.partition, e.base+domain.Offset(skip)
}

// maxObject is the largest object that is read. No writer makes one of half the
// size.
const maxObject = 2 << 30

// examine reads the object and compares it with the row and its extents. Its
// size is known before its memory is taken.
func (c *check) examine(ctx context.Context) ([]finding, error) {
	key := segment.Key(c.row.id)
	c.verdict.unreadable = nil
	info, err := ask(ctx, func() (ports.ObjectInfo, error) { return c.v.store.Stat(ctx, key) })
	if err != nil {
		return c.unread(ctx, err)
	}
	if info.Size != c.row.size && !mutant.On(mutantSizeUnchecked) {
		return c.otherSize(ctx, key, info.Size)
	}
	if info.Size > maxObject || info.Size < segment.Size(0, 0) {
		return []finding{c.whole(WrongSize, "%d bytes, which no segment has", info.Size)}, nil
	}
	object, err := ask(ctx, func() ([]byte, error) { return c.v.store.ReadRange(ctx, key, 0, info.Size) })
	if err == nil && int64(len(object)) != info.Size {
		err = fmt.Errorf("%d bytes were read of %d", len(object), info.Size)
	}
	if err != nil {
		return c.unread(ctx, err)
	}
	c.verdict.checked = true
	c.verdict.read += info.Size
	return c.judge(object, info.CRC32C), nil
}

// unread tells what keeps the object from being read.
func (c *check) unread(ctx context.Context, err error) ([]finding, error) {
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, ports.ErrObjectNotFound):
		return []finding{c.whole(MissingObject, "the object does not exist")}, nil
	case errors.Is(err, domain.ErrClosed):
		return nil, err
	}
	c.verdict.unreadable = err
	return []finding{c.whole(UnreadableObject, "%v", err)}, nil
}

// otherSize tells an object that is too short or too long from one that is
// another segment's.
func (c *check) otherSize(ctx context.Context, key string, size int64) ([]finding, error) {
	cluster, id, err := c.v.header(ctx, key)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil && (id != c.row.id || cluster != c.v.metadata.ClusterID()) {
		return []finding{c.whole(WrongIdentity, "the object is segment %s of cluster %s", id, cluster)}, nil
	}
	return []finding{c.whole(WrongSize, "the object has %d bytes, committed were %d", size, c.row.size)}, nil
}
