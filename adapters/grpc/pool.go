package grpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

const (
	// penaltyHalfLife is how fast an agent's failures are forgotten.
	penaltyHalfLife = 5 * time.Second
	// drainMemory is how long an agent that said that it drains is left alone.
	drainMemory = ports.AgentTTL
)

// pool is the agents that a client knows, and the one that it uses.
type pool struct {
	cfg  *ClientConfig
	seed uint64

	mu      sync.Mutex
	agents  map[string]*remote // by address
	current *remote
	listed  time.Time // when the list was last asked for
	closed  bool
}

// remote is one agent as its client sees it. Its fields are guarded by pool.mu
// but for those that never change.
type remote struct {
	address string
	conn    *grpcgo.ClientConn
	rank    uint64 // the client's preference, by hash

	zone     string
	given    bool // in ClientConfig.Addresses: never forgotten
	users    int  // calls and streams in progress
	penalty  float64
	at       time.Time // of penalty
	drained  time.Time // until when it is left alone
	dialMu   sync.Mutex
	dialling error // the last failure of a dial; guarded by dialMu
}

func newPool(cfg *ClientConfig, seed uint64) (*pool, error) {
	p := &pool{cfg: cfg, seed: seed, agents: make(map[string]*remote)}
	for _, a := range cfg.Addresses {
		r, err := p.add(a)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		r.given = true
	}
	return p, nil
}

// add makes the agent at address known. The caller holds mu, or nobody else has
// the pool yet.
func (p *pool) add(address string) (*remote, error) {
	if r := p.agents[address]; r != nil {
		return r, nil
	}
	r := &remote{address: address, rank: p.rankOf(address)}
	var err error
	if r.conn, err = grpcgo.NewClient("passthrough:///"+address, p.options(r)...); err != nil {
		return nil, agentError("connect to "+address, ports.Definite, err)
	}
	p.agents[address] = r
	return r, nil
}

// rankOf spreads clients over agents: each client has its own order of them,
// which an agent that comes or goes does not change.
func (p *pool) rankOf(address string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(strconv.AppendUint([]byte(address+"/"), p.seed, 16))
	x := h.Sum64() // fnv leaves near addresses near each other
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func (p *pool) options(r *remote) []grpcgo.DialOption {
	dial := p.cfg.Dialer
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	creds := insecure.NewCredentials()
	if p.cfg.TLS != nil {
		creds = credentials.NewTLS(p.cfg.TLS)
	}
	return []grpcgo.DialOption{
		grpcgo.WithTransportCredentials(creds),
		grpcgo.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := dial(ctx, address)
			r.dialMu.Lock()
			r.dialling = err
			r.dialMu.Unlock()
			return conn, err
		}),
		grpcgo.WithDefaultCallOptions(
			grpcgo.ForceCodecV2(newCodec()),
			grpcgo.MaxCallRecvMsgSize(largestMessage+largestBatch),
			grpcgo.MaxCallSendMsgSize(largestMessage),
		),
		grpcgo.WithConnectParams(grpcgo.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: p.cfg.ConnectTimeout,
		}),
		grpcgo.WithKeepaliveParams(keepalive.ClientParameters{Time: p.cfg.KeepaliveTime, Timeout: p.cfg.KeepaliveTimeout}),
		grpcgo.WithReadBufferSize(socketBuffer),
		grpcgo.WithWriteBufferSize(socketBuffer),
		grpcgo.WithStaticStreamWindowSize(streamWindow),
		grpcgo.WithStaticConnWindowSize(connWindow),
		grpcgo.WithStatsHandler(sentMarker{}),
		grpcgo.WithDisableServiceConfig(),
		grpcgo.WithMaxHeaderListSize(headerBytes),
	}
}

func (p *pool) close() error {
	p.mu.Lock()
	p.closed = true
	agents := p.agents
	p.agents, p.current = nil, nil
	p.mu.Unlock()
	var errs []error
	for _, r := range agents {
		errs = append(errs, r.conn.Close())
	}
	return errors.Join(errs...)
}

// update takes a new list of agents. Those that are not in it are forgotten,
// unless they are in use.
func (p *pool) update(list []ports.Agent) {
	var gone []*remote
	p.mu.Lock()
	there := make(map[string]bool)
	for _, a := range list {
		if p.closed || a.Group != p.cfg.Group {
			continue
		}
		r, err := p.add(a.Address)
		if err != nil {
			continue // not an address that gRPC can use
		}
		there[a.Address] = true
		r.zone = a.Zone
		if a.Draining {
			r.drained = time.Now().Add(drainMemory)
		}
	}
	for address, r := range p.agents {
		if !there[address] && !r.given && r != p.current && r.users == 0 && len(there) > 0 {
			delete(p.agents, address)
			gone = append(gone, r)
		}
	}
	p.mu.Unlock()
	for _, r := range gone {
		_ = r.conn.Close() // of calls that may still run on it, each is told
	}
}

