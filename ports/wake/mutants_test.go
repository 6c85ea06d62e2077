//go:build mutants

package wake_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/ports/portstest"
	"github.com/streamhouse/streamhouse/ports/wake"
)

// TestMutants_AreKilledByTheTestsOfThisPackage runs the tests of this package
// once for each planted bug that they must find, and once with none.
func TestMutants_AreKilledByTheTestsOfThisPackage(t *testing.T) {
	portstest.KillMutants(t, wake.Mutants)
}
