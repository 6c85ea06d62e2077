package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// listRows is how many objects one request lists.
const listRows = 1000

var errStuck = errors.New("a page of the store does not go on after the one before it")

// listObjects compares what the segment store lists with the rows. That objects
// are missing is found by checkSegments.
func (v *verifier) listObjects(ctx context.Context) error {
	rows := min(listRows, v.o.PageRows)
	for after := ""; ; {
		page, err := ask(ctx, func() ([]ports.ObjectInfo, error) { return v.store.List(ctx, after, rows) })
		if err != nil {
			return err
		}
		if len(page) > 0 && page[len(page)-1].Key <= after {
			return fmt.Errorf("list objects after %q: %w", after, errStuck)
		}
		if err := v.judgeObjects(ctx, page); err != nil {
			return err
		}
		v.tell(ListingObjects)
		if len(page) < rows {
			return nil
		}
		after = page[len(page)-1].Key
	}
}

// listed is an object whose key is that of a segment.
type listed struct {
	ports.ObjectInfo
	id domain.SegmentID
}

func (v *verifier) judgeObjects(ctx context.Context, page []ports.ObjectInfo) error {
	var objects []listed
	var ids []domain.SegmentID
	for _, o := range page {
		v.report.Objects++
		v.report.Bytes += o.Size
		id, err := segment.ParseKey(o.Key)
		if err != nil {
			v.report.Foreign.add(o)
			continue
		}
		objects, ids = append(objects, listed{o, id}), append(ids, id)
	}
	rows, err := v.rowsOf(ctx, ids)
	if err != nil {
		return err
	}
	return v.judgeUnspoken(ctx, slices.DeleteFunc(objects, func(o listed) bool {
		row, found := rows[o.id]
		switch {
		case !found || row.State == ports.SegmentDeleted:
			return false
		case row.State == ports.SegmentPending:
			v.report.Garbage.Pending.add(o.ObjectInfo)
		case row.State == ports.SegmentDeleting:
			v.report.Garbage.Deleting.add(o.ObjectInfo)
		}
		return true
	}))
}

// judgeUnspoken looks again at objects that were listed, and that no row spoke
// for afterwards. A row is there before its object, and is called deleted, and later dropped, once the
// object is gone: one that is still there now was uploaded too late, or the row is lost.
func (v *verifier) judgeUnspoken(ctx context.Context, objects []listed) error {
	type verdict struct {
		listed
		gone, ours bool
	}
	judge := func(ctx context.Context, o listed) (verdict, error) {
		cluster, id, err := v.header(ctx, o.Key)
		switch {
		case errors.Is(err, ports.ErrObjectNotFound) && !mutant.On(mutantOrphanAtOnce):
			return verdict{o, true, false}, nil
		case err != nil && !errors.Is(err, domain.ErrCorrupt) && !errors.Is(err, ports.ErrObjectNotFound):
			return verdict{}, err
		}
		return verdict{o, false, err == nil && cluster == v.metadata.ClusterID() && id == o.id}, nil
	}
	return spread(ctx, v.o.Workers, slices.Values(objects), judge, func(o verdict) error {
		switch {
		case o.gone:
		case o.ours:
			v.report.Orphans.add(o.ObjectInfo)
		default:
			v.report.Foreign.add(o.ObjectInfo)
		}
		return nil
	})
}

// header reads whose segment an object says it is. domain.ErrCorrupt: it says
// nothing of the kind.
func (v *verifier) header(ctx context.Context, key string) (domain.ClusterID, domain.SegmentID, error) {
	head, err := ask(ctx, func() ([]byte, error) { return v.store.ReadRange(ctx, key, 0, segment.HeaderSize) })
	if err != nil {
		return domain.ClusterID{}, domain.SegmentID{}, err
	}
	return segment.ParseHeader(head)
}

// rowsOf returns the rows of those ids that have one.
func (v *verifier) rowsOf(ctx context.Context, ids []domain.SegmentID) (map[domain.SegmentID]ports.SegmentRow, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := ask(ctx, func() ([]ports.SegmentRow, error) { return v.metadata.SegmentsByID(ctx, ids) })
	byID := make(map[domain.SegmentID]ports.SegmentRow, len(rows))
	for _, r := range rows {
		byID[r.ID] = r
	}
	return byID, err
}
