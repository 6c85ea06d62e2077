package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

const mutantExpireAnyState mutant.ID = "sqlite-expiry-takes-committed-segments"

// upkeep runs one step that takes at most limit rows, in a transaction.
func (s *Store) upkeep(ctx context.Context, op string, limit int, step func(c *conn, now int64) error) error {
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return err
	}
	return s.write(ctx, op, func(c *conn) error { return step(c, s.now().UnixMilli()) })
}

// Retain implements ports.Upkeep.
func (s *Store) Retain(ctx context.Context, key commit.PartitionKey, limit int) (ports.Removed, error) {
	var removed ports.Removed
	op := fmt.Sprintf("retain topic %s partition %d", key.Topic, key.Partition)
	err := s.upkeep(ctx, op, limit, func(c *conn, now int64) (err error) {
		removed, err = c.retain(key, limit, now)
		return err
	})
	return given(removed, err)
}

func (c *conn) retain(key commit.PartitionKey, limit int, now int64) (ports.Removed, error) {
	t, p, err := c.partition(key)
	if err != nil || t.Retention == (domain.Retention{}) {
		return ports.Removed{LogStart: p.LogStart}, err
	}
	var gone []extentRow
	pk, left := partitionKey(t.no, key.Partition), p.Bytes
	err = c.query(&extentsBetween, func(r *row) error {
		e := scanExtent(r, key.Topic)
		n, bytes := commit.Retained(t.Retention, []commit.Extent{e.Extent}, left, now)
		if n == 0 || r.err != nil {
			return errStop
		}
		gone, left = append(gone, e), left-bytes
		return nil
	}, pk, int64(0), int64(maxOffset), int64(limit))
	if err != nil {
		return ports.Removed{}, err
	}
	removed := ports.Removed{Extents: len(gone), Bytes: p.Bytes - left, LogStart: p.LogStart, More: len(gone) == limit}
	if len(gone) > 0 {
		removed.LogStart = gone[len(gone)-1].Last + 1
		err = c.cutOff(pk, &p, gone, removed.LogStart, now)
	}
	return removed, err
}

// ExpireReservations implements ports.Upkeep.
func (s *Store) ExpireReservations(ctx context.Context, grace time.Duration, limit int) (int, error) {
	var expired int
	err := s.upkeep(ctx, "expire reservations", limit, func(c *conn, now int64) (err error) {
		expired, err = c.expireReservations(s.since(grace), limit, now)
		return err
	})
	return given(expired, err)
}

var (
	oldReservations   = query{"SELECT created_at, first_no, last_no FROM reservations WHERE created_at <= ? ORDER BY created_at, first_no LIMIT 100"}
	deleteReservation = query{"DELETE FROM reservations WHERE created_at = ? AND first_no = ?"}
	// Of the segments ?1 to ?2, up to ?5 that have been pending since ?3.
	expirePending = query{`UPDATE segments SET state = 3, state_at = ?4 WHERE segment_no IN (SELECT segment_no FROM segments
		WHERE segment_no BETWEEN ?1 AND ?2 AND state = 1 AND created_at <= ?3 LIMIT ?5) RETURNING 1`}
	expireAny = query{`UPDATE segments SET state = 3, state_at = ?4 WHERE segment_no IN (SELECT segment_no FROM segments
		WHERE segment_no BETWEEN ?1 AND ?2 AND state IN (1, 2) AND created_at <= ?3 LIMIT ?5) RETURNING 1`}
	garbage = query{`SELECT segment_id, object_key FROM segments
		WHERE state = 3 AND segment_id > ? AND state_at <= ? ORDER BY segment_id LIMIT ?`}
	markDeleted = newBulk("WITH v(id, at) AS (VALUES ", "(?, ?)",
		") UPDATE segments SET state = 4, state_at = v.at FROM v WHERE segment_id = v.id AND state = 3")
	forgetDeleted = query{`DELETE FROM segments WHERE segment_no IN
		(SELECT segment_no FROM segments WHERE state = 4 AND state_at <= ? ORDER BY state_at LIMIT ?) RETURNING 1`}
)

// maxExamined bounds how many segments one step looks at, most of which have
// been committed long ago. Each is looked at once.
const maxExamined = 100_000

// expireReservations goes through the oldest reservations.
func (c *conn) expireReservations(since int64, limit int, now int64) (expired int, err error) {
	pending := &expirePending
	if mutant.On(mutantExpireAnyState) {
		pending = &expireAny
	}
	for examined := int64(0); examined < maxExamined; {
		old, err := c.oldReservations(since)
		if err != nil || len(old) == 0 {
			return expired, err
		}
		for _, r := range old {
			n, err := c.count(pending, r.first, r.last, since, now, int64(limit-expired))
			if err != nil {
				return expired, err
			}
			if expired += n; expired == limit {
				return expired, nil // It may have more.
			}
			if err := c.exec(&deleteReservation, r.createdAt, r.first); err != nil {
				return expired, err
			}
			examined += r.last - r.first + 1
		}
	}
	return expired, nil
}

type reservation struct{ createdAt, first, last int64 }

func (c *conn) oldReservations(since int64) (old []reservation, err error) {
	err = c.query(&oldReservations, func(r *row) error {
		old = append(old, reservation{r.int(0), r.int(1), r.int(2)})
		return nil
	}, since)
	return old, err
}

// since is when what is age old now came to be, in Unix milliseconds.
func (s *Store) since(age time.Duration) int64 { return s.now().Add(-age).UnixMilli() }

// count runs q, which returns a row for each one that it changes.
func (c *conn) count(q *query, args ...driver.Value) (n int, err error) {
	err = c.query(q, func(*row) error {
		n++
		return nil
	}, args...)
	return n, err
}

// Garbage implements ports.Upkeep.
func (s *Store) Garbage(ctx context.Context, grace time.Duration, after domain.SegmentID, limit int) ([]ports.SegmentRef, error) {
	const op = "list garbage"
	if err := ports.CheckUpkeepLimit(op, limit); err != nil {
		return nil, err
	}
	var refs []ports.SegmentRef
	err := s.read(ctx, op, func(c *conn) error {
		refs = []ports.SegmentRef{}
		return c.query(&garbage, func(r *row) error {
			refs = append(refs, ports.SegmentRef{ID: domain.SegmentID(r.uuid(0)), Key: r.text(1)})
			return nil
		}, after[:], s.since(grace), int64(limit))
	})
	return given(refs, err)
}

// MarkDeleted implements ports.Upkeep.
func (s *Store) MarkDeleted(ctx context.Context, ids []domain.SegmentID) error {
	return s.upkeep(ctx, "mark segments deleted", max(1, len(ids)), func(c *conn, now int64) error {
		args := make([]driver.Value, 0, len(ids)*markDeleted.width)
		for _, id := range ids {
			args = append(args, append([]byte(nil), id[:]...), now)
		}
		return c.execBulk(markDeleted, args)
	})
}

// ForgetDeleted implements ports.Upkeep.
func (s *Store) ForgetDeleted(ctx context.Context, age time.Duration, limit int) (int, error) {
	var forgotten int
	err := s.upkeep(ctx, "forget deleted segments", limit, func(c *conn, _ int64) (err error) {
		forgotten, err = c.count(&forgetDeleted, s.since(age), int64(limit))
		return err
	})
	return given(forgotten, err)
}
