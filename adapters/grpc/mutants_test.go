//go:build mutants

package grpc_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

const mutantVariable = "STREAMHOUSE_TEST_MUTANT"

func init() { mutant.Set(mutant.ID(os.Getenv(mutantVariable))) }

// TestMutants_AreKilledByTheTestsOfThisPackage runs, for each planted bug, the
// test that is to kill it, with the bug and without.
func TestMutants_AreKilledByTheTestsOfThisPackage(t *testing.T) {
	killers := make(map[string]bool)
	for _, test := range grpc.Mutants {
		killers[test] = true
	}
	for test := range killers {
		if out, err := testWith("none", test); err != nil || !strings.Contains(string(out), "--- PASS: "+test) {
			t.Fatalf("%s without a planted bug: %v\n%s", test, err, out)
		}
	}
	for id, test := range grpc.Mutants {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()
			out, err := testWith(id, test)
			if err == nil {
				t.Errorf("survived %s:\n%s", test, out)
			}
			t.Logf("%.1000s", out)
		})
	}
}

func testWith(id mutant.ID, test string) (output []byte, err error) {
	cmd := exec.Command(os.Args[0], "-test.timeout=30s", "-test.v", "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), mutantVariable+"="+string(id))
	return cmd.CombinedOutput()
}
