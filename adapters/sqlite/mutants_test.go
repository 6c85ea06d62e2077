//go:build mutants

package sqlite

import (
	"testing"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

func TestDifferential_KillsThePlantedBugs(t *testing.T) {
	for _, id := range []mutant.ID{
		mutantReplayDecides, mutantStateNotKept, mutantExpiryLate, mutantTrimKeepsSegment,
		mutantReplaceUnchecked, mutantReplaceCountsAll, mutantExpireAnyState,
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
