package janitor

import "github.com/streamhouse/streamhouse/domain/mutant"

// Planted bugs, see package mutant.
const (
	mutantSwapBeforePut    mutant.ID = "janitor-swaps-before-the-object-is-there"
	mutantMarkBeforeDelete mutant.ID = "janitor-object-marked-deleted-and-kept"
	mutantSweepIgnoresRows mutant.ID = "janitor-sweep-goes-by-age-alone"
	mutantCopiesMixed      mutant.ID = "janitor-copies-extents-in-another-order"

	// What simulated runs show too rarely, the tests of this package find.
	mutantCopyUnverified = mutant.ID("janitor-compacts-corrupt-batches")
	mutantSwapUnclearPut = mutant.ID("janitor-takes-an-unclear-put-for-done")
	mutantSweepUnread    = mutant.ID("janitor-sweep-takes-other-clusters")
	mutantSweepUnbounded = mutant.ID("janitor-sweep-takes-any-share")
	mutantYoungForgotten = mutant.ID("janitor-forgets-extents-that-were-too-young")
	mutantCorruptAgain   = mutant.ID("janitor-reads-corrupt-extents-for-ever")
	mutantFirstFailure   = mutant.ID("janitor-stops-at-the-first-object-it-cannot-delete")
	mutantAlwaysFromTop  = mutant.ID("janitor-begins-with-undeletable-objects-every-time")
	mutantAnyGrowth      = mutant.ID("janitor-rewrites-large-extents-for-little")
	mutantAgesMixed      = mutant.ID("janitor-puts-all-ages-together")
)

// Mutants lists the planted bugs of this package.
var Mutants = []mutant.ID{
	mutantCopyUnverified, mutantSwapBeforePut, mutantSwapUnclearPut, mutantMarkBeforeDelete, mutantSweepIgnoresRows, mutantCopiesMixed,
	mutantSweepUnread, mutantSweepUnbounded, mutantYoungForgotten, mutantCorruptAgain, mutantFirstFailure, mutantAlwaysFromTop,
	mutantAnyGrowth, mutantAgesMixed,
}
