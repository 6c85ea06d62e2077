package agent

import (
	"context"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// Segments is s, of which each Put is noted.
func (h *Health) Segments(s ports.SegmentStore) ports.SegmentStore { return &notedSegments{s, h} }

type notedSegments struct {
	ports.SegmentStore
	health *Health
}

// Put implements ports.SegmentStore.
func (n *notedSegments) Put(ctx context.Context, key string, body []byte) error {
	err := n.SegmentStore.Put(ctx, key, body)
	if err == nil && !mutant.On(mutantPutsUnheard) {
		n.health.segments.hear()
	}
	n.health.note(err)
	return err
}

// Discovery is d, of which each heartbeat is noted.
func (h *Health) Discovery(d ports.AgentDiscovery) ports.AgentDiscovery { return &notedDiscovery{d, h} }

type notedDiscovery struct {
	ports.AgentDiscovery
	health *Health
}

// Heartbeat implements ports.AgentDiscovery.
func (n *notedDiscovery) Heartbeat(ctx context.Context, id ports.AgentID, draining bool) error {
	err := n.AgentDiscovery.Heartbeat(ctx, id, draining)
	n.health.note(err)
	return err
}

// Topics is t, of which each look-up is noted.
func (h *Health) Topics(t ports.Topics) ports.Topics { return &notedTopics{t, h} }

type notedTopics struct {
	ports.Topics
	health *Health
}

// Topic implements ports.Topics.
func (n *notedTopics) Topic(ctx context.Context, name string) (domain.Topic, error) {
	t, err := n.Topics.Topic(ctx, name)
	n.health.note(err)
	return t, err
}

// ListTopics implements ports.Topics.
func (n *notedTopics) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	all, err := n.Topics.ListTopics(ctx)
	n.health.note(err)
	return all, err
}

// Producers is p, of which each registration is noted.
func (h *Health) Producers(p ports.Producers) ports.Producers { return &notedProducers{p, h} }

type notedProducers struct {
	ports.Producers
	health *Health
}

// RegisterProducer implements ports.Producers.
func (n *notedProducers) RegisterProducer(ctx context.Context, name string) (ports.ProducerSession, error) {
	s, err := n.Producers.RegisterProducer(ctx, name)
	n.health.note(err)
	return s, err
}
