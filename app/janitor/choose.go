package janitor

import (
	"slices"

	"github.com/streamhouse/streamhouse/domain/commit"
)

// windowExtents is how many extents of one partition are looked at together.
const windowExtents = 256

// rules say which extents of one partition are worth putting together.
type rules struct {
	target int64 // bytes of an extent that is large enough
	fanIn  int   // extents that must come together
	before int64 // commit time, in Unix milliseconds, from which extents are too young
	span   int64 // most milliseconds of commit time that come together, 0 for any
	budget int64 // bytes that may be taken
}

// small reports whether e may be put together with others.
func (r rules) small(e commit.Extent) bool {
	return e.Length < r.target/2 && e.CommittedAt <= r.before
}

// choose returns the runs of extents to put together, in order, and how many
// extents from the beginning need never be looked at again. The extents are those of one
// partition, in order.
//
// What is put together at least quadruples the size of each part, so a byte is
// rewritten a few times at most, however small the batches that arrive.
func (r rules) choose(extents []commit.Extent) (runs [][]commit.Extent, settled int) {
	left := r.budget
	for i := 0; i < len(extents); {
		if !r.small(extents[i]) {
			i++
			continue
		}
		run := r.run(extents[i:])
		for _, part := range r.worthwhile(run) {
			if size := bytesOf(part); size <= left {
				left -= size
				runs = append(runs, part)
			}
		}
		i += len(run)
	}
	for settled < len(extents) && extents[settled].Length >= r.target/2 {
		settled++
	}
	return runs, settled
}

// run returns the small extents at the beginning that fit together into one of
// the target size.
func (r rules) run(extents []commit.Extent) []commit.Extent {
	var sum int64
	for i, e := range extents {
		tooWide := r.span > 0 && e.CommittedAt-extents[0].CommittedAt > r.span
		if sum += e.Length; i > 0 && (!r.small(e) || sum > min(r.target, r.budget) || tooWide) {
			return extents[:i]
		}
	}
	return extents
}

// worthwhile splits a run around extents that are too large beside the others,
// and returns the parts that are worth a rewrite.
func (r rules) worthwhile(run []commit.Extent) [][]commit.Extent {
	if len(run) < 2 {
		return nil
	}
	largest := 0
	for i, e := range run {
		if e.Length > run[largest].Length {
			largest = i
		}
	}
	sum := bytesOf(run)
	if sum < 4*run[largest].Length {
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
