package janitor

import (
	"slices"

	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// rules say which extents of one partition are worth putting together.
type rules struct {
	target int64 // bytes of an extent that is large enough
	fanIn  int   // extents that must come together
	before int64 // commit time, in Unix milliseconds, from which extents are too young
	// age is the width in milliseconds of the slices of commit time that are kept apart, 0 for none.
	// They begin at multiples of it, so that what is put together again and again stays within one.
	age int64
	bad func(commit.Extent) bool // extents that cannot be read
}

// room bounds what is taken of one partition.
type room struct {
	bytes   int64
	extents int
}

// large reports whether e is never put together with others.
func (r rules) large(e commit.Extent) bool { return e.Length >= max(r.target/2, 1) }

// young reports whether it is too early for e.
func (r rules) young(e commit.Extent) bool { return e.CommittedAt > r.before }

// small reports whether e may be put together with others.
func (r rules) small(e commit.Extent) bool { return !r.large(e) && !r.young(e) && !r.bad(e) }

// choose returns the runs of extents to put together, in order, as far as there
// is room. The extents are those of one partition, in order.
//
// What is put together has at least growth times the size of each part, so a byte is
// rewritten a few times at most, however small the batches that arrive.
func (r rules) choose(extents []commit.Extent, left room) (runs [][]commit.Extent) {
	for i := 0; i < len(extents); {
		run := r.run(extents[i:])
		for _, part := range r.worthwhile(run) {
			// Only as much as there is room for, if that is still worth it.
			for _, taken := range r.worthwhile(left.of(part)) {
				left.bytes, left.extents = left.bytes-bytesOf(taken), left.extents-len(taken)
				runs = append(runs, taken)
			}
		}
		i += max(len(run), 1)
	}
	return runs
}

// of returns as many of the extents, from the first on, as there is room for.
func (l room) of(extents []commit.Extent) []commit.Extent {
	for i, e := range extents {
		if l.bytes -= e.Length; l.bytes < 0 || i >= l.extents {
			return extents[:i]
		}
	}
	return extents
}

// growth is how many times larger than each of its parts a run must be. A run
// in which one part is larger than that would rewrite it for too little.
const growth = 4

// run returns the small extents at the beginning that fit together into one of
// the target size.
func (r rules) run(extents []commit.Extent) []commit.Extent {
	var sum int64
	for i, e := range extents {
		apart := r.age > 0 && !mutant.On(mutantAgesMixed) && e.CommittedAt/r.age != extents[0].CommittedAt/r.age
		if sum += e.Length; !r.small(e) || sum > r.target || apart {
			return extents[:i]
		}
	}
	return extents
}

// worthwhile splits a run around extents that are too large beside the others,
// and returns the parts that are worth a rewrite: those of enough extents, and those that
// make one that is large.
func (r rules) worthwhile(run []commit.Extent) [][]commit.Extent {
	if len(run) < growth {
		return nil
	}
	largest := 0
	for i, e := range run {
		if e.Length > run[largest].Length {
			largest = i
		}
	}
	sum := bytesOf(run)
	if sum < growth*run[largest].Length && !mutant.On(mutantAnyGrowth) {
		return slices.Concat(r.worthwhile(run[:largest]), r.worthwhile(run[largest+1:]))
	}
	if len(run) < r.fanIn && sum < r.target/2 {
		return nil
	}
	return [][]commit.Extent{run}
}

func bytesOf(extents []commit.Extent) (sum int64) {
	for _, e := range extents {
		sum += e.Length
	}
	return sum
}
