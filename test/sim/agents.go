package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
)

// agents are the agents of a run: each listens at an address of its own, with
// processes that follow each other there.
type agents struct {
	world   *world
	network network
	list    *memory.Agents

	ended chan struct{} // closed when no agent starts any more
	work  sync.WaitGroup

	mu      sync.Mutex
	running []*agentProcess // all that were started
	over    bool
}

const (
	// drainTime is what an agent that is told to end takes at most.
	drainTime = 20 * time.Second
	// longestPause is the longest that an agent is stopped, or silent: more than
	// any client waits for it.
	longestPause = 40 * time.Second
)

// agentProcess is one process of an agent.
type agentProcess struct {
	agents   *agents
	process  *process
	server   *grpc.Server
	writer   *direct.Writer
	draining chan struct{} // closed when it is told to end
	tell     sync.Once
	done     chan struct{} // closed when it is gone
}

func newAgents(w *world) *agents {
	return &agents{world: w, network: network{listeners: make(map[string]*listener)}, list: memory.NewAgents(), ended: make(chan struct{})}
}

// startAll starts the agents of the plan. Each is started again, later, when it
// has died or ended.
func (a *agents) startAll() {
	for i := range a.world.plan.agents {
		name := fmt.Sprintf("a%d", i)
		r := a.world.random(name)
		first := a.start(name, 1)
		a.work.Go(func() { a.keep(name, first, r) })
	}
}

func addressOf(name string) string { return net.JoinHostPort(name, "7070") }

func (a *agents) keep(name string, running *agentProcess, r *rand.Rand) {
	for generation := 2; ; generation++ {
		if running != nil {
			<-running.done
		}
		select {
		case <-a.ended:
			return
		case <-time.After(time.Duration(r.Int64N(int64(5 * time.Second)))):
		}
		running = a.start(name, generation)
	}
}

// start starts a process of the agent. Nil: that cannot be, or all is over.
func (a *agents) start(name string, generation int) *agentProcess {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return nil
	}
	p := a.world.newProcess(fmt.Sprintf("%s.%d", name, generation), true)
	cfg := direct.DefaultConfig()
	cfg.Seed, cfg.FlushBytes = a.world.plan.Seed+1, 4<<10
	writer, err := direct.NewWriter(p.metadata, p.segments, ports.NoTelemetry{}, cfg)
	if err != nil {
		a.world.violate("%s: transport: %v", p.name, err)
		return nil
	}
	backend := grpc.Backend{
		Transport: writer, Topics: p.metadata, Producers: p.metadata, Agents: a.list,
		Fetcher: direct.NewReader(p.metadata, p.segments, ports.NoTelemetry{}, direct.DefaultReaderConfig()),
	}
	server, err := grpc.NewServer(backend, grpc.DefaultServerConfig())
	if err != nil {
		a.world.violate("%s: server: %v", p.name, err)
		return nil
	}
	g := &agentProcess{agents: a, process: p, server: server, writer: writer, draining: make(chan struct{}), done: make(chan struct{})}
	p.agent = g
	a.running = append(a.running, g)
	l := a.network.listen(p, addressOf(name))
	a.work.Go(func() {
		if err := server.Serve(l); err != nil {
			a.world.violate("%s: serve: %v", p.name, err)
		}
	})
	a.work.Go(func() { g.run(l) })
	return g
}

// run ends the agent when it is told to, or when its process dies.
func (g *agentProcess) run(l *listener) {
	defer close(g.done)
	select {
	case <-g.process.ctx.Done():
	case <-g.draining:
		ctx, cancel := context.WithTimeout(g.process.ctx, drainTime)
		defer cancel()
		_ = g.server.Drain(ctx) // an agent that cannot end in time is killed
		_ = g.writer.Close(ctx)
	}
	_ = l.Close()
	g.agents.network.cut(g.process)
	g.server.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.writer.Close(ctx) // it is gone: nobody is told
	g.process.die()
}

// drain has the agent end as SIGTERM does.
func (g *agentProcess) drain() { g.tell.Do(func() { close(g.draining) }) }

// hush keeps everything from and to the process from passing for a while. If it
// is stopped too, what it calls waits until then.
func (a *agents) hush(p *process, d time.Duration, stop bool) {
	silence := make(chan struct{})
	if !p.silence.CompareAndSwap(nil, &silence) {
		return
	}
	p.stopped.Store(stop)
	a.work.Go(func() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.ctx.Done():
		case <-a.world.healed:
		}
		p.stopped.Store(false)
		p.silence.Store(nil)
		close(silence)
		a.world.scheduler.rouse()
	})
}

// end ends all agents, once nobody needs them.
func (a *agents) end() {
	close(a.ended)
	a.mu.Lock()
	a.over = true
	running := a.running
	a.mu.Unlock()
	for _, g := range running {
		g.process.die()
	}
	a.work.Wait()
}

// dial makes a client of the agents, for p.
func (a *agents) dial(ctx context.Context, p *process) (*grpc.Client, error) {
	r := a.world.random(p.name + " client")
	cfg := grpc.DefaultClientConfig()
	cfg.Dialer, cfg.Seed = a.network.dialer(p), r.Uint64()|1
	cfg.StallAfter = time.Second + time.Duration(r.Int64N(int64(9*time.Second)))
	if r.IntN(3) == 0 {
		cfg.HedgeAfter = time.Duration(1 + r.Int64N(int64(time.Second)))
	}
	for i := range a.world.plan.agents {
		cfg.Addresses = append(cfg.Addresses, addressOf(fmt.Sprintf("a%d", i)))
	}
	return grpc.Dial(ctx, cfg)
}
