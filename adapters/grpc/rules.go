package grpc

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/ports"
)

// rule says who may make a call.
type rule struct {
	// public lets everybody make the call.
	public bool
	// always answers the call though the agent is not ready.
	always bool
	// scopes are those of which the caller needs one.
	scopes []Scope
	// check refuses a request for a topic that the caller may not touch. Nil: the
	// request names none, or the handler asks for each of its items.
	check func(ctx context.Context, a *access, request any) error
}

var (
	readers  = []Scope{ScopeRead}
	writers  = []Scope{ScopeWrite}
	admins   = []Scope{ScopeAdmin}
	everyone = []Scope{ScopeRead, ScopeWrite, ScopeAdmin}
)

// rules is the table over every call there is. A call that is not in it is
// refused, once there is an Authorizer; a test fails if a service has one.
var rules = map[string]rule{
	"streamhouse.agent.v1.LogService/Produce":  {scopes: writers}, // batch by batch
	"streamhouse.agent.v1.LogService/Fetch":    {scopes: readers}, // partition by partition
	"streamhouse.agent.v1.LogService/OffsetAt": {scopes: readers, check: byID[*agentv1.OffsetAtRequest]},

	"streamhouse.agent.v1.TopicService/CreateTopic":        {scopes: admins, check: byName[*agentv1.CreateTopicRequest]},
	"streamhouse.agent.v1.TopicService/GetTopic":           {scopes: everyone, check: byName[*agentv1.GetTopicRequest]},
	"streamhouse.agent.v1.TopicService/ListTopics":         {scopes: everyone}, // those that the caller may touch
	"streamhouse.agent.v1.TopicService/DescribePartitions": {scopes: everyone, check: byID[*agentv1.DescribePartitionsRequest]},
	"streamhouse.agent.v1.TopicService/DeleteTopic":        {scopes: admins, check: byID[*agentv1.DeleteTopicRequest]},
	"streamhouse.agent.v1.TopicService/WidenTopic":         {scopes: admins, check: byID[*agentv1.WidenTopicRequest]},
	"streamhouse.agent.v1.TopicService/SetRetention":       {scopes: admins, check: byID[*agentv1.SetRetentionRequest]},

	"streamhouse.agent.v1.ProducerService/RegisterProducer": {scopes: writers},
	"streamhouse.agent.v1.ProducerService/AbandonBatch":     {scopes: writers, check: byID[*agentv1.AbandonBatchRequest]},

	"streamhouse.agent.v1.AgentService/ListAgents":    {scopes: everyone, always: true}, // it leads to those that are
	"streamhouse.agent.v1.AgentService/DescribeAgent": {scopes: admins, always: true, check: ofAll},

	grpc_health_v1.Health_ServiceDesc.ServiceName + "/Check": {public: true, always: true},
	grpc_health_v1.Health_ServiceDesc.ServiceName + "/List":  {public: true, always: true},
	grpc_health_v1.Health_ServiceDesc.ServiceName + "/Watch": {public: true, always: true},

	"grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {scopes: admins},
	"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {scopes: admins},
}

// byName checks the topic that the request names.
func byName[R interface{ GetName() []byte }](_ context.Context, a *access, request any) error {
	return a.name(string(request.(R).GetName()))
}

// ofAll lets through who may touch every topic: what is asked for tells of all.
func ofAll(_ context.Context, a *access, _ any) error {
	if slices.Contains(a.who.Topics, "") {
		return nil
	}
	return agentError("check topics", ports.Definite, fmt.Errorf("%w: %q may not touch all topics", ErrPermissionDenied, a.who.Name))
}

// byID checks the topic whose id the request has.
func byID[R interface{ GetTopicId() []byte }](ctx context.Context, a *access, request any) error {
	id, err := decodeTopicID(request.(R).GetTopicId())
	if err != nil {
		return err
	}
	return a.id(ctx, id)
}
