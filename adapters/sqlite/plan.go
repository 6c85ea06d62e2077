package sqlite

import (
	"context"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// Plan implements ports.Log. The bounds of all partitions are one statement;
// extents are looked for only where there are any.
func (s *Store) Plan(ctx context.Context, requests []ports.PlanRequest) ([]ports.Plan, error) {
	var plans []ports.Plan
	err := s.read(ctx, "plan reads", func(c *conn) (err error) {
		plans, err = c.plan(requests)
		return err
	})
	return given(plans, err)
}

func (c *conn) plan(requests []ports.PlanRequest) ([]ports.Plan, error) {
	var v view
	v.init(newMemo(len(requests)), 0)
	partitions := make([]commit.PartitionKey, len(requests))
	for i, r := range requests {
		partitions[i] = r.PartitionKey
	}
	if err := v.loadPartitions(c, partitions); err != nil {
		return nil, err
	}
	plans := make([]ports.Plan, len(requests))
	for i, r := range requests {
		if err := c.planOne(&v, r, &plans[i]); err != nil {
			return nil, err
		}
	}
	return plans, nil
}

func (c *conn) planOne(v *view, r ports.PlanRequest, plan *ports.Plan) error {
	p := v.Partitions[r.PartitionKey]
	if p == nil {
		return c.missing(r.PartitionKey, plan)
	}
	plan.LogStart, plan.HighWatermark = p.LogStart, p.NextOffset
	if r.MaxBytes <= 0 || r.From < p.LogStart || r.From >= p.NextOffset {
		return nil
	}
	var sum int64
	pk := v.keys[r.PartitionKey]
	return c.query(&extentsFrom, func(row *row) error {
		e := scanExtent(row, r.Topic).ExtentRef
		if sum += e.Length; sum > r.MaxBytes && len(plan.Extents) > 0 {
			return errStop
		}
		plan.Extents = append(plan.Extents, e)
		return nil
	}, pk, int64(r.From), int64(r.Extents()))
}

// missing says in plan why the partition has no row.
func (c *conn) missing(key commit.PartitionKey, plan *ports.Plan) error {
	_, _, err := c.partition(key)
	switch domain.FateOf(err).Stored {
	case domain.StoredNo:
		plan.Err = err
		return nil
	case domain.StoredYes:
		return damagedError("a topic has lost a partition")
	}
	return err
}

// ExtentAt implements ports.Log.
func (s *Store) ExtentAt(ctx context.Context, key commit.PartitionKey, timestamp int64) (ports.ExtentRef, bool, error) {
	var extent ports.ExtentRef
	found := false
	err := s.read(ctx, "find extent by time", func(c *conn) error {
		found = false
		t, _, err := c.partition(key)
		if err != nil {
			return err
		}
		pk := partitionKey(t.no, key.Partition)
		return c.query(&extentByTime, func(r *row) error {
			extent, found = scanExtent(r, key.Topic).ExtentRef, true
			return nil
		}, pk, timestamp)
	})
	if err != nil || !found {
		return ports.ExtentRef{}, false, err
	}
	return extent, true, nil
}
