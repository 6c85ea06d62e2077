package janitor

import (
	"context"
	"errors"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// retain applies retention to every partition that it is due for, and takes
// away what deleted topics have left. A partition that fails does not keep the others.
func (j *Janitor) retain(ctx context.Context, r *Report) error {
	return errors.Join(j.retainAll(ctx, &r.Retained), j.purge(ctx, &r.Purged))
}

func (j *Janitor) retainAll(ctx context.Context, sum *ports.Removed) error {
	var failed failures
	for after := ports.FirstPartition; ; {
		due, err := j.metadata.RetentionDue(ctx, after, j.cfg.StepRows)
		if err != nil {
			return errors.Join(failed.err(), err)
		}
		for _, key := range due {
			if !failed.note(j.retainOne(ctx, key, sum)) {
				return failed.err()
			}
		}
		if len(due) < j.cfg.StepRows {
			return failed.err()
		}
		after = due[len(due)-1]
	}
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
			return failedAt("retention", key, err)
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
