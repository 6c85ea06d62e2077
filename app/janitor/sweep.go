package janitor

import (
	"context"
	"errors"
	"fmt"
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
	if float64(len(orphans)) > j.cfg.SweepShare*float64(r.Objects) {
		return fmt.Errorf("sweep: %d of %d objects have no row, more than %g %%, such as %s; nothing is removed: make sure that the metadata is the newest, then raise the sweep share for one pass: %w",
			len(orphans), r.Objects, 100*j.cfg.SweepShare, orphans[0].Key, ErrTooManyOrphans)
	}
	d := deleter{store: j.store, workers: j.cfg.Deletes}
	sizes := make(map[domain.SegmentID]int64, len(orphans))
	refs := make([]ports.SegmentRef, len(orphans))
	for i, o := range orphans {
		refs[i], sizes[o.ID] = o.SegmentRef, o.size
	}
	for _, id := range d.delete(ctx, refs) {
		r.Deleted++
		r.DeletedBytes += sizes[id]
	}
	return d.err
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
		suspects := j.suspects(page, r)
		if len(suspects) > 0 {
			some, err := j.withoutRow(ctx, suspects, r)
			if err != nil {
				return nil, err
			}
			found = append(found, some...)
		}
		if len(page) < listPage || len(found) >= maxOrphans {
			return found, nil
		}
		after = page[len(page)-1].Key
	}
}

// suspects returns the objects of a page that may be orphans, by their names
// and ages.
func (j *Janitor) suspects(page []ports.ObjectInfo, r *SweepReport) []orphan {
	var suspects []orphan
	before := time.Now().Add(-j.cfg.SweepAge).UnixMilli()
	for _, o := range page {
		if len(o.Key) < len(segmentsPrefix) || o.Key[:len(segmentsPrefix)] != segmentsPrefix {
			continue
		}
		r.Objects++
		id, err := segment.ParseKey(o.Key)
		switch {
		case err != nil:
			r.Foreign++
		case o.ModifiedUnixMilli <= before:
			suspects = append(suspects, orphan{ports.SegmentRef{ID: id, Key: o.Key}, o.Size})
		}
	}
	return suspects
}

// withoutRow returns those that no row speaks for and that say themselves that
// they are of this cluster.
func (j *Janitor) withoutRow(ctx context.Context, suspects []orphan, r *SweepReport) ([]orphan, error) {
	ids := make([]domain.SegmentID, len(suspects))
	for i, s := range suspects {
		ids[i] = s.ID
	}
	rows, err := j.metadata.SegmentsByID(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	spokenFor := make(map[domain.SegmentID]bool, len(rows))
	for _, row := range rows {
		spokenFor[row.ID] = row.State != ports.SegmentDeleted && !mutant.On(mutantSweepIgnoresRows)
	}
	var orphans []orphan
	for _, s := range suspects {
		if spokenFor[s.ID] {
			continue
		}
		ours, err := j.ours(ctx, s)
		switch {
		case err != nil:
			return nil, err
		case !ours:
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
