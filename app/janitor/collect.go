package janitor

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// Planted bugs, see package mutant.
const (
	mutantMarkBeforeDelete mutant.ID = "janitor-object-marked-deleted-and-kept"
	mutantSweepIgnoresRows mutant.ID = "janitor-sweep-goes-by-age-alone"
	mutantSweepUnread      mutant.ID = "janitor-sweep-takes-other-clusters"
)

// maxFailures is after how many failed deletes in a row a pass gives up: a store
// that throttles is not helped by more requests.
const maxFailures = 16

// collect turns reservations that nobody committed into garbage, deletes the
// objects of garbage and drops the rows of what was deleted long ago.
func (j *Janitor) collect(ctx context.Context, r *Report) error {
	return errors.Join(
		j.steps(&r.Expired, func() (int, error) {
			return j.metadata.ExpireReservations(ctx, j.cfg.ReservationGrace, j.cfg.StepRows)
		}),
		j.deleteGarbage(ctx, r),
		j.steps(&r.Forgotten, func() (int, error) {
			return j.metadata.ForgetDeleted(ctx, j.cfg.ForgetAfter, j.cfg.StepRows)
		}),
	)
}

// steps repeats step until it does less than it may.
func (j *Janitor) steps(sum *int, step func() (int, error)) error {
	for {
		n, err := step()
		if err != nil {
			return err
		}
		if *sum += n; n < j.cfg.StepRows {
			return nil
		}
	}
}

// deleteGarbage walks over all garbage once. An object that cannot be deleted
// is left to the next pass and does not hold up those behind it.
func (j *Janitor) deleteGarbage(ctx context.Context, r *Report) error {
	d := deleter{store: j.store, workers: j.cfg.Deletes}
	for after := (domain.SegmentID{}); ; {
		page, err := j.metadata.Garbage(ctx, j.cfg.DeleteGrace, after, j.cfg.StepRows)
		if err != nil {
			return errors.Join(d.err, err)
		}
		gone := d.delete(ctx, page)
		if len(gone) > 0 {
			if err := j.metadata.MarkDeleted(ctx, gone); err != nil {
				return errors.Join(d.err, err)
			}
			r.Deleted += len(gone)
		}
		if len(page) < j.cfg.StepRows || d.gaveUp {
			return d.err
		}
		after = page[len(page)-1].ID
	}
}

// deleter deletes objects, several at the same time.
type deleter struct {
	store   ports.SegmentStore
	workers int

	mu     sync.Mutex // guards all below
	inARow int        // failures since the last success
	gaveUp bool
	err    error // the first failure
}

// delete returns the ids of those whose objects are gone.
func (d *deleter) delete(ctx context.Context, refs []ports.SegmentRef) []domain.SegmentID {
	var wg sync.WaitGroup
	work := make(chan ports.SegmentRef)
	results := make([][]domain.SegmentID, d.workers)
	for w := range d.workers {
		wg.Go(func() {
			for ref := range work {
				if d.one(ctx, ref) {
					results[w] = append(results[w], ref.ID)
				}
			}
		})
	}
	for _, ref := range refs {
		if d.stopped() {
			break
		}
		work <- ref
	}
	close(work)
	wg.Wait()
	gone := make([]domain.SegmentID, 0, len(refs))
	for _, r := range results {
		gone = append(gone, r...)
	}
	return gone
}

func (d *deleter) stopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gaveUp
}

func (d *deleter) one(ctx context.Context, ref ports.SegmentRef) bool {
	var err error
	if !mutant.On(mutantMarkBeforeDelete) {
		err = d.store.Delete(ctx, ref.Key)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.inARow = 0
		return true
	}
	if d.err == nil {
		d.err = fmt.Errorf("delete garbage: %w", err)
	}
	d.inARow++
	d.gaveUp = d.gaveUp || d.inARow >= maxFailures || ctx.Err() != nil
	return false
}
