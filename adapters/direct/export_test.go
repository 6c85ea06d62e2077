package direct

import "github.com/streamhouse/streamhouse/domain/mutant"

// Idle reports whether the writer has no goroutine, no timer and nothing in
// flight.
func (w *Writer) Idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running == 0 && w.timer == nil && w.room == 0 && w.queue.head == nil &&
		len(w.segments) == 0 && len(w.streams) == 0 && len(w.waiters) == 0 &&
		w.uploading == 0 && w.dependants == 0 && len(w.ready) == 0 && !w.committing
}

// Mutants lists the planted bugs of this package.
var Mutants = []mutant.ID{
	mutantAckBeforePut, mutantAckBeforeCommit, mutantExistsIsFailure, mutantExistsUnchecked,
	mutantTransientPutIsDone, mutantCommitNewSegment, mutantDependantsUnordered, mutantAmbiguousIsDefinite,
	mutantExpiredCommitted, mutantForgottenIsZero, mutantSettledTwice, mutantExtentUnchecked,
	mutantBadExtentSkipped, mutantBaseNotSet, mutantDamageKept,
}
