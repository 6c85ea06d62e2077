package janitor

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// Plan reports what Once would do now, and changes nothing: SweepReport.Deleted
// stays 0, its Orphans are what would go, and ErrTooManyOrphans is returned as the sweep would.
//
// It goes by the clock of this process where Once goes by the store's. It does not count what
// one step of Once makes for the next: garbage that is only made now, and extents that would be put together
// twice in one pass.
func (j *Janitor) Plan(ctx context.Context, withSweep bool) (Report, error) {
	var r Report
	errs := []error{
		j.planRetention(ctx, &r.Retained),
		j.planPurge(ctx, &r.Purged),
		j.planCollection(ctx, &r),
		j.planCompaction(ctx, &r.Compaction),
	}
	if withSweep {
		orphans, err := j.orphans(ctx, &r.Sweep)
		if err == nil {
			err = j.checkShare(orphans, &r.Sweep)
		}
		errs = append(errs, err)
	}
	return r, errors.Join(errs...)
}

func (j *Janitor) planRetention(ctx context.Context, sum *ports.Removed) error {
	topics, err := j.metadata.ListTopics(ctx)
	if err != nil {
		return err
	}
	keep := make(map[domain.TopicID]domain.Retention, len(topics))
	for _, t := range topics {
		keep[t.ID] = t.Retention
	}
	for after := ports.FirstPartition; ; {
		due, err := j.metadata.RetentionDue(ctx, after, j.cfg.StepRows)
		if err != nil {
			return err
		}
		for _, key := range due {
			if err := j.planRetain(ctx, key, keep[key.Topic], sum); err != nil && !errors.Is(err, domain.ErrTopicNotFound) {
				return failedAt("retention", key, err)
			}
		}
		if len(due) < j.cfg.StepRows {
			return nil
		}
		after = due[len(due)-1]
	}
}

// planRetain counts what retention would take of one partition.
func (j *Janitor) planRetain(ctx context.Context, key commit.PartitionKey, keep domain.Retention, sum *ports.Removed) error {
	states, err := j.metadata.DescribePartitions(ctx, key.Topic)
	if err != nil {
		return err
	}
	if int(key.Partition) >= len(states) {
		return domain.ErrTopicNotFound
	}
	from, stored, now := states[key.Partition].LogStart, states[key.Partition].Bytes, time.Now().UnixMilli()
	for {
		plans, err := j.metadata.Plan(ctx, []ports.PlanRequest{{PartitionKey: key, From: from, MaxBytes: math.MaxInt64}})
		if err != nil {
			return err
		}
		extents := extentsOf(plans[0].Extents)
		n, bytes := commit.Retained(keep, extents, stored, now)
		add(sum, ports.Removed{Extents: n, Bytes: bytes})
		if n < len(extents) || n == 0 {
			return nil
		}
		from, stored = extents[n-1].Last+1, stored-bytes
	}
}

// planPurge counts the extents of topics that are not there, before and after:
// one may be created meanwhile.
func (j *Janitor) planPurge(ctx context.Context, sum *ports.Removed) error {
	alive, err := j.alive(ctx)
	if err != nil {
		return err
	}
	left := make(map[domain.TopicID]ports.Removed)
	for after := ports.FirstExtent; ; {
		page, err := j.metadata.Extents(ctx, after, j.cfg.StepRows)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		after = ports.PlaceOf(page[len(page)-1].Extent)
		for _, e := range page {
			if alive[e.Topic] { // on to the next topic
				after = ports.ExtentPlace{PartitionKey: commit.PartitionKey{Topic: e.Topic, Partition: math.MaxInt32}, Base: math.MaxInt64}
				break
			}
			sumOf := left[e.Topic]
			add(&sumOf, ports.Removed{Extents: 1, Bytes: e.Length})
			left[e.Topic] = sumOf
		}
	}
	if alive, err = j.alive(ctx); err != nil {
		return err
	}
	for id, removed := range left {
		if !alive[id] {
			add(sum, removed)
		}
	}
	return nil
}

func (j *Janitor) alive(ctx context.Context) (map[domain.TopicID]bool, error) {
	topics, err := j.metadata.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	alive := make(map[domain.TopicID]bool, len(topics))
	for _, t := range topics {
		alive[t.ID] = true
	}
	return alive, nil
}

func (j *Janitor) planCollection(ctx context.Context, r *Report) error {
	for after := (domain.SegmentID{}); ; {
		page, err := j.metadata.Segments(ctx, after, j.cfg.StepRows)
		if err != nil {
			return err
		}
		now := time.Now()
		for _, row := range page {
			switch age := now.Sub(row.StateAt); {
			case row.State == ports.SegmentPending && age >= j.cfg.ReservationGrace:
				r.Expired++
			case row.State == ports.SegmentDeleting && age >= j.cfg.DeleteGrace:
				r.Deleted++
			case row.State == ports.SegmentDeleted && age >= j.cfg.ForgetAfter:
				r.Forgotten++
			}
		}
		if len(page) < j.cfg.StepRows {
			return nil
		}
		after = page[len(page)-1].ID
	}
}

// planCompaction makes a pass that remembers nothing and builds nothing.
func (j *Janitor) planCompaction(ctx context.Context, r *CompactionReport) error {
	if j.cfg.CompactExtentBytes == 0 {
		return nil
	}
	if err := j.compact.take(ctx); err != nil {
		return err
	}
	defer j.compact.leave()
	p := &compacting{j: j, report: r, marks: make(map[commit.PartitionKey]mark), dry: true}
	err := p.all(ctx)
	r.Unreadable = j.compact.suspects.banned(time.Now())
	return err
}

// count reports copies in place of building them, and moves on behind them.
func (c *chunk) count(copies []source) {
	r, bytes := c.pass.report, int64(0)
	ends := make(map[commit.PartitionKey]domain.Offset, len(copies))
	for _, cp := range copies {
		last := cp.of[len(cp.of)-1]
		ends[last.Key()] = last.Last + 1
		bytes += bytesOf(cp.of)
		r.Replaced += len(cp.of)
	}
	r.Segments++
	r.Copies += len(copies)
	r.Bytes += segment.Size(bytes, len(ends))
	for _, s := range c.scans {
		s.from = max(s.from, ends[s.key])
	}
}
