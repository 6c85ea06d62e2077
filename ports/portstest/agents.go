package portstest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// AgentsOption tells TestAgentDiscovery what more it may do with a list.
type AgentsOption func(*agentsSuite)

// AgentsInBubble runs every case in a testing/synctest bubble, whose clock is
// the list's clock. Only for lists without real I/O.
func AgentsInBubble() AgentsOption {
	return func(x *agentsSuite) {
		x.bubble = true
		x.advance = func(_ *testing.T, _ ports.AgentDiscovery, d time.Duration) { time.Sleep(d) }
	}
}

// AdvanceAgentsWith moves the list's clock forward by d. Without it and
// AgentsInBubble, the cases that need time to pass are not run.
func AdvanceAgentsWith(advance func(t *testing.T, a ports.AgentDiscovery, d time.Duration)) AgentsOption {
	return func(x *agentsSuite) { x.advance = advance }
}

// ShareAgentsWith opens the list a a second time, as another process would. It
// is closed at the end of t. Without it the cases use one value.
func ShareAgentsWith(share func(t *testing.T, a ports.AgentDiscovery) ports.AgentDiscovery) AgentsOption {
	return func(x *agentsSuite) { x.share = share }
}

// TestAgentDiscovery checks that the lists that open returns keep the contract of
// ports.AgentDiscovery. Open makes an empty list and arranges that it is removed at the
// end of t. It is called once a case.
func TestAgentDiscovery(t *testing.T, open func(t *testing.T) ports.AgentDiscovery, options ...AgentsOption) {
	x := &agentsSuite{share: func(_ *testing.T, a ports.AgentDiscovery) ports.AgentDiscovery { return a }}
	for _, o := range options {
		o(x)
	}
	cases := []struct {
		must  string
		timed bool
		run   func(*agentsUnderTest)
	}{
		{"a registered agent is listed as it registered", false, registeredIsListed},
		{"agents are listed by group, or all of them", false, listedByGroup},
		{"agents are listed in the order in which they started", false, listedInOrder},
		{"specifications that are not valid are refused with every fault", false, badSpecsAreRefused},
		{"specifications at the limits are accepted", false, oddSpecsAreAccepted},
		{"a draining agent stays listed, as draining", false, drainingIsListed},
		{"an agent that leaves is gone at once, and may leave again", false, leavingIsAtOnce},
		{"a heartbeat of an unknown agent is refused", false, unknownHeartbeat},
		{"two agents may have one address", false, oneAddressTwice},
		{"agents that register at the same time have ids of their own", false, registeringRace},
		{"a list that is read with an ended context says so", false, endedContext},
		{"an agent without heartbeats is gone after AgentTTL", true, silentIsGone},
		{"heartbeats keep an agent listed", true, heartbeatsKeep},
		{"an agent that was gone registers again under another id", true, goneRegistersAgain},
		{"agents stay in order of their start whatever their heartbeats", true, orderIsOfStart},
	}
	for _, c := range cases {
		if c.timed && x.advance == nil {
			continue
		}
		t.Run(c.must, func(t *testing.T) {
			run := func(t *testing.T) {
				a := open(t)
				c.run(&agentsUnderTest{T: t, AgentDiscovery: a, other: x.share(t, a), suite: x})
			}
			if x.bubble {
				synctest.Test(t, run)
				return
			}
			run(t)
		})
	}
}

type agentsSuite struct {
	advance func(*testing.T, ports.AgentDiscovery, time.Duration)
	share   func(*testing.T, ports.AgentDiscovery) ports.AgentDiscovery
	bubble  bool
}

// agentsUnderTest is a list and the test it serves. Other is the same list, as
// another process sees it.
type agentsUnderTest struct {
	*testing.T
	ports.AgentDiscovery
	other ports.AgentDiscovery
	suite *agentsSuite
}

func (a *agentsUnderTest) ok(err error) {
	a.Helper()
	if err != nil {
		a.Fatalf("unexpected error: %v", err)
	}
}

func (a *agentsUnderTest) pass(d time.Duration) { a.suite.advance(a.T, a.AgentDiscovery, d) }

func (a *agentsUnderTest) register(group, address string) ports.Agent {
	a.Helper()
	got, err := a.Register(a.Context(), ports.AgentSpec{Group: group, Zone: "zone-1", Address: address, Version: "v1.2.3"})
	a.ok(err)
	return got
}

// listed demands exactly these agents, in this order, as both sides see them.
func (a *agentsUnderTest) listed(group string, want ...ports.Agent) []ports.Agent {
	a.Helper()
	var list []ports.Agent
	for _, side := range []ports.AgentDiscovery{a.other, a.AgentDiscovery} {
		var err error
		list, err = side.Agents(a.Context(), group)
		a.ok(err)
		if !slices.EqualFunc(list, want, func(x, y ports.Agent) bool { return x.ID == y.ID }) {
			a.Fatalf("group %q lists %v, want %v", group, list, want)
		}
	}
	return list
}

