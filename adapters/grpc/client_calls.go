package grpc

import (
	"context"
	"fmt"
	"time"

	grpcgo "google.golang.org/grpc"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// CreateTopic implements ports.Topics.
func (c *Client) CreateTopic(ctx context.Context, spec domain.TopicSpec) (domain.Topic, error) {
	return c.topic(ctx, "create topic "+clip(spec.Name), true, func(ctx context.Context, t agentv1.TopicServiceClient) (*agentv1.Topic, error) {
		answer, err := t.CreateTopic(ctx, &agentv1.CreateTopicRequest{
			Name: []byte(spec.Name), Partitions: spec.Partitions, Retention: encodeRetention(spec.Retention),
		})
		return answer.GetTopic(), err
	})
}

// Topic implements ports.Topics.
func (c *Client) Topic(ctx context.Context, name string) (domain.Topic, error) {
	return c.topic(ctx, "find topic "+clip(name), false, func(ctx context.Context, t agentv1.TopicServiceClient) (*agentv1.Topic, error) {
		answer, err := t.GetTopic(ctx, &agentv1.GetTopicRequest{Name: []byte(name)})
		return answer.GetTopic(), err
	})
}

// WidenTopic implements ports.Topics.
func (c *Client) WidenTopic(ctx context.Context, id domain.TopicID, partitions int32) (domain.Topic, error) {
	return c.topic(ctx, "widen topic "+id.String(), true, func(ctx context.Context, t agentv1.TopicServiceClient) (*agentv1.Topic, error) {
		answer, err := t.WidenTopic(ctx, &agentv1.WidenTopicRequest{TopicId: id[:], Partitions: partitions})
		return answer.GetTopic(), err
	})
}

// SetRetention implements ports.Topics.
func (c *Client) SetRetention(ctx context.Context, id domain.TopicID, r domain.Retention) (domain.Topic, error) {
	return c.topic(ctx, "set retention of topic "+id.String(), true, func(ctx context.Context, t agentv1.TopicServiceClient) (*agentv1.Topic, error) {
		answer, err := t.SetRetention(ctx, &agentv1.SetRetentionRequest{TopicId: id[:], Retention: encodeRetention(r)})
		return answer.GetTopic(), err
	})
}

// topic makes a call that answers with a topic.
func (c *Client) topic(ctx context.Context, op string, effect bool, ask func(context.Context, agentv1.TopicServiceClient) (*agentv1.Topic, error)) (domain.Topic, error) {
	var answer *agentv1.Topic
	err := c.do(ctx, call{op: op, effect: effect, make: func(ctx context.Context, conn grpcgo.ClientConnInterface) (err error) {
		answer, err = ask(ctx, agentv1.NewTopicServiceClient(conn))
		return err
	}})
	if err != nil {
		return domain.Topic{}, err
	}
	topic, err := decodeTopic(answer)
	if err != nil {
		return domain.Topic{}, nonsense(op, err)
	}
	return topic, nil
}

// ListTopics implements ports.Topics.
func (c *Client) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	var answer *agentv1.ListTopicsResponse
	err := c.do(ctx, call{op: "list topics", make: func(ctx context.Context, conn grpcgo.ClientConnInterface) (err error) {
		answer, err = agentv1.NewTopicServiceClient(conn).ListTopics(ctx, &agentv1.ListTopicsRequest{})
		return err
	}})
	if err != nil {
		return nil, err
	}
	all := make([]domain.Topic, 0, len(answer.GetTopics()))
	for _, t := range answer.GetTopics() {
		topic, err := decodeTopic(t)
		if err != nil {
			return nil, nonsense("list topics", err)
		}
		all = append(all, topic)
	}
	return all, nil
}

// DescribePartitions implements ports.Topics.
func (c *Client) DescribePartitions(ctx context.Context, id domain.TopicID) ([]domain.PartitionState, error) {
	var answer *agentv1.DescribePartitionsResponse
	err := c.do(ctx, call{op: "describe topic " + id.String(), make: func(ctx context.Context, conn grpcgo.ClientConnInterface) (err error) {
		answer, err = agentv1.NewTopicServiceClient(conn).DescribePartitions(ctx, &agentv1.DescribePartitionsRequest{TopicId: id[:]})
		return err
	}})
	if err != nil {
		return nil, err
	}
	states := make([]domain.PartitionState, 0, len(answer.GetPartitions()))
	for _, p := range answer.GetPartitions() {
		states = append(states, domain.PartitionState{
			Partition: domain.PartitionID(p.GetPartition()), LogStart: domain.Offset(p.GetLogStart()),
			HighWatermark: domain.Offset(p.GetHighWatermark()), Bytes: p.GetBytes(),
		})
	}
	return states, nil
}

// DeleteTopic implements ports.Topics.
func (c *Client) DeleteTopic(ctx context.Context, id domain.TopicID) error {
	return c.do(ctx, call{op: "delete topic " + id.String(), effect: true, make: func(ctx context.Context, conn grpcgo.ClientConnInterface) error {
		_, err := agentv1.NewTopicServiceClient(conn).DeleteTopic(ctx, &agentv1.DeleteTopicRequest{TopicId: id[:]})
		return err
	}})
}

