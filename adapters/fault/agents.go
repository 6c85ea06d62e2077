package fault

import (
	"context"

	"github.com/streamhouse/streamhouse/ports"
)

// Agents names the port of agent discovery in Call.Port.
const Agents = "agents"

// NewAgents wraps discovery.
func NewAgents(discovery ports.AgentDiscovery, f Interceptor) ports.AgentDiscovery {
	return &agents{discovery, f}
}

type agents struct {
	discovery ports.AgentDiscovery
	intercept Interceptor
}

func (a *agents) Register(ctx context.Context, spec ports.AgentSpec) (ports.Agent, error) {
	return intercept(ctx, a.intercept, Call{Agents, "Register", spec.Address, true}, nil, func(ctx context.Context) (ports.Agent, error) {
		return a.discovery.Register(ctx, spec)
	})
}

func (a *agents) Heartbeat(ctx context.Context, id ports.AgentID, draining bool) error {
	_, err := intercept(ctx, a.intercept, Call{Agents, "Heartbeat", id.String(), true}, nil, func(ctx context.Context) (nothing, error) {
		return nothing{}, a.discovery.Heartbeat(ctx, id, draining)
	})
	return err
}

func (a *agents) Leave(ctx context.Context, id ports.AgentID) error {
	_, err := intercept(ctx, a.intercept, Call{Agents, "Leave", id.String(), true}, nil, func(ctx context.Context) (nothing, error) {
		return nothing{}, a.discovery.Leave(ctx, id)
	})
	return err
}

func (a *agents) Agents(ctx context.Context, group string) ([]ports.Agent, error) {
	return intercept(ctx, a.intercept, Call{Agents, "Agents", group, false}, nil, func(ctx context.Context) ([]ports.Agent, error) {
		return a.discovery.Agents(ctx, group)
	})
}
