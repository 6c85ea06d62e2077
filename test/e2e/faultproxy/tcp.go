package faultproxy

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Direction is the way that bytes go.
type Direction int

const (
	// ToServer is from the client to the server.
	ToServer Direction = iota
	// ToClient is from the server to the client.
	ToClient
)

// chunk is how much a proxy takes from a connection at once, in bytes.
const chunk = 32 << 10

// TCP is a proxy that passes bytes on without knowing what they mean.
type TCP struct {
	backend string
	door    *door
	framed  *intercept // nil if messages are not told apart

	pumps  sync.WaitGroup // the one that accepts, and two for each connection
	counts counters

	mu      sync.Mutex
	closed  bool
	down    bool
	links   map[*link]bool
	frozen  [2]chan struct{} // by direction: closed at the thaw; nil if bytes flow
	latency time.Duration
	// limited says that the connection that carries the byte after the next
	// left ones is cut before it.
	limited [2]bool
	left    [2]int64
}

type counters struct {
	accepted, unreachable, cut, cutBefore, lost, held atomic.Int64
	bytes                                             [2]atomic.Int64
}

// Counts is what a proxy has done so far.
type Counts struct {
	// Accepted connections; Unreachable are those of them for which the server
	// could not be dialed, and which were reset.
	Accepted, Unreachable int
	// Cut connections, by Cut, Down, CutAfter or an Action.
	Cut int
	// CutBefore, Lost and Held are actions that have come to pass.
	CutBefore, Lost, Held int
	// Bytes that were passed on, by direction.
	Bytes [2]int64
}

// NewTCP makes a proxy in front of the server at the address. It closes at the
// end of tb.
func NewTCP(tb testing.TB, backend string) *TCP {
	tb.Helper()
	return newTCP(tb, backend, nil)
}

func newTCP(tb testing.TB, backend string, framed *intercept) *TCP {
	tb.Helper()
	entrance, err := newDoor()
	if err != nil {
		tb.Fatalf("fault proxy: %v", err)
	}
	p := &TCP{backend: backend, door: entrance, framed: framed, links: make(map[*link]bool)}
	p.pumps.Go(p.accept)
	tb.Cleanup(p.Close)
	return p
}

// Addr is the host and port where clients find the proxy.
func (p *TCP) Addr() string { return p.door.Addr().String() }

// Counts is what the proxy has done so far.
func (p *TCP) Counts() Counts {
	c := &p.counts
	return Counts{
		Accepted: int(c.accepted.Load()), Unreachable: int(c.unreachable.Load()), Cut: int(c.cut.Load()),
		CutBefore: int(c.cutBefore.Load()), Lost: int(c.lost.Load()), Held: int(c.held.Load()),
		Bytes: [2]int64{c.bytes[ToServer].Load(), c.bytes[ToClient].Load()},
	}
}

// Connections is how many connections are open.
func (p *TCP) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Cut resets all connections, on both sides.
func (p *TCP) Cut() {
	for _, l := range p.open() {
		l.cut(reset)
	}
}

func (p *TCP) open() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	open := make([]*link, 0, len(p.links))
	for l := range p.links {
		open = append(open, l)
	}
	return open
}

// Refuse refuses new connections until Up; those that are there stay.
func (p *TCP) Refuse() { p.door.shut() }

// Down refuses new connections until Up and cuts those that are there.
func (p *TCP) Down() {
	p.Refuse()
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.Cut()
}

// Up takes connections again.
func (p *TCP) Up() error {
	p.mu.Lock()
	p.down = false
	p.mu.Unlock()
	return p.door.open()
}

// Freeze stops the bytes of one direction without a word to either side. They
// are kept, as in a network that has stopped to carry packets, until Thaw.
func (p *TCP) Freeze(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen[d] == nil {
		p.frozen[d] = make(chan struct{})
	}
}

// Thaw lets the bytes of both directions flow again, and answers that an
// Action holds.
func (p *TCP) Thaw() {
	p.mu.Lock()
	for d, frozen := range p.frozen {
		if frozen != nil {
			close(frozen)
			p.frozen[d] = nil
		}
	}
	p.mu.Unlock()
	for _, l := range p.open() {
		l.release()
	}
}

// Latency delays each piece of each direction from now on: an answer comes two
// latencies later than without a proxy. Pieces wait one after the other.
func (p *TCP) Latency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// CutAfter passes n more bytes in the direction, over whichever connections,
// and closes the connection that would carry the next one. It happens once.
func (p *TCP) CutAfter(d Direction, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limited[d], p.left[d] = true, n
}

// take is how many of n bytes may still pass, and whether the connection is to
// be closed after them.
func (p *TCP) take(d Direction, n int) (pass int, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.limited[d] {
		return n, false
	}
	if int64(n) <= p.left[d] {
		p.left[d] -= int64(n)
		return n, false
	}
	p.limited[d] = false
	return int(p.left[d]), true
}

// weather is what a piece meets on its way.
func (p *TCP) weather(d Direction) (frozen <-chan struct{}, latency time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen[d], p.latency
}

// Close cuts everything and waits for every goroutine. It may be called again.
func (p *TCP) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.door.Close()
	for _, l := range p.open() {
		l.cut(reset)
	}
	p.pumps.Wait()
}

func (p *TCP) accept() {
	for {
		client, err := p.door.Accept()
		if err != nil {
			return
		}
		p.counts.accepted.Add(1)
		p.pumps.Go(func() { p.connect(client) })
	}
}

// dialLimit is how long a server on this machine may take to accept.
const dialLimit = 10 * time.Second

// connect joins a client to the server and passes their bytes until the end.
func (p *TCP) connect(client net.Conn) {
	server, err := net.DialTimeout("tcp", p.backend, dialLimit)
	if err != nil {
		p.counts.unreachable.Add(1)
		reset(client)
		return
	}
	l := &link{proxy: p, client: client, server: server, done: make(chan struct{}), session: session{changed: make(chan struct{})}}
	p.mu.Lock()
	unwanted := p.closed || p.down // it was accepted a moment before
	if !unwanted {
		p.links[l] = true
	}
	p.mu.Unlock()
	if unwanted {
		reset(client)
		reset(server)
		return
	}
	l.run()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}
