package grpc

import (
	"context"

	grpcgo "google.golang.org/grpc"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/ports"
)

// DescribeAgent asks the agent at address, and no other, how it is doing. Of cfg
// it uses what secures a connection and bounds a call. It keeps no connection.
func DescribeAgent(ctx context.Context, cfg ClientConfig, address string) (ports.AgentStatus, error) {
	const op = "describe agent"
	cfg.Addresses, cfg.Discovery = []string{address}, nil
	if err := cfg.Validate(); err != nil {
		return ports.AgentStatus{}, err
	}
	pool, err := newPool(&cfg, 1)
	if err != nil {
		return ports.AgentStatus{}, err
	}
	c := &Client{cfg: cfg, pool: pool}
	c.life, c.end = context.WithCancel(context.Background())
	defer func() { _ = c.Close() }() // the answer is there, or why not
	r := pool.agents[address]
	if err := pool.ready(ctx, r); err != nil {
		return ports.AgentStatus{}, err
	}
	var answer *agentv1.DescribeAgentResponse
	_, err = c.attempt(ctx, r, call{op: op, make: func(ctx context.Context, conn grpcgo.ClientConnInterface) (err error) {
		answer, err = agentv1.NewAgentServiceClient(conn).DescribeAgent(ctx, &agentv1.DescribeAgentRequest{})
		return err
	}})
	if err != nil {
		return ports.AgentStatus{}, callError(ctx, op, ports.Transient, err)
	}
	return decodeAgentStatus(answer), nil
}
