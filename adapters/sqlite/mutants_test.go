//go:build mutants

package sqlite

import (
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

func TestDifferential_KillsThePlantedBugs(t *testing.T) {
	commands := rapid.Custom(drawCommands)
	for _, id := range []mutant.ID{
		mutantReplayDecides, mutantStateNotKept, mutantExpiryLate, mutantTrimKeepsSegment,
		"memory-replay-looked-up-not", "memory-live-count-not-lowered",
	} {
		t.Run(string(id), func(t *testing.T) {
			mutant.Set(id)
			defer mutant.Set("")
			for seed := range 500 {
				found := ""
				synctest.Test(t, func(t *testing.T) { found = difference(t, commands.Example(seed)) })
				if found != "" {
					t.Logf("killed by run %d", seed)
					return
				}
			}
			t.Error("survived")
		})
	}
}
