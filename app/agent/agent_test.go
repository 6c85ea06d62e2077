package agent_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/agent"
	"github.com/streamhouse/streamhouse/ports"
)

var spec = ports.AgentSpec{Group: "prod", Zone: "a", Address: "127.0.0.1:7070", Version: "1.0"}

// unreliable fails every call while down is set.
type unreliable struct {
	ports.AgentDiscovery
	down  atomic.Bool
	beats atomic.Int64
}

var errDown = errors.New("down")

func (u *unreliable) Heartbeat(ctx context.Context, id ports.AgentID, draining bool) error {
	u.beats.Add(1)
	if u.down.Load() {
		return errDown
	}
	return u.AgentDiscovery.Heartbeat(ctx, id, draining)
}

func start(t *testing.T) (*unreliable, *agent.Agent) {
	t.Helper()
	u := &unreliable{AgentDiscovery: memory.NewAgents()}
	a, err := agent.Start(t.Context(), u, spec)
	if err != nil {
		t.Fatal(err)
	}
	return u, a
}

func list(t *testing.T, d ports.AgentDiscovery) []ports.Agent {
	t.Helper()
	agents, err := d.Agents(t.Context(), "prod")
	if err != nil {
		t.Fatal(err)
	}
	return agents
}

func TestAgent_StaysInTheListUntilItStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, a := start(t)
		for range 20 {
			time.Sleep(ports.AgentTTL / 2)
			if got := list(t, u); len(got) != 1 || got[0].AgentSpec != spec || got[0].Draining {
				t.Fatalf("the list is %+v", got)
			}
		}
		if n := u.beats.Load(); n > 80 {
			t.Errorf("%d heartbeats in ten times the time that an entry lasts", n)
		}
		for range 2 {
			if err := a.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if got := list(t, u); len(got) != 0 {
			t.Errorf("after leaving the list is %+v", got)
		}
	})
}

func TestDrain_IsInTheListAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, a := start(t)
		a.Drain()
		a.Drain()
		synctest.Wait()
		if got := list(t, u); len(got) != 1 || !got[0].Draining || !a.Status().Draining {
			t.Errorf("the list is %+v", got)
		}
		if err := a.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAgent_ThatWasForgottenRegistersAgainAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, a := start(t)
		first := a.Status().ID
		u.down.Store(true)
		a.Drain()
		time.Sleep(2 * ports.AgentTTL)
		if s := a.Status(); !errors.Is(s.Err, errDown) || time.Since(s.HeardAt) < ports.AgentTTL {
			t.Errorf("status is %+v", s)
		}
		if got := list(t, u); len(got) != 0 {
			t.Errorf("the list is %+v", got)
		}
		u.down.Store(false)
		time.Sleep(ports.AgentHeartbeat)
		got := list(t, u)
		if s := a.Status(); len(got) != 1 || got[0].ID == first || got[0].ID != s.ID || !got[0].Draining || s.Err != nil {
			t.Errorf("the list is %+v, the status %+v", got, s)
		}
		if err := a.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestStart_FailsWhereTheListCannotBeReached(t *testing.T) {
	m := memory.NewAgents()
	if _, err := agent.Start(t.Context(), m, ports.AgentSpec{Group: "no/good"}); err == nil {
		t.Error("an agent without an address is registered")
	}
}
