package grpc_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/ports"
)

func TestDescribeAgent_AsksTheOneAtTheAddress(t *testing.T) {
	c := newCluster(t, tcp{})
	loops := []ports.AgentLoop{{Name: "retention", Passed: true, SinceSuccess: time.Minute}, {Name: "sweep", Failure: "bucket is away"}}
	c.start("")
	asked := c.start("", func(b *grpc.Backend, cfg *grpc.ServerConfig) {
		cfg.Version = "v2"
		b.Describe = func() ports.AgentStatus { return ports.AgentStatus{Loops: loops} }
	})
	asked.server.SetReady(errors.New("the store is away")) // it tells all the same
	got, err := grpc.DescribeAgent(t.Context(), grpc.DefaultClientConfig(), asked.addr)
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != "v2" || got.NotReady != "the store is away" || !reflect.DeepEqual(got.Loops, loops) || got.Connections != 1 {
		t.Errorf("the agent says %+v", got)
	}
	asked.kill()
	if _, err := grpc.DescribeAgent(t.Context(), grpc.DefaultClientConfig(), asked.addr); ports.KindOf(err) != ports.Transient {
		t.Errorf("an agent that is gone: %v", err)
	}
}

func TestDescribeAgent_IsForAdministrators(t *testing.T) {
	c := newCluster(t, tcp{})
	a := c.start("", withTokens(t))
	for token, want := range map[string]error{onlyAdmin: nil, onlyReads: grpc.ErrPermissionDenied, onlyA: grpc.ErrPermissionDenied, "": grpc.ErrUnauthenticated} {
		cfg := grpc.DefaultClientConfig()
		cfg.Token = token
		if _, err := grpc.DescribeAgent(t.Context(), cfg, a.addr); !errors.Is(err, want) {
			t.Errorf("with the token %q: %v, want %v", token, err, want)
		}
	}
	cfg := grpc.DefaultClientConfig()
	cfg.Token = onlyAdmin
	if _, err := grpc.DescribeAgent(t.Context(), cfg, "192.0.2.1:7070"); err == nil || ports.KindOf(err) != ports.Definite {
		t.Errorf("a token in the clear to another machine: %v", err)
	}
}
