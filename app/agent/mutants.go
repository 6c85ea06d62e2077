package agent

import "github.com/streamhouse/streamhouse/domain/mutant"

// Planted bugs, see package mutant. The tests of this package kill them.
const (
	mutantAlwaysReady = mutant.ID("agent-ready-without-a-store")
	mutantAtOnce      = mutant.ID("agent-not-ready-at-the-first-failure")
	mutantNeverBack   = mutant.ID("agent-not-ready-for-good")
	mutantPutsUnheard = mutant.ID("agent-looks-at-a-store-in-use")
)

// Mutants lists the planted bugs of this package.
var Mutants = []mutant.ID{mutantAlwaysReady, mutantAtOnce, mutantNeverBack, mutantPutsUnheard}
