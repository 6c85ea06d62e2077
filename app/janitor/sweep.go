package janitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

const (
	segmentsPrefix = "segments/"
	listPage       = 1000
	// maxOrphans bounds the memory of a sweep. What is beyond is found by the
	// next one.
	maxOrphans = 100_000
)

// SweepReport is what a sweep of the bucket found.
type SweepReport struct {
	// Objects counts the objects below segments/. Orphans are those of this
	// cluster, old enough, that no row speaks for; Foreign those that are not segments of this cluster,
	// which are left alone.
	Objects, Orphans, Foreign int
	OrphanBytes               int64
	Deleted                   int
	DeletedBytes              int64
}

// ErrTooManyOrphans is what a sweep answers that would remove more than
// SweepShare of all objects. It removed nothing.
var ErrTooManyOrphans = errors.New("too many objects without a row")

// sweep removes objects that no row speaks for: an upload that came after its
// reservation was given up and collected. A row exists before an object does, and is only dropped
// long after the object is gone, so an object without one, or with one in state deleted, can
// never be committed; its age decides nothing and is one more precaution.
func (j *Janitor) sweep(ctx context.Context, r *SweepReport) error {
	orphans, err := j.orphans(ctx, r)
	if err != nil || len(orphans) == 0 {
		return err
	}
	if err := j.checkShare(orphans, r); err != nil {
		return err
	}
	refs := make([]ports.SegmentRef, len(orphans))
	sizes := make(map[domain.SegmentID]int64, len(orphans))
	for i, o := range orphans {
		refs[i], sizes[o.ID] = o.SegmentRef, o.size
	}
	var failed failures
	gone, _ := j.delete(ctx, refs, &failed)
	for _, id := range gone {
		r.Deleted++
		r.DeletedBytes += sizes[id]
	}
	return failed.err()
}

// checkShare refuses to remove more than the configured share of all objects.
func (j *Janitor) checkShare(orphans []orphan, r *SweepReport) error {
	if float64(len(orphans)) <= j.cfg.SweepShare*float64(r.Objects) || mutant.On(mutantSweepUnbounded) {
		return nil
	}
	return fmt.Errorf("sweep: %d of %d objects have no row, more than %g %%, such as %s; nothing is removed: make sure that the metadata is the newest, then raise the sweep share for one pass: %w",
		len(orphans), r.Objects, 100*j.cfg.SweepShare, orphans[0].Key, ErrTooManyOrphans)
}

// orphan is an object without a row.
type orphan struct {
	ports.SegmentRef
	size int64
}

// orphans lists the bucket and compares it with the rows, page by page.
func (j *Janitor) orphans(ctx context.Context, r *SweepReport) ([]orphan, error) {
	var found []orphan
	for after := segmentsPrefix; ; {
		page, err := j.store.List(ctx, after, listPage)
		if err != nil {
			return nil, fmt.Errorf("sweep: %w", err)
		}
		suspects, past := j.pastAge(page, r)
		if len(suspects) > 0 {
			some, err := j.withoutRow(ctx, suspects, r)
			if err != nil {
				return nil, err
			}
			found = append(found, some...)
		}
		if past || len(page) < listPage || len(found) >= maxOrphans {
			return found, nil
		}
		after = page[len(page)-1].Key
	}
}

// pastAge returns the objects of a page that may be orphans, by their names and
// ages. Past says that the page goes beyond the segments.
func (j *Janitor) pastAge(page []ports.ObjectInfo, r *SweepReport) (old []orphan, past bool) {
	before := time.Now().Add(-j.cfg.SweepAge).UnixMilli()
	for _, o := range page {
		if !strings.HasPrefix(o.Key, segmentsPrefix) {
			return old, true
		}
		r.Objects++
		id, err := segment.ParseKey(o.Key)
		switch {
		case err != nil:
			r.Foreign++
		case o.ModifiedUnixMilli <= before:
			old = append(old, orphan{ports.SegmentRef{ID: id, Key: o.Key}, o.Size})
		}
	}
	return old, false
}

// withoutRow returns those that no row speaks for. A row that says that the
// object is gone is word enough that it may go; without any, the object itself has to say that it is of
// this cluster.
func (j *Janitor) withoutRow(ctx context.Context, suspects []orphan, r *SweepReport) ([]orphan, error) {
	ids := make([]domain.SegmentID, len(suspects))
	for i, s := range suspects {
		ids[i] = s.ID
	}
	rows, err := j.metadata.SegmentsByID(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	states := make(map[domain.SegmentID]ports.SegmentState, len(rows))
	for _, row := range rows {
		if !mutant.On(mutantSweepIgnoresRows) {
			states[row.ID] = row.State
		}
	}
	suspects = slices.DeleteFunc(suspects, func(o orphan) bool {
		s, known := states[o.ID]
		return known && s != ports.SegmentDeleted
	})
	ours, errs := make([]bool, len(suspects)), make([]error, len(suspects))
	each(len(suspects), j.cfg.Deletes, func(i int) bool {
		if _, ours[i] = states[suspects[i].ID]; !ours[i] {
			ours[i], errs[i] = j.ours(ctx, suspects[i])
		}
		return errs[i] == nil
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var orphans []orphan
	for i, s := range suspects {
		if !ours[i] {
			r.Foreign++
			continue
		}
		r.Orphans++
		r.OrphanBytes += s.size
		orphans = append(orphans, s)
	}
	return orphans, nil
}

// ours reads the object's header. One that cannot be read as a segment is left
// alone, and so is one that is gone.
func (j *Janitor) ours(ctx context.Context, o orphan) (bool, error) {
	if mutant.On(mutantSweepUnread) {
		return true, nil
	}
	head, err := j.store.ReadRange(ctx, o.Key, 0, segment.HeaderSize)
	switch {
	case errors.Is(err, ports.ErrObjectNotFound), errors.Is(err, domain.ErrCorrupt):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("sweep: %w", err)
	}
	cluster, id, err := segment.ParseHeader(head)
	return err == nil && cluster == j.metadata.ClusterID() && id == o.ID, nil
}
