//go:build mutants

package portstest

import (
	"os"
	"os/exec"
	"testing"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

// mutantVariable tells a process which planted bug it has.
const mutantVariable = "STREAMHOUSE_TEST_MUTANT"

func init() { mutant.Set(mutant.ID(os.Getenv(mutantVariable))) }

// KillMutants demands that the tests of the calling package succeed without a planted
// bug, and fail with each of ids, as many at once as -parallel says. Flags are given to the
// test binary, such as "-test.timeout=20s": a test that hangs has found the bug.
//
// In the processes that it starts it does nothing.
func KillMutants(t *testing.T, ids []mutant.ID, flags ...string) {
	t.Helper()
	if os.Getenv(mutantVariable) != "" {
		return
	}
	if out, err := testsWithMutant("none", flags); err != nil {
		t.Fatalf("without a planted bug: %v\n%s", err, out)
	}
	for _, id := range ids {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()
			out, err := testsWithMutant(id, flags)
			if err == nil {
				t.Errorf("survived:\n%s", out)
			}
			t.Logf("%.2000s", out)
		})
	}
}

func testsWithMutant(id mutant.ID, flags []string) (output []byte, err error) {
	cmd := exec.Command(os.Args[0], append([]string{"-test.timeout=60s", "-test.failfast"}, flags...)...)
	cmd.Env = append(os.Environ(), mutantVariable+"="+string(id))
	return cmd.CombinedOutput()
}
