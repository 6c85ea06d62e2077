package postgres

import (
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestStore_KeepsTheContractOfAgentDiscovery(t *testing.T) {
	portstest.TestAgentDiscovery(t,
		func(t *testing.T) ports.AgentDiscovery { return newTest(t, Options{}) },
		portstest.AdvanceAgentsWith(func(t *testing.T, a ports.AgentDiscovery, d time.Duration) { a.(*opened).advance(t, d) }),
		portstest.ShareAgentsWith(func(t *testing.T, a ports.AgentDiscovery) ports.AgentDiscovery {
			return openTest(t, a.(*opened).url, Options{})
		}),
	)
}
