package janitor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

const (
	// chunkPartitions is how many partitions are worked on together: what they
	// have side by side in the old segments is read at once.
	chunkPartitions = 1024
	// maxWindow bounds the extents that are planned together, and so the memory
	// of a plan, to some 20 MB.
	maxWindow = 64 << 10
	// maxReplaced is how many extents one transaction replaces at most.
	maxReplaced = ports.MaxUpkeep
)

// CompactionReport is what compaction has done.
type CompactionReport struct {
	// Segments were written, which hold Copies extents in the place of Replaced
	// ones, Bytes together.
	Segments, Copies, Replaced int
	Bytes                      int64
	// Reads counts the ranged reads of old segments that it took, ReadBytes
	// what they read.
	Reads     int
	ReadBytes int64
	// Lost counts copies that came too late: trimmed or compacted meanwhile.
	Lost int
	// Unreadable counts the extents that are left alone for an hour, because
	// they were read twice and could not be had, or are not what was committed.
	Unreadable int
}

// compactor remembers where to look. What it remembers decides nothing.
type compactor struct {
	turn     chan struct{} // holds the pass under way: one at a time; guards marks and suspects
	marks    map[commit.PartitionKey]mark
	suspects suspects
	again    atomic.Bool // the last pass left something that a later one can do
}

func newCompactor() compactor {
	return compactor{turn: make(chan struct{}, 1), marks: make(map[commit.PartitionKey]mark), suspects: make(suspects)}
}

// take waits until it is the caller's turn.
func (c *compactor) take(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *compactor) leave() { <-c.turn }

// mark is up to where a partition needs no look, and its high watermark when
// there was nothing to do at all.
type mark struct{ from, idle domain.Offset }

// compacting is one pass.
type compacting struct {
	j       *Janitor
	report  *CompactionReport
	failed  failures
	damaged failures // extents that cannot be read; they keep nobody
	again   bool
	marks   map[commit.PartitionKey]mark
	dry     bool // counts what it would do
}

// compactAll makes one pass over all partitions. A failure of one part leaves it
// to the next pass and does not keep the others from their turn.
func (j *Janitor) compactAll(ctx context.Context, r *CompactionReport) error {
	if j.cfg.CompactExtentBytes == 0 {
		return nil
	}
	if err := j.compact.take(ctx); err != nil {
		return err
	}
	defer j.compact.leave()
	p := &compacting{j: j, report: r, marks: j.compact.marks}
	err := p.all(ctx)
	r.Unreadable = j.compact.suspects.banned(time.Now())
	j.compact.again.Store(err != nil || p.again || len(j.compact.suspects) > 0)
	return err
}

