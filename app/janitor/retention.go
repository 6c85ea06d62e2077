package janitor

import (
	"context"
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// retain applies retention to every partition that it is due for, and takes
// away what deleted topics have left. A partition that fails does not keep the others.
func (j *Janitor) retain(ctx context.Context, r *Report) error {
	var errs []error
	for after := ports.FirstPartition; ; {
		due, err := j.metadata.RetentionDue(ctx, after, j.cfg.StepRows)
		if err != nil {
			errs = append(errs, err)
			break
		}
		for _, key := range due {
			if err := j.retainOne(ctx, key, &r.Retained); err != nil {
				errs = append(errs, err)
			}
		}
		if len(due) < j.cfg.StepRows || ctx.Err() != nil {
			break
		}
		after = due[len(due)-1]
	}
	return errors.Join(append(errs, j.purge(ctx, &r.Purged))...)
}

// retainOne applies retention to one partition, step by step. One that is gone
// by now needs none.
func (j *Janitor) retainOne(ctx context.Context, key commit.PartitionKey, sum *ports.Removed) error {
	for {
		step, err := j.metadata.Retain(ctx, key, j.cfg.StepRows)
		switch {
		case errors.Is(err, domain.ErrTopicNotFound):
			return nil
		case err != nil:
			return fmt.Errorf("retention of topic %s partition %d: %w", key.Topic, key.Partition, err)
		}
		add(sum, step)
		if !step.More {
			return nil
		}
	}
}

func (j *Janitor) purge(ctx context.Context, sum *ports.Removed) error {
	for {
		step, err := j.metadata.PurgeTopics(ctx, j.cfg.StepRows)
		if err != nil {
			return err
		}
		add(sum, step)
		if !step.More {
			return nil
		}
	}
}

func add(sum *ports.Removed, step ports.Removed) {
	sum.Extents += step.Extents
	sum.Bytes += step.Bytes
}
