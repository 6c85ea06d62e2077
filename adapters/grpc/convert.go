package grpc

import (
	"time"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func encodeTopic(t domain.Topic) *agentv1.Topic {
	return &agentv1.Topic{
		Id: t.ID[:], Name: t.Name, Partitions: t.Partitions, Retention: encodeRetention(t.Retention),
		CreatedAtSeconds: t.CreatedAt.Unix(), CreatedAtNanos: int32(t.CreatedAt.Nanosecond()),
	}
}

func decodeTopic(t *agentv1.Topic) (domain.Topic, error) {
	id, err := decodeTopicID(t.GetId())
	if err != nil {
		return domain.Topic{}, err
	}
	return domain.Topic{
		ID: id, Name: t.GetName(), Partitions: t.GetPartitions(), Retention: decodeRetention(t.GetRetention()),
		CreatedAt: time.Unix(t.GetCreatedAtSeconds(), int64(t.GetCreatedAtNanos())).UTC(),
	}, nil
}

func encodeRetention(r domain.Retention) *agentv1.Retention {
	return &agentv1.Retention{AgeNs: int64(r.Age), Bytes: r.Bytes}
}

func decodeRetention(r *agentv1.Retention) domain.Retention {
	return domain.Retention{Age: time.Duration(r.GetAgeNs()), Bytes: r.GetBytes()}
}

func decodeTopicID(b []byte) (domain.TopicID, error) {
	var id domain.TopicID
	if len(b) != len(id) {
		return id, invalid("a topic id of %d bytes: want %d", len(b), len(id))
	}
	copy(id[:], b)
	return id, nil
}

func decodeKey(topic []byte, partition int32) (commit.PartitionKey, error) {
	id, err := decodeTopicID(topic)
	return commit.PartitionKey{Topic: id, Partition: domain.PartitionID(partition)}, err
}

func encodeAgent(a ports.Agent) *agentv1.Agent {
	return &agentv1.Agent{
		Id: a.ID[:], Group: a.Group, Zone: a.Zone, Address: a.Address, Version: a.Version, Draining: a.Draining,
		StartedAtNs: a.StartedAt.UnixNano(), SeenAtNs: a.SeenAt.UnixNano(),
	}
}

// decodeAgent gives what an agent says of another. It is not valid if it cannot
// be reached by it.
func decodeAgent(a *agentv1.Agent) (ports.Agent, error) {
	out := ports.Agent{
		AgentSpec: ports.AgentSpec{Group: a.GetGroup(), Zone: a.GetZone(), Address: a.GetAddress(), Version: a.GetVersion()},
		Draining:  a.GetDraining(), StartedAt: time.Unix(0, a.GetStartedAtNs()).UTC(), SeenAt: time.Unix(0, a.GetSeenAtNs()).UTC(),
	}
	if len(a.GetId()) != len(out.ID) {
		return out, invalid("an agent id of %d bytes: want %d", len(a.GetId()), len(out.ID))
	}
	copy(out.ID[:], a.GetId())
	return out, out.Validate()
}

func encodeAgentStatus(d ports.AgentStatus) *agentv1.DescribeAgentResponse {
	out := &agentv1.DescribeAgentResponse{
		Version: clip(d.Version), UptimeMs: d.Uptime.Milliseconds(), NotReady: clip(d.NotReady),
		Connections: int64(d.Connections), ProduceStreams: int64(d.Streams), HeldBytes: d.HeldBytes,
		Batches: d.Batches, BatchBytes: d.BatchBytes, RefusedBatches: d.Refused,
	}
	for _, l := range d.Loops {
		loop := &agentv1.Loop{Name: clip(l.Name), Failure: clip(l.Failure)}
		if l.Passed {
			loop.SinceSuccessMs = new(l.SinceSuccess.Milliseconds())
		}
		out.Loops = append(out.Loops, loop)
	}
	return out
}

func decodeAgentStatus(a *agentv1.DescribeAgentResponse) ports.AgentStatus {
	d := ports.AgentStatus{
		Version: a.GetVersion(), Uptime: time.Duration(a.GetUptimeMs()) * time.Millisecond, NotReady: a.GetNotReady(),
		Connections: int(a.GetConnections()), Streams: int(a.GetProduceStreams()), HeldBytes: a.GetHeldBytes(),
		Batches: a.GetBatches(), BatchBytes: a.GetBatchBytes(), Refused: a.GetRefusedBatches(),
	}
	for _, l := range a.GetLoops() {
		d.Loops = append(d.Loops, ports.AgentLoop{
			Name: l.GetName(), SinceSuccess: time.Duration(l.GetSinceSuccessMs()) * time.Millisecond,
			Passed: l.SinceSuccessMs != nil, Failure: l.GetFailure(),
		})
	}
	return d
}

// statuses are the answers of the log about a batch.
var statuses = map[commit.Status]agentv1.Status{
	commit.Accepted:           agentv1.Status_STATUS_ACCEPTED,
	commit.Duplicate:          agentv1.Status_STATUS_DUPLICATE,
	commit.DuplicateForgotten: agentv1.Status_STATUS_DUPLICATE_FORGOTTEN,
	commit.OutOfOrder:         agentv1.Status_STATUS_OUT_OF_ORDER,
	commit.Fenced:             agentv1.Status_STATUS_FENCED,
	commit.UnknownProducer:    agentv1.Status_STATUS_UNKNOWN_PRODUCER,
	commit.NoPartition:        agentv1.Status_STATUS_NO_PARTITION,
}

func encodeStatus(s commit.Status) agentv1.Status { return statuses[s] }

// decodeStatus returns the status, and false for one that this build does not
// know.
func decodeStatus(s agentv1.Status) (commit.Status, bool) {
	for ours, theirs := range statuses {
		if theirs == s {
			return ours, true
		}
	}
	return 0, false
}
