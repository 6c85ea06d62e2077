package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// keeperPlan is a process that makes passes of a janitor.
type keeperPlan struct {
	passes int
	pause  time.Duration // between two, at most
	config janitor.Config
}

// drawKeeper draws how a janitor works. Under faults any grace is right; without,
// they are long enough to disturb nobody.
func (p *Plan) drawKeeper(r *rand.Rand) keeperPlan {
	pauses := [...]time.Duration{10 * time.Millisecond, time.Second, 20 * time.Second}
	k := keeperPlan{passes: 3 + r.IntN(12), pause: pauses[r.IntN(len(pauses))], config: janitor.DefaultConfig()}
	c := &k.config
	c.CompactExtentBytes = 1 << (10 + r.IntN(5))
	c.CompactSegmentBytes = c.CompactExtentBytes << r.IntN(4)
	c.CompactFanIn = 4 + r.IntN(4)
	c.CompactAfter = time.Duration(r.IntN(3)) * time.Second
	c.CompactBytesPerSecond = int64(r.IntN(2)) << 20
	c.StepRows, c.Deletes = 2+r.IntN(20), 1+r.IntN(3)
	c.SweepShare, c.SweepAge = 1, time.Duration(r.IntN(10))*time.Second
	c.CallTimeout, c.Seed = 10*time.Second, p.Seed+1
	c.DeleteGrace = 5 * time.Minute
	if p.Mode == Mixed {
		graces := [...]time.Duration{0, time.Second, time.Minute, time.Hour}
		c.ReservationGrace, c.DeleteGrace = graces[r.IntN(len(graces))], graces[r.IntN(len(graces))]
	}
	return k
}

// drawRetention draws what a topic keeps: mostly everything.
func drawRetention(r *rand.Rand) domain.Retention {
	switch r.IntN(6) {
	case 0:
		return domain.Retention{Age: time.Duration(1+r.IntN(60)) * time.Second}
	case 1:
		return domain.Retention{Bytes: 200 << r.IntN(6)}
	default:
		return domain.Retention{}
	}
}

// keeper is one janitor, in one process after the other.
type keeper struct {
	world      *world
	plan       keeperPlan
	name       string
	random     *rand.Rand
	generation int
}

func (k *keeper) run() {
	p, j := k.open()
	for range k.plan.passes {
		if !p.step("pass") {
			p, j = k.open()
			continue
		}
		r, err := j.Once(p.ctx, k.random.IntN(3) == 0)
		k.world.tally(r)
		if err != nil && k.world.quiet() {
			k.world.violate("%s: a pass without a fault: %v", p.name, err)
		}
		time.Sleep(time.Duration(1 + k.random.Int64N(int64(k.plan.pause))))
	}
	k.world.retained()
	k.world.awaitHeal()
}

func (k *keeper) open() (*process, *janitor.Janitor) {
	k.generation++
	p := k.world.newProcess(fmt.Sprintf("%s.%d", k.name, k.generation), true)
	return p, janitor.New(p.metadata, p.segments, ports.NoTelemetry{}, k.plan.config)
}

// tally adds what a pass has done.
func (w *world) tally(r janitor.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept.Retained += r.Retained.Extents
	w.kept.Purged += r.Purged.Extents
	w.kept.Deleted += r.Deleted
	w.kept.Swept += r.Sweep.Deleted
	w.kept.Compacted += r.Compaction.Replaced
	w.kept.Lost += r.Compaction.Lost
}

// Kept counts what janitors did in a run, under faults: extents removed, objects
// deleted, extents put together, and copies that came too late.
type Kept struct{ Retained, Purged, Deleted, Swept, Compacted, Lost int }

func (k *Kept) add(o Kept) {
	k.Retained, k.Purged, k.Deleted = k.Retained+o.Retained, k.Purged+o.Purged, k.Deleted+o.Deleted
	k.Swept, k.Compacted, k.Lost = k.Swept+o.Swept, k.Compacted+o.Compacted, k.Lost+o.Lost
}

// retained notes that retention may have been applied until now.
func (w *world) retained() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retainedAt = time.Now()
}

// retention is what the topic of that name keeps.
func (w *world) retention(name string) domain.Retention {
	for _, t := range w.plan.topics {
		if t.name == name {
			return t.retention
		}
	}
	return domain.Retention{}
}

