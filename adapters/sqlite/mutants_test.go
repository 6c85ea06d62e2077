//go:build mutants

package sqlite

import (
	"testing"

	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

// Only another store on the file shows that its commits are ignored.
func TestMutants_AreKilledByTheTestsOfThisPackage(t *testing.T) {
	portstest.KillMutants(t, []mutant.ID{mutantMemoKept, mutantVersionIgnored}, "-test.run=TestCommit_ReadsAgain")
}

func TestDifferential_KillsThePlantedBugs(t *testing.T) {
	for _, id := range []mutant.ID{
		mutantReplayDecides, mutantStateNotKept, mutantExpiryLate, mutantTrimKeepsSegment,
		mutantReplaceUnchecked, mutantReplaceCountsAll, mutantExpireAnyState, mutantMemoKept,
		"memory-replay-looked-up-not", "memory-live-count-not-lowered",
		"memory-replace-takes-what-was-trimmed", "memory-expiry-takes-committed-segments",
	} {
		t.Run(string(id), func(t *testing.T) {
			mutant.Set(id)
			defer mutant.Set("")
			for seed := range 500 {
				if differential.Example(t, seed) != "" {
					t.Logf("killed by run %d", seed)
					return
				}
			}
			t.Error("survived")
		})
	}
}
