package wiring

import (
	"context"
	"errors"

	"go.uber.org/fx"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// errNeedsStores: what was asked for works on the stores themselves.
var errNeedsStores = &domain.ConfigError{
	Field: "agents", Want: "no agents: this command works on the stores, which --metadata and --segments or --data name",
}

// AgentLister lists the agents of a log, through its metadata store or an agent.
type AgentLister interface {
	Agents(ctx context.Context, group string) ([]ports.Agent, error)
}

// AgentProbe asks one agent, and no other, how it is doing.
type AgentProbe func(ctx context.Context, address string) (ports.AgentStatus, error)

func (b *builder) newProbe() (AgentProbe, error) {
	cfg, err := b.agentClient()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, address string) (ports.AgentStatus, error) {
		return grpc.DescribeAgent(ctx, cfg, address)
	}, nil
}

// reach is how producers, consumers and topics reach the log.
type reach struct {
	fx.Out
	Topics    ports.Topics
	Producers ports.Producers
	Fetcher   ports.Fetcher
}

// overAgents is the part of the graph that takes the place of the stores.
func (b *builder) overAgents() fx.Option {
	return fx.Options(
		fx.Provide(b.dialAgents),
		fx.Provide(func(c *grpc.Client) reach { return reach{Topics: c, Producers: c, Fetcher: c} }),
		fx.Provide(func(c *grpc.Client) ports.Transport {
			t := c.NewTransport()
			b.started("agent transport", t.Close)
			return t
		}),
		fx.Provide(func(c *grpc.Client) AgentLister { return c }),
		fx.Provide(func() (stores, error) { return stores{}, failed("open the stores", errNeedsStores) }),
	)
}

// agentClient is how clients reach agents.
func (b *builder) agentClient() (grpc.ClientConfig, error) {
	cfg := grpc.DefaultClientConfig()
	cfg.Addresses, cfg.Group, cfg.Zone, cfg.Token = b.cfg.Agents.Addresses, b.cfg.Agents.Group, b.cfg.Agents.Zone, b.cfg.Agents.Token
	var err error
	if cfg.TLS, err = clientTLS(b.cfg.Agents.TLS); err != nil {
		return cfg, failed("read the TLS files", err)
	}
	return cfg, nil
}

func (b *builder) dialAgents() (*grpc.Client, error) {
	cfg, err := b.agentClient()
	if err != nil {
		return nil, err
	}
	c, err := grpc.Dial(b.ctx, cfg)
	if err != nil {
		return nil, failed("reach agents", err)
	}
	b.started("agent client", func(context.Context) error { return c.Close() })
	return c, nil
}

// overStores is the part of the graph for who opens the stores itself.
func (b *builder) overStores() fx.Option {
	return fx.Options(
		fx.Provide(b.openStores),
		fx.Provide(func(m ports.MetadataStore, s ports.SegmentStore) reach {
			return reach{Topics: m, Producers: m, Fetcher: b.newFetcher(m, s)}
		}),
		fx.Provide(func(m ports.MetadataStore) (AgentLister, error) { return discoveryOf(m) }),
		fx.Provide(b.newTransport),
	)
}

// discoveryOf is the list of agents that the metadata store keeps.
func discoveryOf(m ports.MetadataStore) (ports.AgentDiscovery, error) {
	d, ok := m.(ports.AgentDiscovery)
	if !ok {
		return nil, failed("find the list of agents", errors.New("the metadata store keeps none"))
	}
	return d, nil
}