// checkKept demands that retention has taken nothing that was to be kept: what
// topics without it have, the bytes, and what was sent less than the age before the last pass.
func (w *world) checkKept() {
	starts := map[string][]domain.PartitionState{}
	for _, t := range w.plan.topics {
		states, err := w.metadata.DescribePartitions(context.Background(), w.topic(t.name).topic.ID)
		if err != nil {
			w.violate("describe %s: %v", t.name, err)
		}
		starts[t.name] = states
		for _, s := range states {
			switch {
			case t.retention == domain.Retention{} && s.LogStart != 0:
				w.violate("%s/%d keeps everything, and begins at %d", t.name, s.Partition, s.LogStart)
			case t.retention.Age == 0 && s.LogStart > 0 && s.Bytes < t.retention.Bytes:
				w.violate("%s/%d is to keep %d bytes, and has %d", t.name, s.Partition, t.retention.Bytes, s.Bytes)
			}
		}
	}
	for _, e := range w.events {
		if e.Kind != history.Ack {
			continue
		}
		s := w.sent[e.ID]
		keep, states := w.retention(s.record.Topic), starts[s.record.Topic]
		young := keep.Age > 0 && w.retainedAt.Sub(s.at) < keep.Age && w.topic(s.record.Topic).deletions == 0
		if young && domain.Offset(e.Offset) < states[e.Partition].LogStart {
			w.violate("%s was sent less than %v before the last pass of retention, and %s/%d begins behind it", e.ID, keep.Age, s.record.Topic, e.Partition)
		}
	}
}

// tidy makes passes of a janitor, once all is healed and drained, until there is
// nothing more to do. Then nothing may be left over.
func (w *world) tidy() {
	if w.quiet() {
		w.checkOrphans("before any sweep: ")
	}
	cfg := janitor.DefaultConfig()
	cfg.SweepShare, cfg.Seed, cfg.CompactBytesPerSecond = 1, 1, 0
	cfg.CompactExtentBytes, cfg.CompactSegmentBytes, cfg.CompactFanIn = 16<<10, 64<<10, 4
	j := janitor.New(w.metadata, w.segments, ports.NoTelemetry{}, cfg)
	var last janitor.Report
	for range 20 {
		time.Sleep(25 * time.Hour)
		r, err := j.Once(context.Background(), true)
		last = r
		if err != nil {
			w.violate("a pass after everything healed: %v", err)
			return
		}
		if r == (janitor.Report{Forgotten: r.Forgotten, Sweep: janitor.SweepReport{Objects: r.Sweep.Objects}}) {
			w.checkTidy()
			return
		}
	}
	w.violate("the janitor's work has no end: its last pass did %+v", last)
}

// checkTidy demands that every row is of a segment that is there and in use, or
// of one that is gone.
func (w *world) checkTidy() {
	for _, row := range w.metadata.Snapshot().Segments {
		if row.State == ports.SegmentPending || row.State == ports.SegmentDeleting {
			w.violate("segment %s is %v after all passes", row.ID, row.State)
		}
	}
	w.checkOrphans("")
}

// checkOrphans demands that every object has a row, which says that it is there.
func (w *world) checkOrphans(when string) {
	states := map[string]ports.SegmentState{}
	for _, row := range w.metadata.Snapshot().Segments {
		states[row.Key] = row.State
	}
	infos, err := w.segments.List(context.Background(), "", 1<<20)
	if err != nil {
		w.violate("list objects: %v", err)
	}
	for _, o := range infos {
		if s := states[o.Key]; s == 0 || s == ports.SegmentDeleted {
			w.violate("%sobject %s is there, and its segment is %v", when, o.Key, s)
		}
	}
}

// trimmed takes note that retention has overtaken a consumer, who begins anew at
// the start of the log. It reports whether err says so.
func (f *follower) trimmed(r *reading, err error) bool {
	var out *domain.OutOfRangeError
	name := r.topic.topic.Name
	if !errors.As(err, &out) || out.Offset >= out.LogStart || f.world.retention(name) == (domain.Retention{}) {
		return false
	}
	if err := r.consumer.Seek(r.ctx, name, out.Partition, consumer.Start()); err != nil {
		return true // it is told again
	}
	e := r.event(history.Assign, out.Partition)
	e.Offset = history.AnyOffset
	f.world.observe(r.process, e)
	return true
}
