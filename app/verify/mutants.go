package verify

import "github.com/streamhouse/streamhouse/domain/mutant"

// Planted bugs, see package mutant. The tests of this package kill them.
const (
	mutantDamageAtOnce    = mutant.ID("verify-damage-reported-at-first-sight")
	mutantExtentAtOnce    = mutant.ID("verify-extent-reported-though-it-has-gone")
	mutantDanglingAtOnce  = mutant.ID("verify-dangling-reported-though-it-has-gone")
	mutantDanglingUnasked = mutant.ID("verify-segments-committed-since-are-unknown")
	mutantOrphanAtOnce    = mutant.ID("verify-orphan-reported-though-it-has-gone")
	mutantNeighbours      = mutant.ID("verify-neighbours-of-two-snapshots")
	mutantStateOnce       = mutant.ID("verify-partition-state-read-once")
	mutantCountOnce       = mutant.ID("verify-live-count-read-once")
	mutantUnsettled       = mutant.ID("verify-partition-reported-that-changed-meanwhile")
	mutantWindowEdge      = mutant.ID("verify-window-leaves-out-its-last-segment")
	mutantBytesUnchecked  = mutant.ID("verify-bytes-unchecked")
	mutantIndexUnchecked  = mutant.ID("verify-extent-may-be-another-partition's")
	mutantSizeUnchecked   = mutant.ID("verify-object-read-by-the-row's-size")
)

// Mutants lists the planted bugs of this package.
var Mutants = []mutant.ID{
	mutantDamageAtOnce, mutantExtentAtOnce, mutantDanglingAtOnce, mutantDanglingUnasked, mutantOrphanAtOnce,
	mutantNeighbours, mutantStateOnce, mutantCountOnce, mutantUnsettled, mutantWindowEdge, mutantBytesUnchecked,
	mutantIndexUnchecked, mutantSizeUnchecked,
}
