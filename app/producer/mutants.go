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
	mutantOrderIgnored    mutant.ID = "producer-failed-batch-goes-last"
)

// Planted bugs that a simulated run meets too rarely: the tests of this package
// kill them.
const (
	mutantAdoptUnclear = mutant.ID("producer-resends-unclear-batch-in-new-session")
	mutantLateLookUp   = mutant.ID("producer-trusts-late-look-up")
	mutantReaperSleeps = mutant.ID("producer-reaper-sleeps")
	mutantLeaksBudget  = mutant.ID("producer-leaks-budget-of-retried-batches")
	mutantSharesHeader = mutant.ID("producer-writes-trace-into-callers-headers")
	mutantTracesAll    = mutant.ID("producer-traces-unsampled-records")
	mutantSpanPerBatch = mutant.ID("producer-keeps-spans-of-retried-requests-open")
	mutantCallsAlone   = mutant.ID("producer-slow-callback-holds-up-others")
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
	mutantOrderIgnored,
	mutantAdoptUnclear,
	mutantLateLookUp,
	mutantReaperSleeps,
	mutantLeaksBudget,
	mutantSharesHeader,
	mutantTracesAll,
	mutantSpanPerBatch,
	mutantCallsAlone,
}
