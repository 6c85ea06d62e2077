package grpc

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// topicService serves the topics of a metadata store.
type topicService struct {
	agentv1.UnimplementedTopicServiceServer
	topics ports.Topics
}

func (t *topicService) CreateTopic(ctx context.Context, r *agentv1.CreateTopicRequest) (*agentv1.CreateTopicResponse, error) {
	topic, err := t.topics.CreateTopic(ctx, domain.TopicSpec{
		Name: string(r.GetName()), Partitions: r.GetPartitions(), Retention: decodeRetention(r.GetRetention()),
	})
	if err != nil {
		return nil, err
	}
	return &agentv1.CreateTopicResponse{Topic: encodeTopic(topic)}, nil
}

func (t *topicService) GetTopic(ctx context.Context, r *agentv1.GetTopicRequest) (*agentv1.GetTopicResponse, error) {
	topic, err := t.topics.Topic(ctx, string(r.GetName()))
	if err != nil {
		return nil, err
	}
	return &agentv1.GetTopicResponse{Topic: encodeTopic(topic)}, nil
}

func (t *topicService) ListTopics(ctx context.Context, _ *agentv1.ListTopicsRequest) (*agentv1.ListTopicsResponse, error) {
	all, err := t.topics.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	out := new(agentv1.ListTopicsResponse)
	for _, topic := range all {
		if accessOf(ctx).name(topic.Name) == nil {
			out.Topics = append(out.Topics, encodeTopic(topic))
		}
	}
	return out, nil
}

func (t *topicService) DescribePartitions(ctx context.Context, r *agentv1.DescribePartitionsRequest) (*agentv1.DescribePartitionsResponse, error) {
	id, err := decodeTopicID(r.GetTopicId())
	if err != nil {
		return nil, err
	}
	states, err := t.topics.DescribePartitions(ctx, id)
	if err != nil {
		return nil, err
	}
	out := &agentv1.DescribePartitionsResponse{Partitions: make([]*agentv1.PartitionState, 0, len(states))}
	for _, s := range states {
		out.Partitions = append(out.Partitions, &agentv1.PartitionState{
			Partition: int32(s.Partition), LogStart: int64(s.LogStart), HighWatermark: int64(s.HighWatermark), Bytes: s.Bytes,
		})
	}
	return out, nil
}

func (t *topicService) DeleteTopic(ctx context.Context, r *agentv1.DeleteTopicRequest) (*agentv1.DeleteTopicResponse, error) {
	id, err := decodeTopicID(r.GetTopicId())
	if err == nil {
		err = t.topics.DeleteTopic(ctx, id)
	}
	return &agentv1.DeleteTopicResponse{}, err
}

func (t *topicService) WidenTopic(ctx context.Context, r *agentv1.WidenTopicRequest) (*agentv1.WidenTopicResponse, error) {
	id, err := decodeTopicID(r.GetTopicId())
	if err != nil {
		return nil, err
	}
	topic, err := t.topics.WidenTopic(ctx, id, r.GetPartitions())
	if err != nil {
		return nil, err
	}
	return &agentv1.WidenTopicResponse{Topic: encodeTopic(topic)}, nil
}

func (t *topicService) SetRetention(ctx context.Context, r *agentv1.SetRetentionRequest) (*agentv1.SetRetentionResponse, error) {
	id, err := decodeTopicID(r.GetTopicId())
	if err != nil {
		return nil, err
	}
	topic, err := t.topics.SetRetention(ctx, id, decodeRetention(r.GetRetention()))
	if err != nil {
		return nil, err
	}
	return &agentv1.SetRetentionResponse{Topic: encodeTopic(topic)}, nil
}

// producerService serves the producer sessions of a metadata store.
type producerService struct {
	agentv1.UnimplementedProducerServiceServer
	producers ports.Producers
}

func (p *producerService) RegisterProducer(ctx context.Context, r *agentv1.RegisterProducerRequest) (*agentv1.RegisterProducerResponse, error) {
	session, err := p.producers.RegisterProducer(ctx, string(r.GetName()))
	if err != nil {
		return nil, err
	}
	return &agentv1.RegisterProducerResponse{ProducerId: int64(session.ID), Epoch: int32(session.Epoch)}, nil
}

func (p *producerService) AbandonBatch(ctx context.Context, r *agentv1.AbandonBatchRequest) (*agentv1.AbandonBatchResponse, error) {
	key, err := decodeKey(r.GetTopicId(), r.GetPartition())
	if err != nil {
		return nil, err
	}
	if r.GetEpoch() < 0 || r.GetEpoch() > 1<<15-1 || r.GetFirstSequence() < 0 || r.GetRecords() < 1 {
		return nil, invalid("epoch %d, first sequence %d, %d records", r.GetEpoch(), r.GetFirstSequence(), r.GetRecords())
	}
	o, err := p.producers.AbandonBatch(ctx, ports.AbandonedBatch{
		StreamKey:     commit.StreamKey{Producer: domain.ProducerID(r.GetProducerId()), PartitionKey: key},
		Epoch:         domain.Epoch(r.GetEpoch()),
		FirstSequence: domain.Sequence(r.GetFirstSequence()),
		Records:       r.GetRecords(),
	})
	if err != nil {
		return nil, err
	}
	return &agentv1.AbandonBatchResponse{Status: encodeStatus(o.Status), BaseOffset: int64(o.Base)}, nil
}

// agentService serves the list of agents, and how this one is doing.
type agentService struct {
	agentv1.UnimplementedAgentServiceServer
	s *Server
}

func (a *agentService) ListAgents(ctx context.Context, r *agentv1.ListAgentsRequest) (*agentv1.ListAgentsResponse, error) {
	all, err := a.s.backend.Agents.Agents(ctx, r.GetGroup())
	if err != nil {
		return nil, err
	}
	out := new(agentv1.ListAgentsResponse)
	for _, agent := range all {
		out.Agents = append(out.Agents, encodeAgent(agent))
	}
	return out, nil
}

func (a *agentService) DescribeAgent(context.Context, *agentv1.DescribeAgentRequest) (*agentv1.DescribeAgentResponse, error) {
	return encodeAgentStatus(a.s.describe()), nil
}

// describe puts together what the server and its backend know of the agent.
func (s *Server) describe() ports.AgentStatus {
	var d ports.AgentStatus
	if s.backend.Describe != nil {
		d = s.backend.Describe()
	}
	if reason := s.unready.Load(); reason != nil && d.NotReady == "" {
		d.NotReady = (*reason).Error()
	}
	stats := s.Stats()
	d.Version, d.Uptime = s.cfg.Version, time.Since(s.began)
	d.Connections, d.Streams, d.HeldBytes = stats.Connections, stats.Streams, stats.HeldBytes
	d.Batches, d.BatchBytes, d.Refused = stats.Batches, stats.BatchBytes, stats.Refused
	return d
}
