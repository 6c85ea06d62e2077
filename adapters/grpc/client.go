package grpc

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	grpcgo "google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// Client reaches a cluster through any agent of a group. It fills ports.Fetcher,
// ports.Topics and ports.Producers, and makes ports.Transports. All of its calls go to one
// agent, as long as that does what is asked of it. It must be closed, after its
// Transports.
type Client struct {
	cfg  ClientConfig
	pool *pool

	life context.Context // ends with Close
	end  context.CancelFunc

	mu     sync.Mutex // guards closed, and work against it
	closed bool
	work   sync.WaitGroup // refreshes in the background
}

var (
	_ ports.Fetcher   = (*Client)(nil)
	_ ports.Topics    = (*Client)(nil)
	_ ports.Producers = (*Client)(nil)
)

// Dial makes a Client and reaches one agent. domain.ErrConfig, domain.ErrInvalidName:
// cfg cannot be used; every fault is in the error. *domain.NoAgentsAvailableError: no agent
// of the group can be reached.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	pool, err := newPool(&cfg, cmp.Or(cfg.Seed, rand.Uint64()))
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, pool: pool}
	c.life, c.end = context.WithCancel(context.Background())
	c.pool.stale(time.Now()) // this is the first refresh
	c.refresh(ctx)
	if _, err := c.pick(ctx, "connect", map[*remote]bool{}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close ends all calls and connections.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	err := c.pool.close()
	c.work.Wait()
	return err
}

// spawn runs f, which ends with c.life, on a goroutine that Close waits for.
func (c *Client) spawn(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.work.Go(f)
	}
}

// Address returns the address of the agent in use, "" if there is none now.
func (c *Client) Address() string {
	if r := c.pool.inUse(); r != nil {
		return r.address
	}
	return ""
}

// touch is called by every use: it refreshes the list of agents when it is old.
func (c *Client) touch() {
	if c.pool.stale(time.Now()) {
		c.spawn(func() {
			c.refresh(c.life)
			c.pool.reconsider(c.life)
		})
	}
}

// refresh asks for the list of agents. If that fails the old one stays.
func (c *Client) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.StallAfter)
	defer cancel()
	if c.cfg.Discovery != nil {
		if list, err := c.cfg.Discovery.Agents(ctx, c.cfg.Group); err == nil {
			c.pool.update(list)
		}
		return
	}
	if list, err := c.Agents(ctx, c.cfg.Group); err == nil {
		c.pool.update(list)
	}
}

// pick returns an agent that is connected, and makes it the one in use if there
// is none. It tries all that are not in tried, each once, best first, and asks for a
// new list before it gives up.
func (c *Client) pick(ctx context.Context, op string, tried map[*remote]bool) (*remote, error) {
	var last error
	refreshed := c.cfg.Discovery == nil
	for {
		r := c.pool.best(tried)
		if r == nil && !refreshed {
			refreshed = true
			c.refresh(ctx)
			continue
		}
		if err := c.over(ctx, op); err != nil {
			return nil, err
		}
		if r == nil {
			return nil, c.pool.none(op, last)
		}
		tried[r] = true
		err := c.pool.ready(ctx, r)
		if err == nil {
			c.pool.use(r)
			return r, nil
		}
		if !ended(ctx) {
			c.pool.failed(r)
		}
		last = err
	}
}

// over returns why a call that has not begun is not made any more.
func (c *Client) over(ctx context.Context, op string) error {
	if c.life.Err() != nil {
		return domain.ErrClosed
	}
	if ctx.Err() != nil {
		return agentError(op, ports.Transient, context.Cause(ctx))
	}
	return nil
}

// ended reports whether ctx is over. The agent, or gRPC, may see the deadline pass
// a moment before ctx tells of it: that is not the agent's failure.
func ended(ctx context.Context) bool {
	if at, ok := ctx.Deadline(); ok && !time.Now().Before(at) {
		<-ctx.Done()
	}
	return ctx.Err() != nil
}

// call is one call on an agent.
type call struct {
	op string
	// effect says that the call changes something: it is made again only if the
	// first was certainly not sent.
	effect bool
	// again says that a second call does no more than the first.
	again bool
	// wait is how long the agent may take besides.
	wait time.Duration
	make func(ctx context.Context, conn grpcgo.ClientConnInterface) error
}

