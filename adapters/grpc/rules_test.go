package grpc

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// TestRules_CoverEveryCall fails on a call that nobody has decided about, and on a
// rule for none.
func TestRules_CoverEveryCall(t *testing.T) {
	cfg := DefaultServerConfig()
	cfg.Reflection = true
	s, err := NewServer(backendOfNothing(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	found := make(map[string]bool)
	for service, info := range s.rpc.GetServiceInfo() {
		for _, m := range info.Methods {
			name := service + "/" + m.Name
			found[name] = true
			r, known := rules[name]
			if !known {
				t.Errorf("there is no rule for %s", name)
			} else if r.public == (len(r.scopes) > 0) {
				t.Errorf("the rule for %s says %+v", name, r)
			}
		}
	}
	for name := range rules {
		if !found[name] {
			t.Errorf("there is a rule for %s, which nobody serves", name)
		}
	}
	if len(found) < 18 {
		t.Errorf("only %d calls are served", len(found))
	}
}

// TestRules_CheckEveryTopic fails on a request with a topic whose rule does not
// look at it.
func TestRules_CheckEveryTopic(t *testing.T) {
	inside := map[string]bool{"Produce": true, "Fetch": true} // they judge item by item
	for _, d := range []protoreflect.FileDescriptor{
		agentv1.File_streamhouse_agent_v1_log_proto, agentv1.File_streamhouse_agent_v1_topic_proto,
		agentv1.File_streamhouse_agent_v1_producer_proto, agentv1.File_streamhouse_agent_v1_agent_proto,
	} {
		for i := range d.Services().Len() {
			service := d.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				fields := m.Input().Fields()
				about := fields.ByName("topic_id") != nil || service.Name() == "TopicService" && fields.ByName("name") != nil
				r := rules[string(service.FullName())+"/"+string(m.Name())]
				if about && r.check == nil && !inside[string(m.Name())] {
					t.Errorf("%s is about a topic that its rule does not check", m.FullName())
				}
			}
		}
	}
}

// nothing is a backend that is never asked.
type nothing struct {
	ports.Topics
	ports.Producers
	ports.AgentDiscovery
}

func (nothing) Append(context.Context, []ports.Batch, func(int, ports.AppendResult)) error {
	return domain.ErrClosed
}
func (nothing) Close(context.Context) error { return nil }

func (nothing) Fetch(context.Context, ports.FetchRequest) ([]ports.FetchedPartition, error) {
	return nil, domain.ErrClosed
}

func (nothing) OffsetAt(context.Context, commit.PartitionKey, time.Time) (domain.Offset, error) {
	return 0, domain.ErrClosed
}

func backendOfNothing() Backend {
	return Backend{Transport: nothing{}, Fetcher: nothing{}, Topics: nothing{}, Producers: nothing{}, Agents: nothing{}}
}
