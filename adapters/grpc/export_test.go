package grpc

import "github.com/streamhouse/streamhouse/domain/mutant"

// Mutants lists the planted bugs of this package.
var Mutants = []mutant.ID{mutantTailsQueue, mutantNoParts}
