package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/admin"
)

// operated is an admin listener. Why the agent takes no work is in reason.
func operated(t *testing.T, token string) (s *admin.Server, reason *atomic.Value, drains *atomic.Int32) {
	t.Helper()
	reason, drains = new(atomic.Value), new(atomic.Int32)
	s, err := admin.Start(t.Context(), admin.Config{
		Address: "127.0.0.1:0", Token: token, Metrics: prometheus.NewRegistry(),
		Ready: func(context.Context) error {
			if why := reason.Load(); why != nil {
				return errors.New(why.(string))
			}
			return nil
		},
		Status: func(context.Context) any { return nil },
		Drain:  func() { drains.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, reason, drains
}

func TestAgentReady_EndsWellOnlyIfTheAgentTakesWork(t *testing.T) {
	c := newTool(t)
	s, reason, _ := operated(t, "")
	if got := c.ok("", "agent", "ready", s.Address()); got != s.Address()+" is ready\n" {
		t.Errorf("it printed %q", got)
	}
	// Where the agent listens at every address, as in the image, loopback is asked.
	_, port, err := net.SplitHostPort(s.Address())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"0.0.0.0", ""} {
		c.env = []string{"STREAMHOUSE_ADMIN=" + host + ":" + port}
		if got := c.ok("", "agent", "ready"); got != s.Address()+" is ready\n" {
			t.Errorf("for host %q it printed %q", host, got)
		}
	}
	c.env = []string{"STREAMHOUSE_ADMIN=none"}
	c.fails(exitUsage, "", "agent", "ready")
	reason.Store("draining")
	if said := c.fails(exitFail, "", "agent", "ready", s.Address()); !strings.Contains(said, "draining") {
		t.Errorf("of an agent that drains it says %q", said)
	}
	c.fails(exitUsage, "", "agent", "ready", "no address")
	c.fails(exitUsage, "", "agent", "ready", "one:1", "two:2")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if said := c.fails(exitFail, "", "agent", "ready", l.Addr().String()); !strings.Contains(said, "connection refused") {
		t.Errorf("of an agent that is not there it says %q", said)
	}
}

func TestAgentDrain_WantsTheToken(t *testing.T) {
	c := newTool(t)
	s, _, drains := operated(t, "secret-1")
	c.fails(exitUsage, "", "agent", "drain", s.Address())
	c.env = []string{"STREAMHOUSE_ADMIN_TOKEN=another"}
	if said := c.fails(exitFail, "", "agent", "drain", s.Address()); !strings.Contains(said, "want the admin token") {
		t.Errorf("with the wrong token it says %q", said)
	}
	if drains.Load() != 0 {
		t.Error("the agent drains for who has no token")
	}
	c.env = []string{"STREAMHOUSE_ADMIN_TOKEN=secret-1"}
	if got := c.ok("", "agent", "drain", s.Address()); got != s.Address()+" is draining\n" || drains.Load() != 1 {
		t.Errorf("it printed %q, and the agent drains %d times", got, drains.Load())
	}
}
