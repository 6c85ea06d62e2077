//go:build mutants

package powerloss_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/localfs"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

func setMutant(id string) { mutant.Set(mutant.ID(id)) }

func TestPowerLoss_KillsEveryPlantedBugOfTheFolder(t *testing.T) {
	for _, id := range localfs.Mutants {
		t.Run(string(id), func(t *testing.T) {
			_, err := survive(t, 4*cyclesPerDisk, childConfig{mutant: string(id)})
			if err == nil {
				t.Fatal("it lives")
			}
			t.Log(err)
		})
	}
}
