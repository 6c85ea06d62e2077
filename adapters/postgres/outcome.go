package postgres

import (
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// An outcome is stored as one number: that of an accepted batch is its offset;
// that of a duplicate is -16 minus its offset; that of any other is minus its status.

const duplicateFrom = -16

func packOutcome(o commit.Outcome) int64 {
	switch o.Status {
	case commit.Accepted:
		return int64(o.Base)
	case commit.Duplicate:
		return duplicateFrom - int64(o.Base)
	}
	return -int64(o.Status)
}

func unpackOutcome(v int64) commit.Outcome {
	switch {
	case v >= 0:
		return commit.Outcome{Status: commit.Accepted, Base: domain.Offset(v)}
	case v <= duplicateFrom:
		return commit.Outcome{Status: commit.Duplicate, Base: domain.Offset(duplicateFrom - v)}
	}
	return commit.Outcome{Status: commit.Status(-v), Base: -1}
}

func packOutcomes(all []commit.Outcome) []int64 {
	packed := make([]int64, len(all))
	for i, o := range all {
		packed[i] = packOutcome(o)
	}
	return packed
}

func unpackOutcomes(packed []int64) []commit.Outcome {
	all := make([]commit.Outcome, len(packed))
	for i, v := range packed {
		all[i] = unpackOutcome(v)
	}
	return all
}