func (p *compacting) all(ctx context.Context) error {
	topics, err := p.j.metadata.ListTopics(ctx)
	if err != nil {
		return err
	}
	p.j.compact.keep(topics, time.Now())
	chunks := slices.Collect(slices.Chunk(p.scans(topics), chunkPartitions))
	// Janitors that begin at the same moment begin at different places.
	first := p.j.draw(len(chunks))
	for i := range chunks {
		c := chunk{pass: p, scans: chunks[(first+i)%len(chunks)]}
		if !p.failed.note(c.compact(ctx)) || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(p.damaged.err(), p.failed.err(), ctx.Err())
}

// keep forgets the partitions of topics that are gone, and where it has been,
// if something that could not be read is to be tried again.
func (c *compactor) keep(topics []domain.Topic, now time.Time) {
	if c.suspects.expire(now) {
		clear(c.marks)
	}
	alive := make(map[domain.TopicID]bool, len(topics))
	for _, t := range topics {
		alive[t.ID] = true
	}
	for key := range c.marks {
		if !alive[key.Topic] {
			delete(c.marks, key)
		}
	}
}

// scan is how far a pass has come in one partition.
type scan struct {
	key   commit.PartitionKey
	rules rules
	from  domain.Offset // where the window begins

	refs    []ports.ExtentRef // the window
	extents []commit.Extent   // the same
	full    bool              // the partition may go on behind the window
	high    domain.Offset
	tried   bool // for the whole room that there is
	taken   bool // something is being put together
	done    bool
}

// scans returns one for every partition, in the order in which they stand in
// segments.
func (p *compacting) scans(topics []domain.Topic) []*scan {
	slices.SortFunc(topics, func(a, b domain.Topic) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	now := time.Now()
	var all []*scan
	for _, t := range topics {
		r := p.j.rules(t.Retention, now)
		for id := range domain.PartitionID(t.Partitions) {
			all = append(all, &scan{key: commit.PartitionKey{Topic: t.ID, Partition: id}, rules: r})
		}
	}
	return all
}

// rules are those of a topic. What retention removes is whole extents, so they
// stay small beside it: the last one goes up to an eighth late.
func (j *Janitor) rules(keep domain.Retention, now time.Time) rules {
	r := rules{
		target: j.cfg.CompactExtentBytes, fanIn: j.cfg.CompactFanIn, before: now.Add(-j.cfg.CompactAfter).UnixMilli(),
		bad: func(e commit.Extent) bool { return j.compact.suspects.isBanned(e, now) },
	}
	if keep.Bytes > 0 {
		r.target = min(r.target, max(keep.Bytes/8, 1))
	}
	if keep.Age > 0 {
		r.age = max(keep.Age.Milliseconds()/8, 1)
	}
	return r
}

// chunk is some partitions that are worked on together.
type chunk struct {
	pass  *compacting
	scans []*scan // those that are not done
}

// compact works on the chunk until there is nothing more to put together. Every
// round puts something together or comes further in some partition.
func (c *chunk) compact(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	for len(c.scans) > 0 {
		if err := c.plan(ctx); err != nil {
			return err
		}
		copies := c.pick()
		c.advance()
		if len(copies) == 0 {
			continue
		}
		if c.pass.dry {
			c.count(copies)
			continue
		}
		b := build{pass: c.pass, copies: copies}
		start := time.Now()
		lost, err := b.do(ctx)
		if err != nil {
			return err
		}
		if lost > 0 {
			c.pass.again = true // somebody else is at work here
			return nil
		}
		if !c.pass.j.throttle(ctx, b.moved, time.Since(start)) {
			return ctx.Err()
		}
	}
	return nil
}

// throttle pauses so long that moved bytes keep to the bandwidth.
func (j *Janitor) throttle(ctx context.Context, moved int64, took time.Duration) bool {
	if j.cfg.CompactBytesPerSecond == 0 {
		return ctx.Err() == nil
	}
	want := time.Duration(float64(moved) / float64(j.cfg.CompactBytesPerSecond) * float64(time.Second))
	return pause(ctx, want-took)
}

// begin leaves the partitions in which something may be done. It asks for no
// more than their bounds, so that those where nothing has happened cost little.
func (c *chunk) begin(ctx context.Context) error {
	requests := make([]ports.PlanRequest, len(c.scans))
	for i, s := range c.scans {
		requests[i] = ports.PlanRequest{PartitionKey: s.key}
	}
	bounds, err := c.pass.j.metadata.Plan(ctx, requests)
	if err != nil {
		return err
	}
	for i, s := range c.scans {
		m, b := c.pass.marks[s.key], bounds[i]
		s.from = max(m.from, b.LogStart)
		s.done = b.Err != nil || s.from >= b.HighWatermark || m.idle >= b.HighWatermark
	}
	c.drop()
	return nil
}

func (c *chunk) drop() { c.scans = slices.DeleteFunc(c.scans, func(s *scan) bool { return s.done }) }

// plan asks for the window of each partition.
func (c *chunk) plan(ctx context.Context) error {
	window := min(max(maxWindow/len(c.scans), 2*c.pass.j.cfg.CompactFanIn), ports.MaxExtents)
	requests := make([]ports.PlanRequest, len(c.scans))
	for i, s := range c.scans {
		requests[i] = ports.PlanRequest{PartitionKey: s.key, From: s.from, MaxBytes: 1 << 62, MaxExtents: window}
	}
	plans, err := c.pass.j.metadata.Plan(ctx, requests)
	if err != nil {
		return err
	}
	for i, s := range c.scans {
		s.take(plans[i], window)
	}
	c.drop()
	return nil
}

// take makes p the window.
func (s *scan) take(p ports.Plan, window int) {
	s.refs, s.full, s.high = p.Extents, len(p.Extents) == window, p.HighWatermark
	s.extents = extentsOf(p.Extents)
	s.tried, s.taken = false, false
	if len(p.Extents) == 0 {
		// Trimmed since it was looked at: the next pass begins at the new start.
		s.done = true
	}
}

func extentsOf(refs []ports.ExtentRef) []commit.Extent {
	extents := make([]commit.Extent, len(refs))
	for i, e := range refs {
		extents[i] = e.Extent
	}
	return extents
}

// minShare is the least that one partition may take of a segment, in bytes.
const minShare = 64 << 10

// pick chooses what one new segment takes of the windows.
//
// Each partition first gets an equal share, so that what lies side by side in the old
// segments is read together. Those for which nothing is worth a rewrite at that size get four
// times as much, and so on, while there is room.
func (c *chunk) pick() (copies []source) {
	n := len(c.scans)
	if n == 0 {
		return nil
	}
	cfg := c.pass.j.cfg
	all := room{cfg.CompactSegmentBytes, maxReplaced}
	share := room{max(all.bytes/int64(n), minShare), max(all.extents/n, cfg.CompactFanIn)}
	for left := all; ; share = (room{4 * share.bytes, 4 * share.extents}) {
		share = room{min(share.bytes, all.bytes), min(share.extents, all.extents)}
		last := share == all
		for _, s := range c.scans {
			if s.taken {
				continue
			}
			if left.bytes < min(share.bytes, s.rules.target) || left.extents < min(share.extents, len(s.extents)) {
				return copies // the others' turn comes with the next segment
			}
			runs := s.rules.choose(s.extents, room{min(share.bytes, left.bytes), min(share.extents, left.extents)})
			s.tried, s.taken = last, len(runs) > 0
			for _, run := range runs {
				left.bytes, left.extents = left.bytes-bytesOf(run), left.extents-len(run)
				copies = append(copies, s.source(run))
			}
		}
		if last {
			return copies
		}
	}
}

// source is the run with its objects' keys.
func (s *scan) source(run []commit.Extent) source {
	at, _ := slices.BinarySearchFunc(s.extents, run[0].Base, func(e commit.Extent, base domain.Offset) int { return cmp.Compare(e.Base, base) })
	return source{of: slices.Clone(run), refs: slices.Clone(s.refs[at : at+len(run)])}
}

// advance moves each window behind what needs no further look, notes how far
// the partitions are, and leaves those that have more.
func (c *chunk) advance() {
	for _, s := range c.scans {
		young := s.advance()
		m := mark{from: s.from}
		if s.done && !young {
			m.idle = s.high
		}
		c.pass.marks[s.key] = m
		c.pass.again = c.pass.again || young
	}
	c.drop()
}

// advance reports whether the window holds extents that are too young; then
// there is nothing behind it that is not. Young extents are never left behind.
func (s *scan) advance() (young bool) {
	at := 0
	for at < len(s.extents) && s.rules.large(s.extents[at]) {
		at++
	}
	if s.tried && !s.taken {
		young = slices.ContainsFunc(s.extents, s.rules.young) && !mutant.On(mutantYoungForgotten)
		s.done = young || !s.full
		if !s.done {
			at = max(at, s.tail())
		}
	}
	if at > 0 {
		s.from = s.extents[at-1].Last + 1
	}
	return young
}

// tail is where the small extents at the end of the window begin: more may come
// that go with them. It is not in the window's first half.
func (s *scan) tail() int {
	at := len(s.extents)
	for at > (len(s.extents)+1)/2 && s.rules.small(s.extents[at-1]) {
		at--
	}
	return at
}

// failedAt names a partition in an error.
func failedAt(what string, key commit.PartitionKey, err error) error {
	return fmt.Errorf("%s of topic %s partition %d: %w", what, key.Topic, key.Partition, err)
}
