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
	peer  string
	bytes int64 // of batches; guarded by limiter.mu

	mu     sync.Mutex
	unsent map[*budget]int64 // bytes of answers to fetches, by where they are lent from
	gone   bool
}

// lend books n bytes of an answer that is on its way to the client. It reports
// false if the client is gone.
func (c *client) lend(b *budget, n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	if c.unsent == nil {
		c.unsent = make(map[*budget]int64)
	}
	c.unsent[b] += n
	return true
}

// back takes n of these bytes off the books, and returns how many were still on
// them.
func (c *client) back(b *budget, n int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return 0
	}
	c.unsent[b] -= n
	return n
}

// leave takes all off the books and gives it back: what was on its way to a
// connection that has ended is not always told to be given up.
func (c *client) leave() {
	c.mu.Lock()
	unsent := c.unsent
	c.unsent, c.gone = nil, true
	c.mu.Unlock()
	for b, n := range unsent {
		b.giveBack(c, n)
	}
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

// connections gives every connection its client, and counts them.
type connections struct {
	open       atomic.Int64
	complaints complaints
}

type clientKey struct{}

func (c *connections) TagConn(ctx context.Context, info *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, clientKey{}, &client{peer: info.RemoteAddr.String()})
}

func (c *connections) HandleConn(ctx context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		c.open.Add(1)
	case *stats.ConnEnd:
		c.open.Add(-1)
		clientOf(ctx).leave()
	}
}

// methodKey is the context key of a call's method.
type methodKey struct{}

func (c *connections) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, methodKey{}, info.FullMethodName)
}

// HandleRPC sees the end of every call, also of one whose message never came to a
// handler.
func (c *connections) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if end, ok := s.(*stats.End); ok && isBad(end.Error) {
		method, _ := ctx.Value(methodKey{}).(string)
		c.complaints.add(clientOf(ctx).peer, method, end.Error)
	}
}

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
