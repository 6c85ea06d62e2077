//go:build mutants

package agent_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/streamhouse/streamhouse/app/agent"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

const mutantVariable = "STREAMHOUSE_TEST_MUTANT"

func init() { mutant.Set(mutant.ID(os.Getenv(mutantVariable))) }

// TestMutants_AreKilledByTheTestsOfThisPackage runs the tests of this package
// once for each planted bug that they must find, and once with none.
func TestMutants_AreKilledByTheTestsOfThisPackage(t *testing.T) {
	if os.Getenv(mutantVariable) != "" {
		return
	}
	if out, err := testsWith("none"); err != nil {
		t.Fatalf("without a planted bug: %v\n%s", err, out)
	}
	for _, id := range agent.Mutants {
		t.Run(string(id), func(t *testing.T) {
			if out, err := testsWith(id); err == nil {
				t.Errorf("survived:\n%s", out)
			}
		})
	}
}

func testsWith(id mutant.ID) (output []byte, err error) {
	cmd := exec.Command(os.Args[0], "-test.timeout=60s", "-test.failfast")
	cmd.Env = append(os.Environ(), mutantVariable+"="+string(id))
	return cmd.CombinedOutput()
}
