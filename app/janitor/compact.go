package janitor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// chunkPartitions is how many partitions are planned together.
const chunkPartitions = 256

// CompactionReport is what compaction has done.
type CompactionReport struct {
	// Segments were written, which hold Copies extents in the place of Replaced
	// ones, Bytes together.
	Segments, Copies, Replaced int
	Bytes                      int64
	// Reads counts the ranged reads it took.
	Reads int
	// Lost counts copies that came too late: trimmed or compacted meanwhile.
	Lost int
}

// compactor remembers where to look. What it remembers decides nothing.
type compactor struct {
	mu      sync.Mutex // held through a pass: one at a time
	settled map[commit.PartitionKey]mark
}

// mark is up to where a partition's extents are large, and the high watermark
// when there was nothing to do behind it.
type mark struct{ from, idle domain.Offset }

// compactAll makes one pass over all partitions. A failure of one part leaves it
// to the next pass and does not keep the others from their turn.
func (j *Janitor) compactAll(ctx context.Context, r *CompactionReport) error {
	if j.cfg.CompactExtentBytes == 0 {
		return nil
	}
	j.compact.mu.Lock()
	defer j.compact.mu.Unlock()
	topics, err := j.metadata.ListTopics(ctx)
	if err != nil {
		return err
	}
	j.compact.keep(topics)
	var errs []error
	for _, t := range topics {
		for from := int32(0); from < t.Partitions && ctx.Err() == nil; from += chunkPartitions {
			c := chunk{j: j, topic: t, report: r}
			for p := from; p < min(from+chunkPartitions, t.Partitions); p++ {
				c.keys = append(c.keys, commit.PartitionKey{Topic: t.ID, Partition: domain.PartitionID(p)})
			}
			if err := c.compact(ctx); err != nil && !errors.Is(err, domain.ErrTopicNotFound) {
				errs = append(errs, fmt.Errorf("compact topic %s: %w", t.Name, err))
			}
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// keep forgets the partitions of topics that are gone.
func (c *compactor) keep(topics []domain.Topic) {
	alive := make(map[domain.TopicID]bool, len(topics))
	for _, t := range topics {
		alive[t.ID] = true
	}
	for key := range c.settled {
		if !alive[key.Topic] {
			delete(c.settled, key)
		}
	}
}

// chunk is some partitions of one topic.
type chunk struct {
	j      *Janitor
	topic  domain.Topic
	keys   []commit.PartitionKey
	report *CompactionReport
}

// compact works on the chunk until there is nothing more to put together.
func (c *chunk) compact(ctx context.Context) error {
	for {
		plans, err := c.plan(ctx)
		if err != nil {
			return err
		}
		copies, more := c.choose(plans)
		if len(copies) == 0 {
			if !more {
				return nil
			}
			continue
		}
		b := build{j: c.j, copies: copies, report: c.report}
		start := time.Now()
		if err := b.do(ctx); err != nil {
			return err
		}
		if !c.j.throttle(ctx, b.moved, time.Since(start)) {
			return ctx.Err()
		}
	}
}

// throttle pauses so long that moved bytes keep to the bandwidth.
func (j *Janitor) throttle(ctx context.Context, moved int64, took time.Duration) bool {
	if j.cfg.CompactBytesPerSecond == 0 {
		return ctx.Err() == nil
	}
	want := time.Duration(float64(moved) / float64(j.cfg.CompactBytesPerSecond) * float64(time.Second))
	return pause(ctx, want-took)
}

// plan asks for the next window of each partition. The high watermarks come
// first, so that partitions where nothing has happened cost no more.
func (c *chunk) plan(ctx context.Context) ([]ports.Plan, error) {
	requests := make([]ports.PlanRequest, len(c.keys))
	for i, key := range c.keys {
		requests[i] = ports.PlanRequest{PartitionKey: key}
	}
	bounds, err := c.j.metadata.Plan(ctx, requests)
	if err != nil {
		return nil, err
	}
	busy := requests[:0]
	for i, b := range bounds {
		m := c.j.compact.settled[c.keys[i]]
		from := max(m.from, b.LogStart)
		if b.Err == nil && from < b.HighWatermark && m.idle < b.HighWatermark {
			busy = append(busy, ports.PlanRequest{
				PartitionKey: c.keys[i], From: from, MaxBytes: 1 << 62, MaxExtents: windowExtents,
			})
		}
	}
	if c.keys = c.keys[:0]; len(busy) == 0 {
		return nil, nil
	}
	for _, r := range busy {
		c.keys = append(c.keys, r.PartitionKey)
	}
	return c.j.metadata.Plan(ctx, busy)
}

// choose picks what one segment takes of the planned extents, and moves the
// marks. More says that there is more to look at than was planned.
//
// Each partition first gets an equal share of the segment, so that what lies side by side
// in the old segments is read together; if nothing is worth a rewrite at that size, some
// partitions get more.
func (c *chunk) choose(plans []ports.Plan) (copies []source, more bool) {
	if len(plans) == 0 {
		return nil, false
	}
	r := c.rules()
	share := max(c.j.cfg.CompactSegmentBytes/int64(len(plans)), minShare)
	for ; ; share *= 4 {
		last := share >= r.target
		copies, more = c.chooseShare(plans, r, min(share, r.target), last)
		if len(copies) > 0 || last {
			return copies, more
		}
	}
}

// chooseShare picks runs of at most share bytes of each partition. The last
// attempt moves the marks.
func (c *chunk) chooseShare(plans []ports.Plan, r rules, share int64, last bool) (copies []source, more bool) {
	left := c.j.cfg.CompactSegmentBytes
	for i, p := range plans {
		if left < share {
			return copies, more // the next segment's turn
		}
		r.budget = share
		runs, settled := r.choose(extentsOf(p))
		for _, run := range runs {
			left -= bytesOf(run)
			copies = append(copies, source{of: run, keys: keysOf(p, run)})
		}
		if (last || len(runs) > 0) && c.move(c.keys[i], p, settled, len(runs), r.before) {
			more = true
		}
	}
	return copies, more
}

// minShare is the least that one partition may take of a segment.
const minShare = 64 << 10

func (c *chunk) rules() rules {
	r := rules{
		target: c.j.cfg.CompactExtentBytes, fanIn: c.j.cfg.CompactFanIn,
		before: time.Now().Add(-c.j.cfg.CompactAfter).UnixMilli(),
	}
	// What retention removes is whole extents: they stay small beside it.
	if keep := c.topic.Retention; keep.Bytes > 0 {
		r.target = min(r.target, max(keep.Bytes/8, 1))
	}
	if keep := c.topic.Retention; keep.Age > 0 {
		r.span = max(keep.Age.Milliseconds()/8, 1)
	}
	return r
}

// move notes up to where partition key needs no further look, and reports
// whether there is something behind the window that does.
func (c *chunk) move(key commit.PartitionKey, p ports.Plan, settled, runs int, before int64) (more bool) {
	n := len(p.Extents)
	if n == 0 {
		return false
	}
	m := c.j.compact.settled[key]
	full := n == windowExtents
	if runs == 0 && full {
		settled = max(settled, n-c.j.cfg.CompactFanIn) // none of these fit together
	}
	if settled > 0 {
		m.from = p.Extents[settled-1].Last + 1
	}
	if runs == 0 && !full && p.Extents[n-1].CommittedAt <= before {
		m.idle = p.HighWatermark
	}
	c.j.compact.settled[key] = m
	return runs == 0 && full
}

func extentsOf(p ports.Plan) []commit.Extent {
	extents := make([]commit.Extent, len(p.Extents))
	for i, e := range p.Extents {
		extents[i] = e.Extent
	}
	return extents
}

// keysOf returns the object keys of the run's extents.
func keysOf(p ports.Plan, run []commit.Extent) []string {
	keys := make([]string, 0, len(run))
	for _, e := range p.Extents {
		if e.Base >= run[0].Base && e.Base <= run[len(run)-1].Base {
			keys = append(keys, e.ObjectKey)
		}
	}
	return keys
}
