package direct

import "github.com/streamhouse/streamhouse/domain/mutant"

// Planted bugs, see package mutant.
const (
	mutantAckBeforePut        mutant.ID = "direct-ack-before-put"
	mutantAckBeforeCommit     mutant.ID = "direct-ack-before-commit"
	mutantExistsIsFailure     mutant.ID = "direct-own-object-taken-as-failure"
	mutantExistsUnchecked     mutant.ID = "direct-existing-object-not-compared"
	mutantTransientPutIsDone  mutant.ID = "direct-refused-put-taken-as-done"
	mutantCommitNewSegment    mutant.ID = "direct-commit-retried-as-new-segment"
	mutantDependantsUnordered mutant.ID = "direct-dependants-commit-in-any-order"
	mutantAmbiguousIsDefinite mutant.ID = "direct-ambiguous-reported-definite"
	mutantExpiredCommitted    mutant.ID = "direct-expired-batch-committed"
	mutantForgottenIsZero     mutant.ID = "direct-forgotten-offset-answered-zero"
	mutantSettledTwice        mutant.ID = "direct-batch-settled-twice"
	mutantExtentUnchecked     mutant.ID = "direct-short-extent-accepted"
	mutantBadExtentSkipped    mutant.ID = "direct-unreadable-extent-skipped"
	mutantBaseNotSet          mutant.ID = "direct-base-offset-not-set"
	mutantDamageKept                    = mutant.ID("direct-damage-in-memory-kept")
)
