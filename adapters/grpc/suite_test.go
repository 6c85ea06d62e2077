package grpc_test

import (
	"context"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestTransport(t *testing.T) {
	for name, n := range networks() {
		t.Run(name, func(t *testing.T) { portstest.TestTransport(t, harness(n())) })
	}
}

func BenchmarkTransport(b *testing.B) { portstest.BenchmarkTransport(b, harness(tcp{})) }

// harness opens a transport and a fetcher through one agent.
func harness(n network) portstest.TransportHarness {
	return portstest.TransportHarness{
		Stores: func(testing.TB) (ports.MetadataStore, ports.SegmentStore) {
			return memory.NewMetadata(memory.MetadataOptions{}), memory.NewSegments()
		},
		Open: func(t testing.TB, meta ports.MetadataStore, segments ports.SegmentStore) (ports.Transport, ports.Fetcher) {
			c := newCluster(t, n)
			c.metadata, c.segments = meta, segments
			c.start("")
			client := c.dial()
			return client.NewTransport(), client
		},
	}
}

// throughAgent is a metadata store whose topics and producers are reached
// through an agent. The rest is reached directly.
type throughAgent struct {
	ports.MetadataStore
	client *grpc.Client
}

func (s throughAgent) CreateTopic(ctx context.Context, spec domain.TopicSpec) (domain.Topic, error) {
	return s.client.CreateTopic(ctx, spec)
}
func (s throughAgent) Topic(ctx context.Context, name string) (domain.Topic, error) {
	return s.client.Topic(ctx, name)
}
func (s throughAgent) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	return s.client.ListTopics(ctx)
}
func (s throughAgent) DescribePartitions(ctx context.Context, id domain.TopicID) ([]domain.PartitionState, error) {
	return s.client.DescribePartitions(ctx, id)
}
func (s throughAgent) DeleteTopic(ctx context.Context, id domain.TopicID) error {
	return s.client.DeleteTopic(ctx, id)
}
func (s throughAgent) WidenTopic(ctx context.Context, id domain.TopicID, n int32) (domain.Topic, error) {
	return s.client.WidenTopic(ctx, id, n)
}
func (s throughAgent) SetRetention(ctx context.Context, id domain.TopicID, r domain.Retention) (domain.Topic, error) {
	return s.client.SetRetention(ctx, id, r)
}
func (s throughAgent) RegisterProducer(ctx context.Context, name string) (ports.ProducerSession, error) {
	return s.client.RegisterProducer(ctx, name)
}
func (s throughAgent) AbandonBatch(ctx context.Context, b ports.AbandonedBatch) (commit.Outcome, error) {
	return s.client.AbandonBatch(ctx, b)
}

func TestTopicsAndProducers_KeepTheContract(t *testing.T) {
	portstest.TestMetadataStore(t, func(t *testing.T) ports.MetadataStore {
		c := newCluster(t, tcp{})
		c.start("")
		return throughAgent{c.metadata, c.dial()}
	},
		portstest.Only("Topics", "Producers", "Abandon"),
		portstest.RaiseEpochWith(func(_ *testing.T, s ports.MetadataStore, name string, epoch domain.Epoch) {
			for {
				session, err := s.(throughAgent).MetadataStore.RegisterProducer(context.Background(), name)
				if err != nil || session.Epoch == epoch {
					return
				}
			}
		}))
}

// TestAgents_ThroughAnAgent reads the list as a client sees it.
func TestAgents_ThroughAnAgent(t *testing.T) {
	portstest.TestAgentDiscovery(t, func(t *testing.T) ports.AgentDiscovery {
		c := newCluster(t, tcp{})
		a := c.start("")
		if err := c.agents.Leave(context.Background(), a.id); err != nil {
			t.Fatal(err)
		}
		client := c.dial(func(cfg *grpc.ClientConfig) { cfg.Discovery, cfg.Addresses = nil, []string{a.addr} })
		return agentsThroughAgent{c.agents, client}
	})
}

type agentsThroughAgent struct {
	ports.AgentDiscovery
	client *grpc.Client
}

func (a agentsThroughAgent) Agents(ctx context.Context, group string) ([]ports.Agent, error) {
	return a.client.Agents(ctx, group)
}
