package memory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// Agents is a list of agents in memory, for agents and clients of one process.
// Its clock is time.Now.
type Agents struct {
	mu     sync.Mutex
	random *rand.Rand
	rows   map[ports.AgentID]*ports.Agent
}

var _ ports.AgentDiscovery = (*Agents)(nil)

// NewAgents makes an empty list with random ids.
func NewAgents() *Agents {
	return &Agents{random: newRandom(0), rows: make(map[ports.AgentID]*ports.Agent)}
}

// Register implements ports.AgentDiscovery. It drops what was not seen for
// AgentTTL, so that memory follows the agents there are.
func (a *Agents) Register(ctx context.Context, spec ports.AgentSpec) (ports.Agent, error) {
	if err := spec.Validate(); err != nil {
		return ports.Agent{}, err
	}
	if err := ctx.Err(); err != nil {
		return ports.Agent{}, ports.MetadataError("register agent "+spec.Address, ports.Transient, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for id, row := range a.rows {
		if !alive(row, now) {
			delete(a.rows, id)
		}
	}
	var random [10]byte
	for i := range random {
		random[i] = byte(a.random.Uint32())
	}
	row := &ports.Agent{ID: ports.AgentID(domain.NewUUIDv7(now, random)), AgentSpec: spec, StartedAt: now, SeenAt: now}
	a.rows[row.ID] = row
	return *row, nil
}

// Heartbeat implements ports.AgentDiscovery.
func (a *Agents) Heartbeat(ctx context.Context, id ports.AgentID, draining bool) error {
	op := fmt.Sprintf("heartbeat of agent %s", id)
	if err := ctx.Err(); err != nil {
		return ports.MetadataError(op, ports.Transient, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	row := a.rows[id]
	if row == nil || !alive(row, now) {
		return ports.MetadataError(op, ports.Definite, ports.ErrAgentNotFound)
	}
	row.SeenAt, row.Draining = now, draining
	return nil
}

// Leave implements ports.AgentDiscovery.
func (a *Agents) Leave(ctx context.Context, id ports.AgentID) error {
	if err := ctx.Err(); err != nil {
		return ports.MetadataError(fmt.Sprintf("leave of agent %s", id), ports.Transient, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.rows, id)
	return nil
}

// Agents implements ports.AgentDiscovery.
func (a *Agents) Agents(ctx context.Context, group string) ([]ports.Agent, error) {
	if err := ports.ValidateAgentGroup(group); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, ports.MetadataError("list agents", ports.Transient, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	var list []ports.Agent
	for _, row := range a.rows {
		if alive(row, now) && (group == "" || row.Group == group) {
			list = append(list, *row)
		}
	}
	slices.SortFunc(list, ports.CompareAgents)
	return list, nil
}

func alive(row *ports.Agent, now time.Time) bool { return now.Sub(row.SeenAt) < ports.AgentTTL }
