package grpc

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/stats"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// limiter bounds the bytes that are taken over and not settled.
type limiter struct {
	cfg *ServerConfig

	mu     sync.Mutex
	total  int64
	topics map[domain.TopicID]int64
}

// client is one connection.
type client struct {
	bytes int64 // of batches; guarded by limiter.mu

	mu     sync.Mutex
	unsent int64 // of answers to fetches
	gone   bool
}

// lend books n bytes of an answer that is on its way to the client. It reports
// false if the client is gone.
func (c *client) lend(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	c.unsent += n
	return true
}

// back takes n of these bytes off the books, and returns how many were still on
// them.
func (c *client) back(n int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return 0
	}
	c.unsent -= n
	return n
}

// leave takes all off the books: what was on its way to a connection that has
// ended is not always told to be given up.
func (c *client) leave() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.unsent
	c.unsent, c.gone = 0, true
	return n
}

// take books n bytes, or returns which bound they would pass. Under each bound
// a single batch of any size has room.
func (l *limiter) take(c *client, topic domain.TopicID, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch held := l.topics[topic]; {
	case c.bytes > 0 && c.bytes+n > l.cfg.ClientBytes:
		return noRoom("this client has as much under way as it may", l.cfg.RetryAfter)
	case held > 0 && held+n > l.cfg.TopicBytes:
		return noRoom("the topic has as much under way as it may", l.cfg.RetryAfter)
	case l.total > 0 && l.total+n > l.cfg.TotalBytes:
		return noRoom("all clients together have as much under way as they may", l.cfg.RetryAfter)
	}
	c.bytes += n
	l.topics[topic] += n
	l.total += n
	return nil
}

func (l *limiter) give(c *client, topic domain.TopicID, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if mutant.On(mutantRoomKept) {
		return
	}
	c.bytes -= n
	l.total -= n
	if l.topics[topic] -= n; l.topics[topic] == 0 {
		delete(l.topics, topic)
	}
}

func (l *limiter) held() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// budget is a number of bytes that calls borrow, first come first served.
type budget struct {
	mu      sync.Mutex
	left    int64
	waiters []budgetWaiter
}

type budgetWaiter struct {
	n       int64
	granted chan struct{}
}

// borrow waits for n bytes, which is no more than the budget ever has.
func (b *budget) borrow(ctx context.Context, n int64) error {
	b.mu.Lock()
	if len(b.waiters) == 0 && b.left >= n {
		b.left -= n
		b.mu.Unlock()
		return nil
	}
	granted := make(chan struct{})
	b.waiters = append(b.waiters, budgetWaiter{n, granted})
	b.mu.Unlock()
	select {
	case <-granted:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, w := range b.waiters {
		if w.granted == granted {
			b.waiters = append(b.waiters[:i:i], b.waiters[i+1:]...)
			b.grant()
			return context.Cause(ctx)
		}
	}
	b.left += n // granted meanwhile
	b.grant()
	return context.Cause(ctx)
}

func (b *budget) giveBack(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
	b.grant()
}

func (b *budget) unused() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left
}

func (b *budget) grant() {
	for len(b.waiters) > 0 && b.waiters[0].n <= b.left {
		b.left -= b.waiters[0].n
		close(b.waiters[0].granted)
		b.waiters = b.waiters[1:]
	}
}

// connections gives every connection its client, and counts them.
type connections struct {
	open    atomic.Int64
	fetches *budget
}

type clientKey struct{}

func (c *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, clientKey{}, new(client))
}

func (c *connections) HandleConn(ctx context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		c.open.Add(1)
	case *stats.ConnEnd:
		c.open.Add(-1)
		c.fetches.giveBack(clientOf(ctx).leave())
	}
}

func (c *connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (c *connections) HandleRPC(context.Context, stats.RPCStats)                       {}

// clientOf returns the connection that a call came on.
func clientOf(ctx context.Context) *client {
	if c, ok := ctx.Value(clientKey{}).(*client); ok {
		return c
	}
	return new(client)
}

// listener accepts connections up to a bound, and closes those over it at once.
type listener struct {
	net.Listener
	open *atomic.Int64
	most int64
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.open.Load() < l.most {
			return conn, err
		}
		_ = conn.Close() // it was not served; nobody is told
	}
}
