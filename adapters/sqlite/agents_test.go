package sqlite

import (
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestStore_KeepsTheContractOfAgentDiscovery(t *testing.T) {
	others := make(map[*Store]*Store) // shares have one clock
	portstest.TestAgentDiscovery(t,
		func(t *testing.T) ports.AgentDiscovery { return newTest(t) },
		portstest.AdvanceAgentsWith(func(_ *testing.T, a ports.AgentDiscovery, d time.Duration) {
			for _, s := range []*Store{a.(*Store), others[a.(*Store)]} {
				if s != nil {
					before := s.now
					s.now = func() time.Time { return before().Add(d) }
				}
			}
		}),
		portstest.ShareAgentsWith(func(t *testing.T, a ports.AgentDiscovery) ports.AgentDiscovery {
			other := openTest(t, a.(*Store).path)
			others[a.(*Store)], others[other] = other, a.(*Store)
			return other
		}),
	)
}
