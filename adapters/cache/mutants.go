package cache

import "github.com/streamhouse/streamhouse/domain/mutant"

// Planted bugs, see package mutant.
const (
	mutantFailedPutKept    mutant.ID = "cache-failed-put-kept"
	mutantBodyNotCopied    mutant.ID = "cache-body-not-copied"
	mutantNothingForgotten mutant.ID = "cache-nothing-forgotten"
	mutantBlocksLent       mutant.ID = "cache-blocks-lent-to-readers"
	mutantFlightOfCaller   mutant.ID = "cache-flight-ends-with-its-caller"
	mutantShortIsEnd       mutant.ID = "cache-short-block-taken-as-read"
	mutantOneLane          mutant.ID = "cache-fresh-reads-wait-for-cold-ones"
)
