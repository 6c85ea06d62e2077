//go:build mutants

package memory_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

const mutantVariable = "STREAMHOUSE_MUTANT"

func init() { mutant.Set(mutant.ID(os.Getenv(mutantVariable))) }

// planted are the bugs that the suite of ports.MetadataStore must find, in the
// decision, the sequences and this store.
var planted = []mutant.ID{
	"window-of-4", "window-of-6", "sequence-wrap-refused", "sequence-gap-accepted",
	"duplicate-appended-again", "sequence-not-remembered", "older-epoch-accepted", "offset-gap-after-reject",
	"duplicate-answers-next-offset", "deleted-topic-accepted", "extent-spans-rejected-batch",
	"memory-replay-looked-up-not", "memory-live-count-not-lowered", "memory-commit-wakes-nobody",
	"memory-replace-takes-what-was-trimmed", "memory-expiry-takes-committed-segments",
}

// runSuite runs this test binary's suite with one planted bug, "" for none.
func runSuite(t *testing.T, id mutant.ID) (passed bool, output string) {
	t.Helper()
	suite := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMetadata_KeepsTheContract$", "-test.timeout=60s")
	suite.Env = append(os.Environ(), mutantVariable+"="+string(id))
	out, err := suite.CombinedOutput()
	return err == nil, string(out)
}

func TestMutants_TheSuiteKillsEachPlantedBug(t *testing.T) {
	if passed, output := runSuite(t, ""); !passed {
		t.Fatalf("the suite fails without a planted bug:\n%s", output)
	}
	for _, id := range planted {
		passed, output := runSuite(t, id)
		switch {
		case passed:
			t.Errorf("the suite does not find %s", id)
		case !strings.Contains(output, "FAIL") && !strings.Contains(output, "panic"):
			t.Errorf("the suite did not run with %s:\n%s", id, output)
		}
	}
}
