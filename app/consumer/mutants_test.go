//go:build mutants

package consumer_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

// TestMutants_AreKilledByTheTestsOfThisPackage runs the tests of this package
// once for each planted bug that they must find, and once with none.
func TestMutants_AreKilledByTheTestsOfThisPackage(t *testing.T) {
	portstest.KillMutants(t, append([]mutant.ID{"batch-crc-unchecked"}, consumer.Mutants...), "-rapid.nofailfile")
}
