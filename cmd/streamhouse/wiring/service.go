package wiring

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/prom"
	"github.com/streamhouse/streamhouse/app/agent"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/admin"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/ports"
)

// bucketFlushInterval is how long batches wait for company where each PUT costs
// money and tens of milliseconds.
const bucketFlushInterval = 250 * time.Millisecond

// Service is a running agent. Close ends it: it leaves the list, tells clients
// to go elsewhere, finishes and answers what it has accepted.
type Service struct {
	// Address is where it serves clients, Admin where its operators, "" if nowhere.
	Address, Admin string
	// Failed gets why the service cannot go on, once.
	Failed <-chan error

	server  *grpc.Server
	entry   atomic.Pointer[agent.Agent] // nil until it is in the list
	janitor *janitor.Janitor
	health  *agent.Health
	began   time.Time
	version string
	asked   chan struct{} // closed when an operator asks for the drain
	once    sync.Once
}

// DrainAsked is closed when an operator asks the agent, at its admin listener,
// to drain.
func (s *Service) DrainAsked() <-chan struct{} { return s.asked }

func (s *Service) askDrain() { s.once.Do(func() { close(s.asked) }) }

// telemetryOf gives an agent's parts something to tell.
func (b *builder) telemetryOf() {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	b.metrics = registry
	b.told = append(b.told, prom.New(registry))
	b.join()
}

// newService starts the parts of an agent in the order in which they need each
// other; stop ends them in the reverse order.
func (b *builder) newService(m ports.MetadataStore, s ports.SegmentStore) (*Service, error) {
	discovery, err := discoveryOf(m)
	if err != nil {
		return nil, err
	}
	b.telemetryOf()
	failures := make(chan error, 1) // holds the one reason to end
	svc := &Service{began: time.Now(), version: b.cfg.Version, Failed: failures, asked: make(chan struct{})}
	// Health and the janitor must see the objects as they are.
	b.newHealth(svc, s)
	j, err := b.newJanitor(m, s)
	if err != nil {
		return nil, err
	}
	s = b.newCache(s)
	writer, err := b.newAgentWriter(m, svc.health.Segments(s))
	if err != nil {
		return nil, err
	}
	b.background("janitor", j.Run)
	svc.janitor = j
	svc.server, err = b.newServer(grpc.Backend{
		Transport: writer, Fetcher: b.newFetcher(m, s), Topics: svc.health.Topics(m), Producers: svc.health.Producers(m),
		Agents: discovery, Describe: svc.describe,
	})
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(b.ctx, "tcp", b.cfg.Serve.Listen)
	if err != nil {
		return nil, failed("listen at "+b.cfg.Serve.Listen, taken(err, "--listen"))
	}
	svc.Address = listener.Addr().String()
	if err := b.newAdmin(svc); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	b.serve(svc.server, listener, failures)
	if err := b.register(svc, svc.health.Discovery(discovery)); err != nil {
		return nil, err
	}
	b.background("health", svc.health.Run) // ends before the entry that it looks at
	return svc, nil
}

// newAgentWriter is the direct-write transport with the patience of an agent.
func (b *builder) newAgentWriter(m ports.MetadataStore, s ports.SegmentStore) (ports.Transport, error) {
	cfg := b.cfg.Writer
	cfg.FlushBytes = int(b.cfg.Serve.FlushBytes)
	cfg.InFlightBytes = 2 * grpc.DefaultServerConfig().TotalBytes // the server must never wait for room
	if cfg.FlushInterval = b.cfg.Serve.FlushInterval; cfg.FlushInterval < 0 {
		cfg.FlushInterval = 0
		if schemeOf(b.cfg.Segments) == "s3" {
			cfg.FlushInterval = bucketFlushInterval
		}
	}
	w, err := direct.NewWriter(m, s, b.cfg.Telemetry, cfg)
	if err != nil {
		return nil, failed("start direct writer", err)
	}
	b.started("direct writer", w.Close)
	return w, nil
}

func (b *builder) newServer(backend grpc.Backend) (*grpc.Server, error) {
	cfg := grpc.DefaultServerConfig()
	cfg.Version, cfg.Reflection, cfg.Log = b.cfg.Version, b.cfg.Serve.Reflection, b.cfg.Log
	var err error
	if cfg.TLS, err = serverTLS(b.cfg.Serve.TLS); err != nil {
		return nil, failed("read the TLS files", err)
	}
	if path := b.cfg.Serve.Tokens; path != "" {
		tokens, err := settings.LoadTokens(path)
		if err != nil {
			return nil, failed("read the tokens", err)
		}
		cfg.Authorizer = tokens
	}
	server, err := grpc.NewServer(backend, cfg)
	if err != nil {
		return nil, failed("start agent server", err)
	}
	return server, nil
}

// serve serves until the service is drained. That takes what ctx of the stop
// allows, and is what ends first.
func (b *builder) serve(server *grpc.Server, l net.Listener, failures chan<- error) {
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(l); err != nil {
			failures <- fmt.Errorf("serve clients: %w", err)
		}
	})
	b.started("agent server", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, b.cfg.Serve.DrainTimeout)
		defer cancel()
		err := server.Drain(ctx)
		serving.Wait()
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("not everything was finished within %s; clients send the rest again elsewhere", b.cfg.Serve.DrainTimeout)
		}
		return err
	})
}

