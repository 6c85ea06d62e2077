//go:build mutants

package cache_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/cache"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

// TestMutants_AreKilledByTheTestsOfThisPackage runs the tests of this package
// once for each planted bug that they must find, and once with none.
func TestMutants_AreKilledByTheTestsOfThisPackage(t *testing.T) {
	portstest.KillMutants(t, cache.Mutants)
}
