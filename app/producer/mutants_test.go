//go:build mutants

package producer

import (
	"testing"

	"github.com/streamhouse/streamhouse/ports/portstest"
)

// TestMutants_AreKilledByTheTestsOfThisPackage runs the tests of this package
// once for each planted bug that they must find, and once with none.
func TestMutants_AreKilledByTheTestsOfThisPackage(t *testing.T) {
	portstest.KillMutants(t, Mutants, "-test.timeout=20s", "-rapid.nofailfile")
}
