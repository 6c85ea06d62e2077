package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

var _ ports.AgentDiscovery = (*Store)(nil)

// forgetAgent is after which time without a heartbeat a row is dropped.
const forgetAgent = 10 * ports.AgentTTL

var (
	insertAgent = query{`INSERT INTO agents (agent_id, agent_group, zone, address, version, started_at, seen_at, draining)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 0)`}
	dropAgents  = query{"DELETE FROM agents WHERE seen_at <= ?"}
	beatAgent   = query{"UPDATE agents SET seen_at = ?, draining = ? WHERE agent_id = ? AND seen_at > ? RETURNING 1"}
	deleteAgent = query{"DELETE FROM agents WHERE agent_id = ?"}
	listAgents  = query{`SELECT agent_id, agent_group, zone, address, version, started_at, seen_at, draining FROM agents
		WHERE seen_at > ?1 AND (?2 = '' OR agent_group = ?2)`}
)

// Register implements ports.AgentDiscovery.
func (s *Store) Register(ctx context.Context, spec ports.AgentSpec) (ports.Agent, error) {
	if err := spec.Validate(); err != nil {
		return ports.Agent{}, err
	}
	now := s.now()
	at := time.UnixMilli(now.UnixMilli()).UTC()
	a := ports.Agent{ID: ports.AgentID(newID(now)), AgentSpec: spec, StartedAt: at, SeenAt: at}
	err := s.write(ctx, "register agent "+spec.Address, func(c *conn) error {
		if err := c.exec(&dropAgents, now.Add(-forgetAgent).UnixMilli()); err != nil {
			return err
		}
		return c.exec(&insertAgent, a.ID[:], spec.Group, spec.Zone, spec.Address, spec.Version, now.UnixMilli())
	})
	return given(a, err)
}

// Heartbeat implements ports.AgentDiscovery.
func (s *Store) Heartbeat(ctx context.Context, id ports.AgentID, draining bool) error {
	op := fmt.Sprintf("heartbeat of agent %s", id)
	found := 0
	err := s.writeThen(ctx, op, func(c *conn) (err error) {
		now := s.now()
		found, err = c.count(&beatAgent, now.UnixMilli(), flag(draining), id[:], now.Add(-ports.AgentTTL).UnixMilli())
		return err
	}, func() {})
	if err == nil && found == 0 {
		err = ports.MetadataError(op, ports.Definite, ports.ErrAgentNotFound)
	}
	return err
}

func flag(on bool) driver.Value {
	if on {
		return int64(1)
	}
	return int64(0)
}

// Leave implements ports.AgentDiscovery.
func (s *Store) Leave(ctx context.Context, id ports.AgentID) error {
	return s.write(ctx, fmt.Sprintf("leave of agent %s", id), func(c *conn) error { return c.exec(&deleteAgent, id[:]) })
}

// Agents implements ports.AgentDiscovery.
func (s *Store) Agents(ctx context.Context, group string) ([]ports.Agent, error) {
	if err := ports.ValidateAgentGroup(group); err != nil {
		return nil, err
	}
	var agents []ports.Agent
	err := s.read(ctx, "list agents", func(c *conn) error {
		agents = []ports.Agent{}
		return c.query(&listAgents, func(r *row) error {
			agents = append(agents, ports.Agent{
				ID:        ports.AgentID(r.uuid(0)),
				AgentSpec: ports.AgentSpec{Group: r.text(1), Zone: r.text(2), Address: r.text(3), Version: r.text(4)},
				StartedAt: time.UnixMilli(r.int(5)).UTC(), SeenAt: time.UnixMilli(r.int(6)).UTC(), Draining: r.int(7) != 0,
			})
			return nil
		}, s.now().Add(-ports.AgentTTL).UnixMilli(), group)
	})
	slices.SortFunc(agents, ports.CompareAgents)
	return given(agents, err)
}
