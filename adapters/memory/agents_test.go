package memory_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestAgents_KeepTheContract(t *testing.T) {
	portstest.TestAgentDiscovery(t, func(*testing.T) ports.AgentDiscovery { return memory.NewAgents() }, portstest.AgentsInBubble())
}
