package producer

import "github.com/streamhouse/streamhouse/domain/mutant"

// Planted bugs, see package mutant.
const (
	mutantRetryEarly      mutant.ID = "producer-retry-before-drain"
	mutantNewSequence     mutant.ID = "producer-new-sequence-on-retry"
	mutantUnknownIsNo     mutant.ID = "producer-unknown-called-definite"
	mutantNoAbandon       mutant.ID = "producer-gives-up-without-settling"
	mutantResultIsBase    mutant.ID = "producer-answers-base-offset"
	mutantRetryUnnumbered mutant.ID = "producer-retries-as-another-batch"
	mutantFenceIgnored    mutant.ID = "producer-fence-takes-new-session"
)

// Mutants lists the planted bugs of this package.
var Mutants = []mutant.ID{
	mutantRetryEarly,
	mutantNewSequence,
	mutantUnknownIsNo,
	mutantNoAbandon,
	mutantResultIsBase,
	mutantRetryUnnumbered,
	mutantFenceIgnored,
}
