// Package janitor keeps what is stored down to what is needed: retention, the
// removal of garbage, and the compaction of small segments into large ones.
//
// Any number of janitors may work on one pair of stores. Each decision is made
// by the metadata store, in a transaction of its own over a bounded number of rows; what a janitor
// remembers only tells it where to look. It may be stopped or killed at any point.
package janitor

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// Janitor does the work of one process. Its methods may be called from several
// goroutines.
type Janitor struct {
	metadata ports.MetadataStore
	store    ports.SegmentStore
	tel      ports.Telemetry
	cfg      Config
	compact  compactor

	mu      sync.Mutex // guards all below
	status  [loops]LoopStatus
	garbage domain.SegmentID // behind which the next walk over the garbage begins
	random  *rand.Rand
}

// New makes a Janitor on the two stores, which the caller closes after it. It
// takes a cfg that passes Validate.
func New(metadata ports.MetadataStore, store ports.SegmentStore, tel ports.Telemetry, cfg Config) *Janitor {
	j := &Janitor{
		metadata: boundedMetadata{metadata, cfg.CallTimeout}, store: boundedStore{store, cfg.CallTimeout}, tel: tel, cfg: cfg,
		compact: newCompactor(), random: rand.New(rand.NewPCG(cmp.Or(cfg.Seed, rand.Uint64()), 0)),
	}
	for l := range j.status {
		j.status[l].Loop = loop(l).String()
	}
	return j
}

// draw returns a number from 0 to n-1, or 0 if n is less than 2.
func (j *Janitor) draw(n int) int {
	if n < 2 {
		return 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.random.IntN(n)
}

// loop names one of the things that a janitor does over and over.
type loop int

const (
	retention loop = iota
	collection
	compaction
	sweep
	loops
)

func (l loop) String() string {
	return [...]string{"retention", "collection", "compaction", "sweep"}[l]
}

// event is the kind under which telemetry hears of the loop.
func (l loop) event() ports.EventKind {
	return [...]ports.EventKind{ports.RetentionPass, ports.CollectionPass, ports.CompactionPass, ports.SweepPass}[l]
}

// LoopStatus is how one of a janitor's loops is doing.
type LoopStatus struct {
	Loop string
	// LastSuccess is when a pass last went through. The zero time: never yet.
	LastSuccess time.Time
	// Err is why the last pass did not go through, nil if it did.
	Err error
}

// Status returns how each loop is doing. The age of LastSuccess tells whether
// anything is cleaned up.
func (j *Janitor) Status() []LoopStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]LoopStatus(nil), j.status[:]...)
}

// Report is what passes have done.
type Report struct {
	// Retained counts what retention removed, Purged what went of deleted topics.
	Retained, Purged ports.Removed
	// Expired counts reservations that became garbage, Deleted the objects that
	// were deleted, Forgotten the rows that were dropped.
	Expired, Deleted, Forgotten int
	Sweep                       SweepReport
	Compaction                  CompactionReport
}

// Once makes one pass of each loop, the sweep only if sweep is true. What fails
// does not keep the others from their work; the error joins all failures.
func (j *Janitor) Once(ctx context.Context, withSweep bool) (Report, error) {
	var r Report
	var errs []error
	for l := range loops {
		if l != sweep || withSweep {
			errs = append(errs, j.pass(ctx, l, &r))
		}
	}
	return r, errors.Join(errs...)
}

// pass makes one pass of a loop, adds to r, and tells of it.
func (j *Janitor) pass(ctx context.Context, l loop, r *Report) error {
	start := time.Now()
	e := ports.Event{Kind: l.event()}
	switch l {
	case retention:
		e.Err = j.retain(ctx, r)
		e.Count, e.Bytes = r.Retained.Extents+r.Purged.Extents, r.Retained.Bytes+r.Purged.Bytes
	case collection:
		e.Err = j.collect(ctx, r)
		e.Count = r.Deleted
	case compaction:
		e.Err = j.compactAll(ctx, &r.Compaction)
		e.Count, e.Bytes = r.Compaction.Replaced, r.Compaction.Bytes
	case sweep:
		e.Err = j.sweep(ctx, &r.Sweep)
		e.Count, e.Bytes = r.Sweep.Deleted, r.Sweep.DeletedBytes
	}
	e.Duration = time.Since(start)
	j.tel.Record(e)
	j.mu.Lock()
	defer j.mu.Unlock()
	s := &j.status[l]
	if s.Err = e.Err; e.Err == nil {
		s.LastSuccess = time.Now()
	}
	return e.Err
}
