package ports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

// AgentTTL is how long after it was last seen an agent is still in the list.
const AgentTTL = 30 * time.Second

// AgentHeartbeat is how often an agent tells that it is there: a few lost
// heartbeats must not make it disappear.
const AgentHeartbeat = AgentTTL / 4

// MaxAgentAddressBytes is the longest address of an agent.
const MaxAgentAddressBytes = 255

// ErrAgentNotFound: no agent of that id is registered (any more).
var ErrAgentNotFound = errors.New("agent not found")

// AgentDiscovery keeps the list of agents that serve a cluster. The list holds
// hints for routing: who may write what is never decided by it, and a wrong entry costs a
// connection that does not come about.
//
// Times are the store's clock. A store needs one row an agent (agent_id primary key,
// agent_group, zone, address, version, started_at, seen_at, draining) and an index on
// (agent_group, seen_at); rows that were not seen for ten times AgentTTL may be dropped by any Register.
type AgentDiscovery interface {
	// Register enters an agent under a new id, as seen now. Two agents may have
	// one address: the younger one is the one that is reached, and the older one's entry ends with
	// its heartbeats.
	//
	// domain.ErrInvalidName, *domain.ConfigError: spec is not valid; every fault is in the error.
	Register(ctx context.Context, spec AgentSpec) (Agent, error)

	// Heartbeat says that the agent is there, and whether it is draining: a
	// draining agent finishes what it has and takes nothing new.
	//
	// ErrAgentNotFound (Definite): the agent left, or was not seen for AgentTTL; it may register
	// again.
	Heartbeat(ctx context.Context, id AgentID, draining bool) error

	// Leave removes the agent at once. One that is not there is a success.
	Leave(ctx context.Context, id AgentID) error

	// Agents returns the agents of the group that were seen less than AgentTTL
	// ago, those that drain included, by StartedAt and then by id. An empty group means all.
	// domain.ErrInvalidName if the group is not a valid name.
	Agents(ctx context.Context, group string) ([]Agent, error)
}

// AgentID names one run of one agent.
type AgentID domain.UUID

func (id AgentID) String() string { return domain.UUID(id).String() }

// AgentSpec is what an agent says of itself.
type AgentSpec struct {
	// Group is whose clients the agent serves. Required.
	Group string
	// Zone is where the agent is, for clients that prefer a near one. May be
	// empty.
	Zone string
	// Address is where clients reach the agent, such as "10.0.0.7:7070".
	Address string
	// Version is that of the agent's program, for people. At most
	// domain.MaxNameBytes of printable ASCII; may be empty.
	Version string
}

// Validate reports every fault of the specification.
func (s AgentSpec) Validate() error {
	var zone, address, version error
	if s.Zone != "" {
		zone = domain.ValidateName("zone", s.Zone)
	}
	if s.Address == "" || len(s.Address) > MaxAgentAddressBytes || !printable(s.Address) {
		address = &domain.ConfigError{
			Field: "agent address", Value: fmt.Sprintf("%.80q", s.Address),
			Want: fmt.Sprintf("1 to %d printable ASCII characters without blanks", MaxAgentAddressBytes),
		}
	}
	if len(s.Version) > domain.MaxNameBytes || !printable(s.Version) {
		version = &domain.ConfigError{
			Field: "agent version", Value: fmt.Sprintf("%.80q", s.Version),
			Want: fmt.Sprintf("at most %d printable ASCII characters without blanks", domain.MaxNameBytes),
		}
	}
	return errors.Join(domain.ValidateName("agent group", s.Group), zone, address, version)
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Agent is one entry of the list.
type Agent struct {
	ID AgentID
	AgentSpec
	Draining bool
	// StartedAt is when it registered, SeenAt its last heartbeat.
	StartedAt, SeenAt time.Time
}

// AgentStatus is how one agent is doing, as it says itself.
type AgentStatus struct {
	Version string
	Uptime  time.Duration
	// NotReady is why it should get no work now; "" if it should.
	NotReady string
	// Connections and Streams are the connections and the Produce streams of
	// clients.
	Connections, Streams int
	// HeldBytes are of batches that are taken over and not settled.
	HeldBytes int64
	// Batches counts those taken over since it started, BatchBytes their bytes,
	// Refused those that were not.
	Batches, BatchBytes, Refused int64
	// Loops are those of its upkeep.
	Loops []AgentLoop
}

// AgentLoop is how one loop of an agent's upkeep is doing.
type AgentLoop struct {
	Name string
	// SinceSuccess is how long ago a pass last went through, if one has: Passed.
	SinceSuccess time.Duration
	Passed       bool
	// Failure is why the last pass did not go through; "" if it did.
	Failure string
}

// CompareAgents is the order of AgentDiscovery.Agents.
func CompareAgents(a, b Agent) int {
	return cmp.Or(a.StartedAt.Compare(b.StartedAt), cmp.Compare(a.ID.String(), b.ID.String()))
}

// ValidateAgentGroup accepts the group of AgentDiscovery.Agents: a name, or
// nothing for all groups.
func ValidateAgentGroup(group string) error {
	if group == "" {
		return nil
	}
	return domain.ValidateName("agent group", group)
}

// AgentClient is all that a producer and a consumer need of a cluster, through
// its agents.
type AgentClient interface {
	Topics
	Producers
	Fetcher
	// NewTransport makes a transport for one producer, which closes it.
	NewTransport() Transport
}
