package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// Planted bugs, see package mutant.
const (
	mutantReplaceUnchecked mutant.ID = "sqlite-replace-takes-what-was-trimmed"
	mutantReplaceCountsAll mutant.ID = "sqlite-replace-counts-copies-that-came-too-late"
)

var errNotForReplace = errors.New("not reserved here, given up as garbage, or committed otherwise")

var (
	segmentToReplace = query{"SELECT segment_no, state, replaced FROM segments WHERE segment_id = ?"}
	settleReplace    = query{`UPDATE segments SET state = ?, state_at = ?, size_bytes = ?, crc32c = ?, live_extents = ?, replaced = ?
		WHERE segment_no = ?`}
)

// Replace implements ports.Upkeep.
func (s *Store) Replace(ctx context.Context, c commit.Compaction) (int, error) {
	op := fmt.Sprintf("compact into segment %s", c.ID)
	if err := c.Validate(); err != nil {
		return 0, ports.MetadataError(op, ports.Definite, err)
	}
	var held int
	err := s.write(ctx, op, func(conn *conn) error {
		work := replaceWork{Compaction: c, now: s.now().UnixMilli()}
		if err := work.do(conn, op); err != nil {
			return err
		}
		held = work.held
		return nil
	})
	return given(held, err)
}

// replaceWork is one Replace inside its transaction.
type replaceWork struct {
	commit.Compaction
	now int64

	no    int64 // the segment's
	view  view
	old   []extentRow
	fresh []driver.Value // values of insertExtents
	held  int
}

func (w *replaceWork) do(c *conn, op string) error {
	state, replayed, err := w.load(c)
	switch {
	case err != nil:
		return err
	case replayed:
		// A replay writes, so that its own sync covers the first call.
		return c.queryBulk(replaySegments, func(*row) error { return nil }, []driver.Value{w.no})
	case state != statePending:
		return ports.MetadataError(op, ports.Definite, errNotForReplace)
	}
	w.view.init(newMemo(len(w.Copies)), 0)
	partitions := make([]commit.PartitionKey, len(w.Copies))
	for i, cp := range w.Copies {
		partitions[i] = cp.Of[0].Key()
	}
	if err := w.view.loadPartitions(c, partitions); err != nil {
		return err
	}
	for _, cp := range w.Copies {
		if err := w.swap(c, cp); err != nil {
			return err
		}
	}
	return w.store(c)
}

// load finds the segment: the state is 0 if there is none. Replayed says that it was committed by
// this call before, and held is then what it was.
func (w *replaceWork) load(c *conn) (state int64, replayed bool, err error) {
	err = c.query(&segmentToReplace, func(r *row) error {
		w.no, state = r.int(0), r.int(1)
		if replayed = !r.null(2); replayed {
			w.held = int(r.int(2))
		}
		return nil
	}, w.ID[:])
	return state, replayed, err
}

// swap notes what the copy replaces and becomes, if it holds.
func (w *replaceWork) swap(c *conn, cp commit.Copy) error {
	key := cp.Of[0].Key()
	if w.view.Partitions[key] == nil {
		return nil // The topic is deleted, and its extents are on their way out.
	}
	pk := w.view.keys[key]
	rows, err := c.extentRows(&extentsBetween, key.Topic, pk, int64(cp.Of[0].Base), int64(cp.Of[len(cp.Of)-1].Last), int64(len(cp.Of)+1))
	if err != nil {
		return err
	}
	switch present := extentsOf(rows); {
	case cp.Holds(present):
		cp.Of = present // Times are the rows', not what the caller read.
	case !mutant.On(mutantReplaceUnchecked) || len(rows) == 0:
		return nil
	}
	w.old = append(w.old, rows...)
	w.fresh = insertArgs(w.fresh, pk, w.no, cp.Extent(w.ID))
	w.held++
	return nil
}

func (w *replaceWork) store(c *conn) error {
	if err := c.dropExtents(w.old, w.now); err != nil {
		return err
	}
	if err := c.execBulk(insertExtents, w.fresh); err != nil {
		return err
	}
	if mutant.On(mutantReplaceCountsAll) {
		w.held = len(w.Copies)
	}
	state := int64(stateCommitted)
	if w.held == 0 {
		state = stateDeleting
	}
	return c.exec(&settleReplace, state, w.now, w.Size, int64(w.CRC32C), int64(w.held), int64(w.held), w.no)
}