// RegisterProducer implements ports.Producers.
func (c *Client) RegisterProducer(ctx context.Context, name string) (ports.ProducerSession, error) {
	const op = "register producer"
	var answer *agentv1.RegisterProducerResponse
	err := c.do(ctx, call{op: op, effect: true, make: func(ctx context.Context, conn grpcgo.ClientConnInterface) (err error) {
		answer, err = agentv1.NewProducerServiceClient(conn).RegisterProducer(ctx, &agentv1.RegisterProducerRequest{Name: []byte(name)})
		return err
	}})
	if err != nil {
		return ports.ProducerSession{}, err
	}
	if answer.GetProducerId() < 0 || answer.GetEpoch() < 0 || answer.GetEpoch() > 1<<15-1 {
		return ports.ProducerSession{}, nonsense(op, fmt.Errorf("producer id %d, epoch %d", answer.GetProducerId(), answer.GetEpoch()))
	}
	return ports.ProducerSession{ID: domain.ProducerID(answer.GetProducerId()), Epoch: domain.Epoch(answer.GetEpoch())}, nil
}

// AbandonBatch implements ports.Producers. The same call again gives the same
// answer, so it may go to several agents.
func (c *Client) AbandonBatch(ctx context.Context, b ports.AbandonedBatch) (commit.Outcome, error) {
	const op = "abandon batch"
	var answer *agentv1.AbandonBatchResponse
	err := c.do(ctx, call{op: op, effect: true, again: true, make: func(ctx context.Context, conn grpcgo.ClientConnInterface) (err error) {
		answer, err = agentv1.NewProducerServiceClient(conn).AbandonBatch(ctx, &agentv1.AbandonBatchRequest{
			ProducerId: int64(b.Producer), Epoch: int32(b.Epoch), TopicId: b.Topic[:], Partition: int32(b.Partition),
			FirstSequence: int32(b.FirstSequence), Records: b.Records,
		})
		return err
	}})
	if err != nil {
		return commit.Outcome{}, err
	}
	s, known := decodeStatus(answer.GetStatus())
	if !known || s == commit.Duplicate && answer.GetBaseOffset() < 0 {
		return commit.Outcome{}, nonsense(op, fmt.Errorf("status %d, offset %d", answer.GetStatus(), answer.GetBaseOffset()))
	}
	return commit.Outcome{Status: s, Base: domain.Offset(answer.GetBaseOffset())}, nil
}

// longestPoll is how long one call of Fetch waits at an agent; a longer wait
// takes several.
const longestPoll = 20 * time.Second

// Fetch implements ports.Fetcher.
func (c *Client) Fetch(ctx context.Context, r ports.FetchRequest) ([]ports.FetchedPartition, error) {
	if len(r.Partitions) == 0 {
		return nil, ctx.Err()
	}
	request := &agentv1.FetchRequest{MaxBytes: r.MaxBytes, Positions: make([]*agentv1.FetchPosition, len(r.Partitions))}
	for i := range r.Partitions {
		p := &r.Partitions[i]
		request.Positions[i] = &agentv1.FetchPosition{TopicId: p.Topic[:], Partition: int32(p.Partition), Offset: int64(p.Offset)}
	}
	for end := time.Now().Add(r.MaxWait); ; {
		wait := max(min(time.Until(end), longestPoll), 0)
		if r.MaxWait <= 0 || r.MaxBytes == 0 {
			wait = 0
		}
		request.MaxWaitMs = uint32((wait + time.Millisecond - 1) / time.Millisecond)
		got, err := c.fetch(ctx, request, wait)
		if err != nil {
			return nil, err
		}
		if wait == 0 || anything(got) || !time.Now().Before(end) {
			return got, nil
		}
	}
}

func (c *Client) fetch(ctx context.Context, request *agentv1.FetchRequest, wait time.Duration) ([]ports.FetchedPartition, error) {
	const op = "fetch"
	var answer fetched
	err := c.do(ctx, call{op: op, wait: wait, make: func(ctx context.Context, conn grpcgo.ClientConnInterface) error {
		answer = fetched{}
		return conn.Invoke(ctx, agentv1.LogService_Fetch_FullMethodName, request, &answer)
	}})
	if err != nil {
		return nil, err
	}
	if len(answer.partitions) != len(request.GetPositions()) {
		return nil, nonsense(op, fmt.Errorf("%d answers for %d partitions", len(answer.partitions), len(request.GetPositions())))
	}
	return answer.partitions, nil
}

func anything(got []ports.FetchedPartition) bool {
	for _, p := range got {
		if len(p.Batches) > 0 || p.Err != nil {
			return true
		}
	}
	return false
}

// OffsetAt implements ports.Fetcher.
func (c *Client) OffsetAt(ctx context.Context, key commit.PartitionKey, t time.Time) (domain.Offset, error) {
	const op = "find offset of a time"
	var answer *agentv1.OffsetAtResponse
	err := c.do(ctx, call{op: op, make: func(ctx context.Context, conn grpcgo.ClientConnInterface) (err error) {
		answer, err = agentv1.NewLogServiceClient(conn).OffsetAt(ctx, &agentv1.OffsetAtRequest{
			TopicId: key.Topic[:], Partition: int32(key.Partition), Seconds: t.Unix(), Nanos: int32(t.Nanosecond()),
		})
		return err
	}})
	if err != nil {
		return 0, err
	}
	if answer.GetOffset() < 0 {
		return 0, nonsense(op, fmt.Errorf("offset %d", answer.GetOffset()))
	}
	return domain.Offset(answer.GetOffset()), nil
}
