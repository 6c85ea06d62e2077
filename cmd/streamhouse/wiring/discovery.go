package wiring

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/logging"
	"github.com/streamhouse/streamhouse/ports"
)

// loggedDiscovery logs when the list of agents cannot be reached any more, and
// when it can again. It is for one agent.
type loggedDiscovery struct {
	ports.AgentDiscovery
	log     *slog.Logger
	failing atomic.Bool
}

// Register implements ports.AgentDiscovery.
func (d *loggedDiscovery) Register(ctx context.Context, spec ports.AgentSpec) (ports.Agent, error) {
	entry, err := d.AgentDiscovery.Register(ctx, spec)
	if err == nil {
		d.log.Info("entered the list of agents", "agent", entry.ID.String(), "group", spec.Group, "zone", spec.Zone, "address", spec.Address)
	}
	return entry, err
}

// Heartbeat implements ports.AgentDiscovery.
func (d *loggedDiscovery) Heartbeat(ctx context.Context, id ports.AgentID, draining bool) error {
	err := d.AgentDiscovery.Heartbeat(ctx, id, draining)
	switch {
	case errors.Is(err, ports.ErrAgentNotFound):
		d.log.Warn("the list of agents had forgotten this one", "agent", id.String())
	case errors.Is(err, context.Canceled): // the agent ends
	case err != nil && !d.failing.Swap(true):
		d.log.Warn("heartbeat failed", append([]any{"agent", id.String()}, logging.Subject(err)...)...)
	case err == nil && d.failing.Swap(false):
		d.log.Info("heartbeats go through again", "agent", id.String())
	}
	return err
}
