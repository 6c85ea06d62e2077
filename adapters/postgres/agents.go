package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/streamhouse/streamhouse/ports"
)

var _ ports.AgentDiscovery = (*Store)(nil)

// forgetAgent is after which time without a heartbeat a row is dropped.
const forgetAgent = 10 * ports.AgentTTL

const (
	dropAgents  = "DELETE FROM agents WHERE seen_at <= now_ms() - $1::bigint"
	insertAgent = `INSERT INTO agents (agent_id, agent_group, zone, address, version, started_at, seen_at, draining)
		SELECT $1, $2, $3, $4, $5, now, now, false FROM (SELECT now_ms() AS now) AS clock RETURNING started_at`
	beatAgent   = "UPDATE agents SET seen_at = now_ms(), draining = $2 WHERE agent_id = $1 AND seen_at > now_ms() - $3::bigint"
	deleteAgent = "DELETE FROM agents WHERE agent_id = $1"
	listAgents  = `SELECT agent_id, agent_group, zone, address, version, started_at, seen_at, draining FROM agents
		WHERE seen_at > now_ms() - $1::bigint AND ($2 = '' OR agent_group = $2)`
)

// Register implements ports.AgentDiscovery.
func (s *Store) Register(ctx context.Context, spec ports.AgentSpec) (ports.Agent, error) {
	if err := spec.Validate(); err != nil {
		return ports.Agent{}, err
	}
	a := ports.Agent{ID: ports.AgentID(newID()), AgentSpec: spec}
	err := s.write(ctx, "register agent "+spec.Address, func(ctx context.Context, tx pgx.Tx) error {
		if err := exec(ctx, tx, dropAgents, forgetAgent.Milliseconds()); err != nil {
			return err
		}
		var now int64
		row := tx.QueryRow(ctx, insertAgent, [16]byte(a.ID), spec.Group, spec.Zone, spec.Address, spec.Version)
		if err := row.Scan(&now); err != nil {
			return err
		}
		a.StartedAt = time.UnixMilli(now).UTC()
		a.SeenAt = a.StartedAt
		return nil
	})
	return given(&a, err)
}

// Heartbeat implements ports.AgentDiscovery.
func (s *Store) Heartbeat(ctx context.Context, id ports.AgentID, draining bool) error {
	op := fmt.Sprintf("heartbeat of agent %s", id)
	var found int64
	err := s.write(ctx, op, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, beatAgent, [16]byte(id), draining, ports.AgentTTL.Milliseconds())
		found = tag.RowsAffected()
		return err
	})
	if err == nil && found == 0 {
		err = ports.MetadataError(op, ports.Definite, ports.ErrAgentNotFound)
	}
	return err
}

// Leave implements ports.AgentDiscovery.
func (s *Store) Leave(ctx context.Context, id ports.AgentID) error {
	return s.write(ctx, fmt.Sprintf("leave of agent %s", id), func(ctx context.Context, tx pgx.Tx) error {
		return exec(ctx, tx, deleteAgent, [16]byte(id))
	})
}

// Agents implements ports.AgentDiscovery.
func (s *Store) Agents(ctx context.Context, group string) ([]ports.Agent, error) {
	if err := ports.ValidateAgentGroup(group); err != nil {
		return nil, err
	}
	var agents []ports.Agent
	err := s.read(ctx, "list agents", func(c *pgxpool.Conn) error {
		agents = []ports.Agent{}
		return query(ctx, c, listAgents, func(r pgx.Rows) error {
			var a ports.Agent
			var id [16]byte
			var started, seen int64
			err := r.Scan(&id, &a.Group, &a.Zone, &a.Address, &a.Version, &started, &seen, &a.Draining)
			a.ID, a.StartedAt, a.SeenAt = ports.AgentID(id), time.UnixMilli(started).UTC(), time.UnixMilli(seen).UTC()
			agents = append(agents, a)
			return err
		}, ports.AgentTTL.Milliseconds(), group)
	})
	slices.SortFunc(agents, ports.CompareAgents)
	return given(&agents, err)
}
