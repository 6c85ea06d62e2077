package consumer

import "github.com/streamhouse/streamhouse/domain/mutant"

// Planted bugs, see package mutant.
const (
	mutantSkipAfterError  mutant.ID = "consumer-skip-after-error"
	mutantOffByOne        mutant.ID = "consumer-off-by-one-in-batch"
	mutantSilentReset     mutant.ID = "consumer-out-of-range-resets"
	mutantStaleTopic      mutant.ID = "consumer-follows-topic-name"
	mutantSeekKeepsBuffer mutant.ID = "consumer-seek-keeps-buffer"
	mutantPauseLoses      mutant.ID = "consumer-pause-loses-buffer"
	mutantGapUnchecked    mutant.ID = "consumer-gap-unchecked"
	mutantLocatedBehind             = mutant.ID("consumer-damage-located-behind-batch")
)

// Mutants lists the planted bugs of this package.
var Mutants = []mutant.ID{
	mutantSkipAfterError,
	mutantOffByOne,
	mutantSilentReset,
	mutantStaleTopic,
	mutantSeekKeepsBuffer,
	mutantPauseLoses,
	mutantGapUnchecked,
	mutantLocatedBehind,
}