// do makes the call, on another agent if one fails.
func (c *Client) do(ctx context.Context, k call) error {
	c.touch()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout+k.wait)
	defer cancel()
	tried := make(map[*remote]bool)
	var last error
	for {
		r, err := c.pick(ctx, k.op, tried)
		switch {
		case err == nil:
		case last == nil, ctx.Err() != nil, c.life.Err() != nil:
			return err
		case ports.KindOf(last) == ports.Transient:
			return c.pool.none(k.op, last)
		default:
			return last
		}
		sent, err := c.attempt(ctx, r, k)
		if err == nil {
			return nil
		}
		if ended(ctx) {
			return callError(ctx, k.op, kindOf(sent && k.effect), err)
		}
		last = callError(ctx, k.op, kindOf(sent && k.effect), err)
		if !agentFailed(err) {
			return last
		}
		c.pool.failed(r)
		if sent && k.effect && !k.again && !mutant.On(mutantEffectRepeated) {
			return last
		}
	}
}

func kindOf(inDoubt bool) ports.Kind {
	if inDoubt {
		return ports.Ambiguous
	}
	return ports.Transient
}

// attempt makes the call on r. It reports whether anything was sent.
func (c *Client) attempt(ctx context.Context, r *remote, k call) (sent bool, err error) {
	mark := new(sentMark)
	ctx = context.WithValue(c.outgoing(ctx), sentKey{}, mark)
	ctx, cancel := context.WithTimeout(ctx, c.cfg.StallAfter+k.wait)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	c.pool.hold(r)
	defer c.pool.release(r)
	err = k.make(ctx, r.conn)
	return mark.sent.Load(), err
}

// outgoing adds the token.
func (c *Client) outgoing(ctx context.Context) context.Context {
	if c.cfg.Token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.cfg.Token)
}

// agentFailed reports that err is the agent's failure and not an answer about
// what was asked: another agent may do better.
func agentFailed(err error) bool {
	s, ok := status.FromError(err)
	if !ok {
		return true
	}
	if detail := detailOf(s); detail != nil {
		return agentIsToBlame(decodeError(detail))
	}
	switch s.Code() {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Internal, codes.Unknown:
		return true
	}
	return false
}

// agentIsToBlame reports an error that says that the agent is of no use now.
func agentIsToBlame(err error) bool {
	switch {
	case err == nil, errors.Is(err, domain.ErrFenced), errors.Is(err, domain.ErrSessionExpired):
		return false
	case errors.Is(err, ErrNotReady), errors.Is(err, domain.ErrClosed):
		return true
	}
	return domain.FateOf(err).Fatal
}

// Agents returns the agents of a group, as the agent in use knows them.
func (c *Client) Agents(ctx context.Context, group string) ([]ports.Agent, error) {
	if err := ports.ValidateAgentGroup(group); err != nil {
		return nil, err
	}
	var answer *agentv1.ListAgentsResponse
	err := c.do(ctx, call{op: "list agents", make: func(ctx context.Context, conn grpcgo.ClientConnInterface) (err error) {
		answer, err = agentv1.NewAgentServiceClient(conn).ListAgents(ctx, &agentv1.ListAgentsRequest{Group: group})
		return err
	}})
	if err != nil {
		return nil, err
	}
	list := make([]ports.Agent, 0, len(answer.GetAgents()))
	for _, a := range answer.GetAgents() {
		agent, err := decodeAgent(a)
		if err != nil {
			return nil, nonsense("list agents", err)
		}
		list = append(list, agent)
	}
	return list, nil
}

// nonsense is the error of an answer that no agent of ours gives.
func nonsense(op string, err error) error {
	return agentError(op, ports.Ambiguous, errors.New("an answer that makes no sense: "+err.Error()))
}

// sentMark notes that a call was sent.
type sentMark struct{ sent atomic.Bool }

type sentKey struct{}

// sentMarker watches calls for their sentMark.
type sentMarker struct{}

func (sentMarker) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (sentMarker) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentMarker) HandleConn(context.Context, stats.ConnStats)                       {}

func (sentMarker) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); ok {
		if mark, ok := ctx.Value(sentKey{}).(*sentMark); ok {
			mark.sent.Store(true)
		}
	}
}
