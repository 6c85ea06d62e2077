package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

const (
	// idleConnections is how many connections to the server are kept for later.
	// A writer has at most that many uploads and reads under way at once.
	idleConnections = 64
	// ioBuffer is how much of a body is handed to the kernel at once.
	ioBuffer = 128 << 10
	// maxListing and maxOther bound the answers that the SDK reads into memory: a
	// page of 1000 keys with all their escapes, and errors.
	maxListing = 16 << 20
	maxOther   = 64 << 10
)

var errAnswerTooLong = errors.New("the answer has no end")

// wire sends the SDK's requests. It follows no redirect, keeps no cookies, and
// bounds what the SDK would read without a bound.
type wire struct{ transport *http.Transport }

// newWire takes over, from what the SDK would use, the certificates of
// AWS_CA_BUNDLE.
func newWire(from aws.HTTPClient, stall time.Duration) *wire {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if client, ok := from.(*awshttp.BuildableClient); ok {
		t.TLSClientConfig = client.GetTransport().TLSClientConfig
	}
	dialer := &net.Dialer{Timeout: min(10*time.Second, stall), KeepAlive: 15 * time.Second}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		plain, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: plain, stall: stall}, nil
	}
	t.MaxIdleConns = 4 * idleConnections
	t.MaxIdleConnsPerHost = idleConnections
	t.IdleConnTimeout = stall / 2 // a connection in use is never older than its own deadline
	t.TLSHandshakeTimeout = min(10*time.Second, stall)
	t.ResponseHeaderTimeout = stall
	t.ExpectContinueTimeout = time.Second
	t.MaxResponseHeaderBytes = 64 << 10
	t.DisableCompression = true
	t.WriteBufferSize, t.ReadBufferSize = ioBuffer, ioBuffer
	return &wire{t}
}

// Do implements the SDK's client.
func (w *wire) Do(req *http.Request) (*http.Response, error) {
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: begin})
	resp, err := w.transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	limit := int64(maxOther)
	if req.Method == http.MethodGet && resp.StatusCode < http.StatusMultipleChoices {
		if !req.URL.Query().Has("list-type") {
			return resp, nil // an object, read by ourselves
		}
		limit = maxListing
	}
	resp.Body = &boundedBody{resp.Body, limit}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// The end may just be here.
		if n, err := b.ReadCloser.Read(p[:min(len(p), 1)]); n == 0 {
			return 0, err
		}
		return 0, errAnswerTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// conn fails when no byte moves in either direction for so long as stall.
//
// A server that refuses a request before it has read the body may answer and close, and then
// the kernel refuses to send the rest. The answer is there to be read, but net/http gives up at
// the failed Write. So what can no longer be sent of a request that has begun is dropped
// instead, and Read finds the answer, or the same failure.
type conn struct {
	net.Conn
	stall time.Duration
	// begun: something of the current request was written. Before that a failure
	// means a connection that was idle for too long, and net/http takes another one.
	begun atomic.Bool
	// cut: the rest is dropped. The other side is gone, so Read soon ends too.
	cut atomic.Bool
}

func (c *conn) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
	if c.cut.Load() {
		return len(p), nil
	}
	// A Read of the answer may have been waiting for long already.
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if gone := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE); gone && c.begun.Load() {
		c.cut.Store(true)
		return len(p), nil
	}
	if n > 0 {
		c.begun.Store(true)
	}
	return n, err
}

// begin is told which connection a request will use.
func begin(info httptrace.GotConnInfo) {
	used := info.Conn
	if secure, ok := used.(*tls.Conn); ok {
		used = secure.NetConn()
	}
	if c, ok := used.(*conn); ok {
		c.begun.Store(false)
	}
}

// traced returns a context under which sent becomes true before the first byte of
// a request leaves: its head is in the buffer then, which it never fills. Until then the
// server cannot have heard of it.
func traced(ctx context.Context, sent *atomic.Bool) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
}
