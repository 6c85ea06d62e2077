package janitor

import (
	"context"
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

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

// deleteGarbage walks over the garbage. An object that cannot be deleted is left
// to the next pass and does not hold up those behind it: after many failures in a row the
// pass ends, and the next one begins where it ended.
func (j *Janitor) deleteGarbage(ctx context.Context, r *Report) error {
	var failed failures
	for after := j.garbageFrom(); ; {
		page, err := j.metadata.Garbage(ctx, j.cfg.DeleteGrace, after, j.cfg.StepRows)
		if err != nil {
			return errors.Join(failed.err(), err)
		}
		gone, tried := j.delete(ctx, page, &failed)
		if len(gone) > 0 {
			if err := j.metadata.MarkDeleted(ctx, gone); err != nil {
				return errors.Join(failed.err(), err)
			}
			r.Deleted += len(gone)
		}
		switch {
		case tried < len(page) || failed.inARow >= maxFailures:
			j.beginGarbageAt(page[tried-1].ID)
			return failed.err()
		case len(page) < j.cfg.StepRows:
			j.beginGarbageAt(domain.SegmentID{})
			return failed.err()
		}
		after = page[len(page)-1].ID
	}
}

// garbageFrom is the id behind which the next walk over the garbage begins.
func (j *Janitor) garbageFrom() domain.SegmentID {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.garbage
}

func (j *Janitor) beginGarbageAt(id domain.SegmentID) {
	if mutant.On(mutantAlwaysFromTop) {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.garbage = id
}

// delete deletes objects, several at the same time, and returns the ids of
// those that are gone, and how many of refs it came to before it gave up.
func (j *Janitor) delete(ctx context.Context, refs []ports.SegmentRef, failed *failures) (gone []domain.SegmentID, tried int) {
	ok := make([]bool, len(refs))
	tried = each(len(refs), j.cfg.Deletes, func(i int) bool {
		err := j.deleteOne(ctx, refs[i])
		ok[i] = err == nil
		goOn := failed.note(err) && ctx.Err() == nil
		return goOn && (err == nil || !mutant.On(mutantFirstFailure))
	})
	for i, ref := range refs {
		if ok[i] {
			gone = append(gone, ref.ID)
		}
	}
	return gone, tried
}

func (j *Janitor) deleteOne(ctx context.Context, ref ports.SegmentRef) error {
	if mutant.On(mutantMarkBeforeDelete) {
		return nil
	}
	if err := j.store.Delete(ctx, ref.Key); err != nil {
		return fmt.Errorf("delete garbage: %w", err)
	}
	return nil
}
