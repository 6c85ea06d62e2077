//go:build mutants

package janitor_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

// TestMutants_AreKilledByTheTestsOfThisPackage runs the tests of this package
// once for each planted bug that they must find, and once with none.
func TestMutants_AreKilledByTheTestsOfThisPackage(t *testing.T) {
	others := []mutant.ID{"memory-replace-takes-what-was-trimmed", "memory-expiry-takes-committed-segments"}
	portstest.KillMutants(t, append(others, janitor.Mutants...), "-rapid.nofailfile")
}