func (a *agentsUnderTest) beat(agent ports.Agent, draining bool) {
	a.Helper()
	a.ok(a.Heartbeat(a.Context(), agent.ID, draining))
}

// gone demands that the agent's heartbeat is refused.
func (a *agentsUnderTest) gone(id ports.AgentID) {
	a.Helper()
	err := a.Heartbeat(a.Context(), id, false)
	if !errors.Is(err, ports.ErrAgentNotFound) || ports.KindOf(err) != ports.Definite {
		a.Fatalf("heartbeat: %v, want a definite ErrAgentNotFound", err)
	}
}

func registeredIsListed(a *agentsUnderTest) {
	a.listed("")
	spec := ports.AgentSpec{Group: "default", Zone: "zone-1", Address: "127.0.0.1:7070", Version: "v1.2.3"}
	got, err := a.Register(a.Context(), spec)
	a.ok(err)
	if got.AgentSpec != spec || got.Draining || domain.UUID(got.ID).IsZero() {
		a.Fatalf("registered as %+v", got)
	}
	if got.StartedAt.IsZero() || !got.SeenAt.Equal(got.StartedAt) {
		a.Fatalf("started at %s, seen at %s", got.StartedAt, got.SeenAt)
	}
	listed := a.listed("default", got)[0]
	if listed.AgentSpec != spec || listed.Draining || !listed.StartedAt.Equal(got.StartedAt) || !listed.SeenAt.Equal(got.SeenAt) {
		a.Fatalf("listed as %+v, registered as %+v", listed, got)
	}
}

func listedByGroup(a *agentsUnderTest) {
	one := a.register("default", "127.0.0.1:1")
	two := a.register("Default", "127.0.0.1:2")
	a.listed("default", one)
	a.listed("Default", two)
	a.listed("other")
	all := []ports.Agent{one, two}
	slices.SortFunc(all, ports.CompareAgents)
	a.listed("", all...)
	for _, group := range []string{".", "a/b", "a\x00", "%", strings.Repeat("g", 250)} {
		if _, err := a.Agents(a.Context(), group); !errors.Is(err, domain.ErrInvalidName) {
			a.Errorf("group %.20q: %v, want ErrInvalidName", group, err)
		}
	}
}

func listedInOrder(a *agentsUnderTest) {
	var all []ports.Agent
	for range 20 {
		all = append(all, a.register("default", "127.0.0.1:1"))
	}
	slices.SortFunc(all, ports.CompareAgents)
	a.listed("default", all...)
}

func badSpecsAreRefused(a *agentsUnderTest) {
	good := ports.AgentSpec{Group: "default", Address: "127.0.0.1:1"}
	bad := map[string]func(*ports.AgentSpec){
		"no group":        func(s *ports.AgentSpec) { s.Group = "" },
		"group of dots":   func(s *ports.AgentSpec) { s.Group = ".." },
		"zone with slash": func(s *ports.AgentSpec) { s.Zone = "a/b" },
		"long zone":       func(s *ports.AgentSpec) { s.Zone = strings.Repeat("z", 250) },
		"no address":      func(s *ports.AgentSpec) { s.Address = "" },
		"long address":    func(s *ports.AgentSpec) { s.Address = strings.Repeat("1", 256) },
		"broken address":  func(s *ports.AgentSpec) { s.Address = "127.0.0.1\n:1" },
		"NUL in address":  func(s *ports.AgentSpec) { s.Address = "127.0.0.1\x00:1" },
		"long version":    func(s *ports.AgentSpec) { s.Version = strings.Repeat("1", 250) },
		"bad version":     func(s *ports.AgentSpec) { s.Version = "\xff" },
	}
	for name, spoil := range bad {
		spec := good
		spoil(&spec)
		_, err := a.Register(a.Context(), spec)
		if err == nil || ports.KindOf(err) != ports.Definite {
			a.Errorf("%s: %v, want a definite error", name, err)
		}
	}
	_, err := a.Register(a.Context(), ports.AgentSpec{Group: "/", Zone: "/"})
	if !errors.Is(err, domain.ErrInvalidName) || !errors.Is(err, domain.ErrConfig) {
		a.Errorf("several faults: %v, want all of them", err)
	}
	a.listed("")
}

