package grpc

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxComplained bounds the peers that complaints knows apart at a time.
const maxComplained = 256

// complaints logs requests that no client of ours makes, or that their caller may
// not make: of each peer the first in an interval, with how many were not logged since the
// one before. All of them are counted. Peers beyond the bound share one line.
type complaints struct {
	log   *slog.Logger // nil: only counted
	every time.Duration
	bad   atomic.Int64

	mu    sync.Mutex // guards all below; nothing is logged under it
	peers map[string]*complained
	crowd complained // of the peers beyond the bound
}

// complained is one peer that was complained of.
type complained struct {
	at         time.Time // of the last line
	suppressed int64     // since then
}

// add complains of one bad request. The peer is an address with a port, which does
// not count: who connects again is the same peer.
func (c *complaints) add(peer, method string, err error, subject ...any) {
	c.bad.Add(1)
	if c.log == nil {
		return
	}
	host, _, splitErr := net.SplitHostPort(peer)
	if splitErr != nil {
		host = peer
	}
	suppressed, tell, gone := c.book(host, time.Now())
	for name, n := range gone {
		c.log.Warn("bad requests were not logged", "peer", name, "suppressed", n)
	}
	if tell {
		s := status.Convert(statusOf(err))
		c.log.Warn("bad request", append([]any{
			"peer", peer, "method", clip(method), "code", s.Code().String(), "reason", s.Message(), "suppressed", suppressed,
		}, subject...)...)
	}
}

// book notes a bad request of the peer, and reports whether it is to be logged,
// and how many were not since the last that was. Gone are peers that are forgotten, with what
// was never told of them.
func (c *complaints) book(peer string, now time.Time) (suppressed int64, tell bool, gone map[string]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.peers[peer]
	if p == nil {
		if len(c.peers) >= maxComplained {
			gone = c.forget(now)
		}
		if p = &c.crowd; len(c.peers) < maxComplained {
			p = new(complained)
			if c.peers == nil {
				c.peers = make(map[string]*complained)
			}
			c.peers[peer] = p
		}
	}
	if now.Sub(p.at) < c.every {
		p.suppressed++
		return 0, false, gone
	}
	suppressed = p.suppressed
	p.at, p.suppressed = now, 0
	return suppressed, true, gone
}

// forget drops the peers that were quiet for an interval.
func (c *complaints) forget(now time.Time) map[string]int64 {
	gone := make(map[string]int64)
	for name, p := range c.peers {
		if now.Sub(p.at) >= c.every {
			if p.suppressed > 0 {
				gone[name] = p.suppressed
			}
			delete(c.peers, name)
		}
	}
	return gone
}

// isBad reports whether a call that ended with err was a bad request, rather than
// one that had no luck.
func isBad(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.ResourceExhausted, codes.Unimplemented:
		return true
	case codes.Internal: // gRPC's own code for a message that it cannot read
		return detailOf(status.Convert(err)) == nil
	}
	return false
}
