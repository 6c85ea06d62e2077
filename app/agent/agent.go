// Package agent keeps an agent in the list by which clients find it: it registers,
// says that it is there, says when it drains, and leaves.
//
// The list is a hint. An agent that cannot reach it serves all the same, and one that is in
// it no more is only found no more.
package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/ports"
)

// leaveTimeout bounds the last word of an agent that stops.
const leaveTimeout = 5 * time.Second

// Agent is one entry in the list of agents. Its methods may be called from
// several goroutines.
//
// Goroutines: one, from Start to Stop.
type Agent struct {
	discovery ports.AgentDiscovery
	spec      ports.AgentSpec

	mu       sync.Mutex // guards all below
	entry    ports.Agent
	draining bool
	seenAt   time.Time // the last heartbeat that went through
	err      error     // why the last one did not, nil if it did

	kick chan struct{} // holds the one wish for a heartbeat at once
	turn chan struct{} // holds the one right to send a heartbeat
	stop context.CancelFunc
	done chan struct{}
}

// Start registers the agent and keeps it registered until Stop. The error is
// that of the first registration.
func Start(ctx context.Context, discovery ports.AgentDiscovery, spec ports.AgentSpec) (*Agent, error) {
	entry, err := discovery.Register(ctx, spec)
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	a := &Agent{
		discovery: discovery, spec: spec, entry: entry, seenAt: time.Now(),
		kick: make(chan struct{}, 1), turn: make(chan struct{}, 1), stop: stop, done: make(chan struct{}),
	}
	go a.run(running)
	return a, nil
}

// Status is how an agent's entry is doing.
type Status struct {
	ports.Agent
	// HeardAt is when the list last took a heartbeat, on this process's clock.
	HeardAt time.Time
	// Err is why the last heartbeat did not get through, nil if it did.
	Err error
}

// Status returns how the entry is doing.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Status{Agent: a.entry, HeardAt: a.seenAt, Err: a.err}
	s.Draining = a.draining
	return s
}

// Drain tells the list, as soon as it can be reached, that the agent takes
// nothing new.
func (a *Agent) Drain() {
	a.mu.Lock()
	a.draining = true
	a.mu.Unlock()
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// Stop ends the heartbeats and leaves the list. It may be called twice. If the
// list cannot be reached, the entry ends by itself after ports.AgentTTL; the error says so.
func (a *Agent) Stop(ctx context.Context) error {
	a.stop()
	<-a.done
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	return a.discovery.Leave(ctx, a.Status().ID)
}

func (a *Agent) run(ctx context.Context) {
	defer close(a.done)
	for {
		timer := time.NewTimer(ports.AgentHeartbeat - rand.N(ports.AgentHeartbeat/4))
		select {
		case <-timer.C:
		case <-a.kick:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
		_ = a.Beat(ctx) // Status tells
	}
}

// Beat says that the agent is there; if it was forgotten it registers again.
// Beside the heartbeats that come by themselves it is for who wants to know whether the list can be
// reached. It must not be called after Stop.
func (a *Agent) Beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ports.AgentHeartbeat)
	defer cancel()
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return ports.MetadataError("send a heartbeat", ports.Transient, ctx.Err())
	}
	s := a.Status()
	err := a.discovery.Heartbeat(ctx, s.ID, s.Draining)
	entry := s.Agent
	if errors.Is(err, ports.ErrAgentNotFound) {
		entry, err = a.discovery.Register(ctx, a.spec)
		if err == nil && s.Draining {
			err = a.discovery.Heartbeat(ctx, entry.ID, true)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err = err; err == nil {
		a.entry, a.seenAt = entry, time.Now()
	}
	return err
}