// failed notes that the agent did not do what was asked of it: the next call
// goes to another one.
func (p *pool) failed(r *remote) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	r.penalty, r.at = min(r.decayed(now)+1, 8), now
	if p.current == r {
		p.current = nil
	}
}

// hold keeps the agent's connection until release.
func (p *pool) hold(r *remote) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.users++
}

func (p *pool) release(r *remote) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.users--
}

// leaving notes that the agent drains.
func (p *pool) leaving(r *remote) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.drained = time.Now().Add(drainMemory)
	if p.current == r {
		p.current = nil
	}
}

func (r *remote) decayed(now time.Time) float64 {
	return r.penalty * math.Exp2(-float64(now.Sub(r.at))/float64(penaltyHalfLife))
}

// compare puts the agent to prefer first.
func (p *pool) compare(now time.Time) func(a, b *remote) int {
	drained := func(r *remote) int {
		if now.Before(r.drained) {
			return 1
		}
		return 0
	}
	far := func(r *remote) int {
		if p.cfg.Zone == "" || r.zone == p.cfg.Zone {
			return 0
		}
		return 1
	}
	return func(a, b *remote) int {
		return cmp.Or(
			cmp.Compare(drained(a), drained(b)),
			cmp.Compare(math.Round(a.decayed(now)), math.Round(b.decayed(now))),
			cmp.Compare(far(a), far(b)),
			cmp.Compare(b.rank, a.rank),
		)
	}
}

// best returns the agent to use of those that are not tried yet, nil if there is
// none. The one in use is kept.
func (p *pool) best(tried map[*remote]bool) *remote {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil && !tried[p.current] {
		return p.current
	}
	var all []*remote
	for _, r := range p.agents {
		if !tried[r] {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return slices.MinFunc(all, p.compare(time.Now()))
}

// use makes r the agent in use, if there is none.
func (p *pool) use(r *remote) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil && p.agents[r.address] == r {
		p.current = r
	}
}

// reconsider goes back to the agent that the client prefers, if that is not the
// one in use, has not failed lately, and can be reached: after a restart of all agents, one by
// one, clients are spread as before. It is called where nobody waits for it.
func (p *pool) reconsider(ctx context.Context) {
	r := p.preferred()
	if r == nil {
		return
	}
	defer p.release(r)
	if err := p.ready(ctx, r); err != nil {
		p.failed(r)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil && !p.closed {
		p.current = r
	}
}

// preferred returns, held, the agent that would be chosen if none were in use, nil
// if that is the one in use or has failed lately.
func (p *pool) preferred() *remote {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return nil
	}
	now := time.Now()
	best := p.current
	for _, r := range p.agents {
		if p.compare(now)(r, best) < 0 && r.decayed(now) < 0.1 {
			best = r
		}
	}
	if best == p.current {
		return nil
	}
	best.users++
	return best
}

// inUse returns the agent in use, nil if there is none.
func (p *pool) inUse() *remote {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// stale reports, once for each time, that the list is to be asked for.
func (p *pool) stale(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || now.Sub(p.listed) < p.cfg.RefreshInterval {
		return false
	}
	p.listed = now
	return true
}

// ready waits until the agent is connected.
func (p *pool) ready(ctx context.Context, r *remote) error {
	op := "connect to agent " + r.address
	if !p.cfg.mayCarry(r.address) {
		return agentError(op, ports.Definite, &domain.ConfigError{Field: "TLS", Want: "set, to send a token to an address that is not loopback; or InsecureToken"})
	}
	if r.conn.GetState() == connectivity.Ready {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	r.conn.Connect()
	r.conn.ResetConnectBackoff()
	for looks := 0; ; looks++ {
		state := r.conn.GetState()
		switch {
		case state == connectivity.Ready:
			return nil
		case state == connectivity.Shutdown:
			return connectionError(op, ports.Transient, domain.ErrClosed)
		case state == connectivity.Idle:
			r.conn.Connect()
		case state == connectivity.TransientFailure && looks > 0:
			return connectionError(op, ports.Transient, r.whyNot(nil))
		}
		if !r.conn.WaitForStateChange(ctx, state) {
			return connectionError(op, ports.Transient, r.whyNot(context.Cause(ctx)))
		}
	}
}

func (r *remote) whyNot(cause error) error {
	r.dialMu.Lock()
	defer r.dialMu.Unlock()
	return cmp.Or(r.dialling, cause, errors.New("the connection was refused, or the two do not agree on TLS"))
}

// none is the error of a call for which there is no agent.
func (p *pool) none(op string, last error) error {
	err := error(&domain.NoAgentsAvailableError{Group: p.cfg.Group})
	if last != nil {
		err = fmt.Errorf("%w; the last one tried: %s", err, last.Error())
	}
	return agentError(op, ports.Transient, err)
}
