package grpc_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// network connects clients with agents: over TCP of the loopback interface, or
// over pipes in memory.
type network interface {
	listen(t testing.TB) net.Listener
	dial(ctx context.Context, address string) (net.Conn, error)
}

type tcp struct{}

func (tcp) listen(t testing.TB) net.Listener {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (tcp) dial(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// pipes is a network of net.Pipes.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
}

func newPipes() *pipes { return &pipes{listeners: make(map[string]*pipeListener)} }

type pipeListener struct {
	address pipeAddress
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once
}

type pipeAddress string

func (pipeAddress) Network() string  { return "pipe" }
func (a pipeAddress) String() string { return string(a) }

func (p *pipes) listen(testing.TB) net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &pipeListener{
		address: pipeAddress(net.JoinHostPort("pipe", strconv.Itoa(len(p.listeners)))),
		conns:   make(chan net.Conn), done: make(chan struct{}),
	}
	p.listeners[l.address.String()] = l
	return l
}

func (p *pipes) dial(ctx context.Context, address string) (net.Conn, error) {
	p.mu.Lock()
	l := p.listeners[address]
	p.mu.Unlock()
	if l == nil {
		return nil, errors.New("no such pipe")
	}
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		return nil, errors.New("pipe refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return l.address }

// cluster is what agents and clients of a test share.
type cluster struct {
	t        testing.TB
	net      network
	metadata ports.MetadataStore
	segments ports.SegmentStore
	agents   ports.AgentDiscovery
}

func newCluster(t testing.TB, n network) *cluster {
	return &cluster{
		t: t, net: n,
		metadata: memory.NewMetadata(memory.MetadataOptions{}), segments: memory.NewSegments(), agents: memory.NewAgents(),
	}
}

// slowDown makes each put of an object take up to most.
func (c *cluster) slowDown(most time.Duration) {
	c.segments = fault.NewSegments(c.segments, fault.Random(1, fault.Rates{Delay: 1, MaxDelay: most / 2}))
}

// agent is one agent of a test.
type agent struct {
	c      *cluster
	server *grpc.Server
	writer *direct.Writer
	addr   string
	id     ports.AgentID
	served chan error
	once   sync.Once
}

// serverConfig is what agents of tests have unless a test wants something else.
func serverConfig() grpc.ServerConfig {
	cfg := grpc.DefaultServerConfig()
	cfg.Version = "test"
	return cfg
}

func writerConfig() direct.Config {
	cfg := direct.DefaultConfig()
	cfg.InFlightBytes = 64 << 20
	return cfg
}

// start starts an agent and registers it. It is stopped at the end of the test
// unless that happened before.
func (c *cluster) start(zone string, change ...func(*grpc.Backend, *grpc.ServerConfig)) *agent {
	c.t.Helper()
	w, err := direct.NewWriter(c.metadata, c.segments, ports.NoTelemetry{}, writerConfig())
	if err != nil {
		c.t.Fatal(err)
	}
	backend := grpc.Backend{
		Transport: w, Topics: c.metadata, Producers: c.metadata, Agents: c.agents,
		Fetcher: direct.NewReader(c.metadata, c.segments, ports.NoTelemetry{}, direct.DefaultReaderConfig()),
	}
	cfg := serverConfig()
	for _, f := range change {
		f(&backend, &cfg)
	}
	s, err := grpc.NewServer(backend, cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	l := c.net.listen(c.t)
	a := &agent{c: c, server: s, writer: w, addr: l.Addr().String(), served: make(chan error, 1)}
	go func() { a.served <- s.Serve(l) }()
	registered, err := c.agents.Register(context.Background(), ports.AgentSpec{Group: "default", Zone: zone, Address: a.addr})
	if err != nil {
		c.t.Fatal(err)
	}
	a.id = registered.ID
	c.t.Cleanup(a.kill)
	return a
}

// kill ends the agent at once, as its death does for its clients. What it had
// accepted may be committed or not.
func (a *agent) kill() { a.end(func(context.Context) error { a.server.Stop(); return nil }) }

// drain ends the agent as SIGTERM does.
func (a *agent) drain() { a.end(a.server.Drain) }

func (a *agent) end(how func(context.Context) error) {
	a.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := a.c.agents.Leave(ctx, a.id); err != nil {
			a.c.t.Error(err)
		}
		if err := how(ctx); err != nil {
			a.c.t.Errorf("agent does not end: %v", err)
		}
		if err := <-a.served; err != nil {
			a.c.t.Errorf("serve: %v", err)
		}
		if err := a.writer.Close(ctx); err != nil {
			a.c.t.Errorf("writer does not end: %v", err)
		}
	})
}

// dial makes a client of the cluster's agents. It is closed at the end of the
// test.
func (c *cluster) dial(change ...func(*grpc.ClientConfig)) *grpc.Client {
	c.t.Helper()
	cfg := grpc.DefaultClientConfig()
	cfg.Discovery, cfg.Dialer = c.agents, c.net.dial
	for _, f := range change {
		f(&cfg)
	}
	client, err := grpc.Dial(context.Background(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := client.Close(); err != nil {
			c.t.Errorf("close client: %v", err)
		}
	})
	return client
}

// networks are those that the suites run over.
func networks() map[string]func() network {
	return map[string]func() network{
		"pipes": func() network { return newPipes() },
		"tcp":   func() network { return tcp{} },
	}
}

// gates is a network whose connections can be held up, agent by agent: nothing
// goes through, and nothing ends, as if the agent's process were stopped.
type gates struct {
	network
	mu   sync.Mutex
	shut map[string]chan struct{} // open again when closed
}

func newGates(n network) *gates { return &gates{network: n, shut: make(map[string]chan struct{})} }

func (g *gates) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := g.network.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return &gatedConn{Conn: conn, g: g, address: address, closed: make(chan struct{})}, nil
}

// pause holds up the agent's connections until resume.
func (g *gates) pause(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut[address] == nil {
		g.shut[address] = make(chan struct{})
	}
}

func (g *gates) resume(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if shut := g.shut[address]; shut != nil {
		close(shut)
		delete(g.shut, address)
	}
}

type gatedConn struct {
	net.Conn
	g       *gates
	address string
	once    sync.Once
	closed  chan struct{}
}

// pass waits until the agent is not paused.
func (c *gatedConn) pass() {
	c.g.mu.Lock()
	shut := c.g.shut[c.address]
	c.g.mu.Unlock()
	if shut != nil {
		select {
		case <-shut:
		case <-c.closed:
		}
	}
}

func (c *gatedConn) Read(b []byte) (int, error) {
	c.pass()
	n, err := c.Conn.Read(b)
	c.pass()
	return n, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	c.pass()
	return c.Conn.Write(b)
}

func (c *gatedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
