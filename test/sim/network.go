package sim

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
)

// network connects clients with agents by pipes in memory. What is written is
// read at once or not at all: nothing is under way while every goroutine is blocked.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener // by address
	links     []*link              // that are not closed
}

// link is one connection of a client's process with an agent's.
type link struct {
	network     *network
	client, far *process
	ends        [2]net.Conn
	once        sync.Once
	closed      chan struct{}
}

// listener takes the connections for one agent.
type listener struct {
	address string
	process *process
	conns   chan net.Conn
	once    sync.Once
	done    chan struct{}
}

var errUnreachable = errors.New("nobody listens there")

// listen has p listen at the address, where nobody does any more.
func (n *network) listen(p *process, address string) *listener {
	l := &listener{address: address, process: p, conns: make(chan net.Conn), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[address] = l
	return l
}

// dialer makes connections for p.
func (n *network) dialer(p *process) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		n.mu.Lock()
		l := n.listeners[address]
		n.mu.Unlock()
		if l == nil || p.dead.Load() {
			return nil, errUnreachable
		}
		k := &link{network: n, client: p, far: l.process, closed: make(chan struct{})}
		k.ends[0], k.ends[1] = net.Pipe()
		n.mu.Lock()
		n.links = append(n.links, k)
		n.mu.Unlock()
		select {
		case l.conns <- &end{k.ends[1], k}:
			return &end{k.ends[0], k}, nil
		case <-l.done:
			k.cut()
			return nil, errUnreachable
		case <-ctx.Done():
			k.cut()
			return nil, ctx.Err()
		}
	}
}

// cut ends every connection that p has.
func (n *network) cut(p *process) {
	n.mu.Lock()
	links := slices.Clone(n.links)
	n.mu.Unlock()
	for _, k := range links {
		if k.client == p || k.far == p {
			k.cut()
		}
	}
}

func (k *link) cut() {
	k.once.Do(func() {
		close(k.closed)
		_ = k.ends[0].Close()
		_ = k.ends[1].Close() // pipes always close
		k.network.mu.Lock()
		defer k.network.mu.Unlock()
		k.network.links = slices.DeleteFunc(k.network.links, func(o *link) bool { return o == k })
	})
}

// end is one end of a link. Nothing passes while the agent is silent.
type end struct {
	net.Conn
	link *link
}

func (e *end) pass() {
	if silence := e.link.far.silence.Load(); silence != nil {
		select {
		case <-*silence:
		case <-e.link.closed:
		}
	}
}

func (e *end) Read(b []byte) (int, error) {
	e.pass()
	n, err := e.Conn.Read(b)
	e.pass()
	return n, err
}

func (e *end) Write(b []byte) (int, error) {
	e.pass()
	return e.Conn.Write(b)
}

func (e *end) Close() error {
	e.link.cut()
	return nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *listener) Addr() net.Addr { return address(l.address) }

type address string

func (address) Network() string  { return "pipe" }
func (a address) String() string { return string(a) }