func oddSpecsAreAccepted(a *agentsUnderTest) {
	spec := ports.AgentSpec{
		Group: strings.Repeat("g", 249), Zone: strings.Repeat("z", 249),
		Address: strings.Repeat("1", 255), Version: strings.Repeat("v", 249),
	}
	got, err := a.Register(a.Context(), spec)
	a.ok(err)
	if listed := a.listed(spec.Group, got); listed[0].AgentSpec != spec {
		a.Errorf("listed as %+v", listed[0])
	}
	least, err := a.Register(a.Context(), ports.AgentSpec{Group: "g", Address: "a"})
	a.ok(err)
	a.listed("g", least)
}

func drainingIsListed(a *agentsUnderTest) {
	agent := a.register("default", "127.0.0.1:1")
	for _, draining := range []bool{true, true, false} {
		a.beat(agent, draining)
		if got := a.listed("default", agent)[0]; got.Draining != draining {
			a.Fatalf("listed as %+v after a heartbeat with draining %v", got, draining)
		}
	}
}

func leavingIsAtOnce(a *agentsUnderTest) {
	stays, leaves := a.register("default", "127.0.0.1:1"), a.register("default", "127.0.0.1:2")
	for range 2 {
		a.ok(a.Leave(a.Context(), leaves.ID))
		a.listed("default", stays)
		a.gone(leaves.ID)
	}
}

func unknownHeartbeat(a *agentsUnderTest) {
	a.gone(ports.AgentID{})
	a.gone(ports.AgentID{1, 2, 3})
	a.listed("")
}

func oneAddressTwice(a *agentsUnderTest) {
	first, second := a.register("default", "127.0.0.1:1"), a.register("default", "127.0.0.1:1")
	if first.ID == second.ID {
		a.Fatal("two agents have one id")
	}
	both := []ports.Agent{first, second}
	slices.SortFunc(both, ports.CompareAgents)
	a.listed("default", both...)
	a.ok(a.Leave(a.Context(), first.ID))
	a.listed("default", second)
}

func registeringRace(a *agentsUnderTest) {
	const many = 16
	agents := make([]ports.Agent, many)
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			side := a.AgentDiscovery
			if i%2 == 1 {
				side = a.other
			}
			agents[i], errs[i] = side.Register(a.Context(), ports.AgentSpec{Group: "default", Address: "127.0.0.1:1"})
		})
	}
	wg.Wait()
	a.ok(errors.Join(errs...))
	slices.SortFunc(agents, ports.CompareAgents)
	a.listed("default", agents...)
}

func endedContext(a *agentsUnderTest) {
	agent := a.register("default", "127.0.0.1:1")
	m := &metadataUnderTest{T: a.T}
	_, register := a.Register(m.cancelled(), ports.AgentSpec{Group: "default", Address: "127.0.0.1:1"})
	_, list := a.Agents(m.cancelled(), "default")
	for _, err := range []error{register, list, a.Heartbeat(m.cancelled(), agent.ID, true), a.Leave(m.cancelled(), agent.ID)} {
		if err == nil {
			a.Errorf("a call with an ended context succeeded")
		}
	}
	if got := a.listed("default", agent)[0]; got.Draining {
		a.Errorf("a heartbeat with an ended context was taken: %+v", got)
	}
}

func silentIsGone(a *agentsUnderTest) {
	agent := a.register("default", "127.0.0.1:1")
	a.pass(ports.AgentTTL - time.Second)
	a.listed("default", agent)
	a.pass(2 * time.Second)
	a.listed("default")
	a.listed("")
	a.gone(agent.ID)
	a.ok(a.Leave(a.Context(), agent.ID))
}

func heartbeatsKeep(a *agentsUnderTest) {
	agent := a.register("default", "127.0.0.1:1")
	for range 5 {
		a.pass(ports.AgentTTL - time.Second)
		a.beat(agent, false)
	}
	got := a.listed("default", agent)[0]
	if !got.StartedAt.Equal(agent.StartedAt) {
		a.Errorf("started at %s, registered at %s", got.StartedAt, agent.StartedAt)
	}
	if age := got.SeenAt.Sub(got.StartedAt); age < 5*(ports.AgentTTL-time.Second) {
		a.Errorf("seen %s after its start", age)
	}
}

func goneRegistersAgain(a *agentsUnderTest) {
	old := a.register("default", "127.0.0.1:1")
	a.pass(ports.AgentTTL)
	a.gone(old.ID)
	again := a.register("default", "127.0.0.1:1")
	if again.ID == old.ID {
		a.Fatal("the id is used again")
	}
	a.listed("default", again)
	a.gone(old.ID)
}

func orderIsOfStart(a *agentsUnderTest) {
	first := a.register("default", "127.0.0.1:1")
	a.pass(time.Second)
	second := a.register("default", "127.0.0.1:2")
	a.pass(time.Second)
	a.beat(first, false)
	a.listed("default", first, second)
}