// register puts the agent into the list, and takes it out before it is drained.
func (b *builder) register(svc *Service, discovery ports.AgentDiscovery) error {
	address := b.cfg.Serve.Advertise
	if address == "" {
		address = svc.Address
	}
	if host, _, _ := net.SplitHostPort(address); host == "" || net.ParseIP(host).IsUnspecified() {
		return failed("enter the list of agents", fmt.Errorf("%s is no address that clients can reach: give --advertise HOST:PORT", address))
	}
	spec := ports.AgentSpec{Group: b.cfg.Serve.Group, Zone: b.cfg.Serve.Zone, Address: address, Version: listed(b.cfg.Version)}
	entry, err := agent.Start(b.ctx, &loggedDiscovery{AgentDiscovery: discovery, log: b.cfg.Log}, spec)
	if err != nil {
		return failed("enter the list of agents", err)
	}
	svc.entry.Store(entry)
	b.started("entry in the list of agents", entry.Stop)
	return nil
}

// listed is a version as the list takes it.
func listed(version string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, version)
}

func (b *builder) newAdmin(svc *Service) error {
	if b.cfg.Serve.Admin == "" {
		return nil
	}
	s, err := admin.Start(b.ctx, admin.Config{
		Address: b.cfg.Serve.Admin, Token: b.cfg.Serve.AdminToken, Metrics: b.metrics,
		Ready:  func(context.Context) error { return svc.ready() },
		Status: func(context.Context) any { return svc.Status() },
		Drain:  svc.askDrain,
	})
	if err != nil {
		return failed("listen at "+b.cfg.Serve.Admin, taken(err, "--admin"))
	}
	svc.Admin = s.Address()
	b.started("admin listener", s.Close)
	return nil
}

// background runs f until the part is stopped.
func (b *builder) background(name string, f func(context.Context)) {
	ctx, stop := context.WithCancel(context.WithoutCancel(b.ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	b.started(name, func(context.Context) error {
		stop()
		<-done
		return nil
	})
}

// ready says why the agent should get no work.
func (s *Service) ready() error {
	entry := s.entry.Load()
	if entry == nil {
		return errors.New("starting")
	}
	if entry.Status().Draining {
		return errors.New("draining")
	}
	return s.health.Reason()
}

// describe is what the server tells of the agent besides what it knows itself.
func (s *Service) describe() (d ports.AgentStatus) {
	if err := s.ready(); err != nil {
		d.NotReady = err.Error()
	}
	for _, l := range s.janitor.Status() {
		loop := ports.AgentLoop{Name: l.Loop, Passed: !l.LastSuccess.IsZero()}
		if loop.Passed {
			loop.SinceSuccess = time.Since(l.LastSuccess)
		}
		if l.Err != nil {
			loop.Failure = l.Err.Error()
		}
		d.Loops = append(d.Loops, loop)
	}
	return d
}

// Drain says in the list that the agent takes nothing new. Close follows.
func (s *Service) Drain() { s.entry.Load().Drain() }

// ServiceStatus is what an agent says of itself.
type ServiceStatus struct {
	ID            string           `json:"id"`
	Group         string           `json:"group"`
	Zone          string           `json:"zone,omitempty"`
	Address       string           `json:"address"`
	Version       string           `json:"version"`
	UptimeSeconds float64          `json:"uptime_seconds"`
	Ready         bool             `json:"ready"`
	NotReady      string           `json:"not_ready,omitempty"`
	Connections   int              `json:"connections"`
	Streams       int              `json:"produce_streams"`
	HeldBytes     int64            `json:"held_bytes"`
	Batches       int64            `json:"batches"`
	Refused       int64            `json:"refused_batches"`
	Bad           int64            `json:"bad_requests"`
	Loops         []loopStatusJSON `json:"loops"`
}

type loopStatusJSON struct {
	Loop        string   `json:"loop"`
	LastSuccess *float64 `json:"seconds_since_success"`
	Error       string   `json:"error,omitempty"`
}

// Status returns what the agent is and how it is doing.
func (s *Service) Status() ServiceStatus {
	stats := s.server.Stats()
	status := ServiceStatus{
		Address: s.Address, Version: s.version,
		UptimeSeconds: time.Since(s.began).Seconds(), Ready: true,
		Connections: stats.Connections, Streams: stats.Streams, HeldBytes: stats.HeldBytes, Batches: stats.Batches, Refused: stats.Refused, Bad: stats.Bad,
	}
	if entry := s.entry.Load(); entry != nil {
		e := entry.Status()
		status.ID, status.Group, status.Zone, status.Address = e.ID.String(), e.Group, e.Zone, e.Address
	}
	if err := s.ready(); err != nil {
		status.Ready, status.NotReady = false, err.Error()
	}
	for _, l := range s.janitor.Status() {
		loop := loopStatusJSON{Loop: l.Loop}
		if !l.LastSuccess.IsZero() {
			age := time.Since(l.LastSuccess).Seconds()
			loop.LastSuccess = &age
		}
		if l.Err != nil {
			loop.Error = l.Err.Error()
		}
		status.Loops = append(status.Loops, loop)
	}
	return status
}
