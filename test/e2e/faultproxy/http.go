package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// HTTP is a proxy in front of an HTTP server. The server sees the host that
// the client has asked for, so that signatures stay right. If it does not answer the client's
// connection is reset.
type HTTP struct {
	*rules
	door    *door
	server  *http.Server
	proxy   *httputil.ReverseProxy
	outward *http.Transport

	ended  context.Context // how waits see that the proxy closes; it has no deadline and no values
	end    context.CancelFunc
	serves sync.WaitGroup // of connections, and of the one that accepts them

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

// NewHTTP makes a proxy in front of the server at the URL. The seed decides
// what rules with a chance do. It closes at the end of tb.
func NewHTTP(tb testing.TB, backend string, seed uint64) *HTTP {
	tb.Helper()
	target, err := url.Parse(backend)
	if err != nil {
		tb.Fatalf("fault proxy: %v", err)
	}
	entrance, err := newDoor()
	if err != nil {
		tb.Fatalf("fault proxy: %v", err)
	}
	silent := log.New(io.Discard, "", 0)
	p := &HTTP{rules: newRules(seed), door: entrance, conns: make(map[net.Conn]bool)}
	p.ended, p.end = context.WithCancel(context.Background())
	p.outward = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	p.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		Transport: p.outward, ErrorLog: silent,
		ModifyResponse: func(answer *http.Response) error { return exchangeOf(answer.Request).answered(answer) },
		ErrorHandler:   func(_ http.ResponseWriter, r *http.Request, err error) { exchangeOf(r).unanswered(err) },
	}
	p.server = &http.Server{Handler: http.HandlerFunc(p.serve), ErrorLog: silent, ConnState: p.track, ReadHeaderTimeout: time.Minute}
	p.serves.Go(func() { _ = p.server.Serve(entrance) })
	tb.Cleanup(p.Close)
	return p
}

// URL is where clients find the proxy.
func (p *HTTP) URL() string { return "http://" + p.door.Addr().String() }

// Inject lets requests fail from now on. The first rule that wants a request has it.
func (p *HTTP) Inject(rule Rule) *Injected { return p.add(rule) }

// Clear removes all rules. Requests that fail already go on failing.
func (p *HTTP) Clear() { p.clear() }

// Requests is how many requests of the method have come.
func (p *HTTP) Requests(method string) int { return p.count(method) }

// Faults is how many faults of each name have been injected.
func (p *HTTP) Faults() map[string]int { return p.counts() }

// Down resets all connections and refuses new ones until Up.
func (p *HTTP) Down() {
	p.door.shut()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for conn := range p.conns {
		reset(conn)
	}
}

// Up takes connections again.
func (p *HTTP) Up() error {
	p.mu.Lock()
	p.down = false
	p.mu.Unlock()
	return p.door.open()
}

// Close ends everything and waits for it. It may be called again.
func (p *HTTP) Close() {
	p.end()
	_ = p.door.Close()
	_ = p.server.Close()
	p.serves.Wait()
	p.outward.CloseIdleConnections()
}

// track knows the connections, to reset them and to wait for them.
func (p *HTTP) track(conn net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateNew:
		p.conns[conn] = true
		p.serves.Add(1)
		if p.down { // it was accepted a moment before the door was shut
			reset(conn)
		}
	case http.StateClosed, http.StateHijacked:
		delete(p.conns, conn)
		p.serves.Done()
	case http.StateActive, http.StateIdle:
	}
}

func (p *HTTP) serve(w http.ResponseWriter, r *http.Request) {
	p.serves.Add(1) // its connection is counted until it ends or is taken over, which happens in here
	defer p.serves.Done()
	e := &exchange{proxy: p, writer: w}
	e.request = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, e))
	if fault, failing := p.decide(r); failing {
		fault.act(e)
		return
	}
	e.forward(nil)
}

// exchange is one request on its way, and what becomes of its answer. It is
// used by the goroutine of the request only.
type exchange struct {
	proxy   *HTTP
	writer  http.ResponseWriter
	request *http.Request
	modify  func(*http.Response) error // of the server's answer, or nil
	instead func()                     // answers in place of the server, or nil
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

// forward asks the server and passes its answer on, as modify leaves it.
func (e *exchange) forward(modify func(*http.Response) error) {
	e.modify = modify
	e.proxy.proxy.ServeHTTP(e.writer, e.request)
}

var errLost = errors.New("this answer is to be lost")

// lose asks the server, waits for the whole answer, and answers otherwise.
func (e *exchange) lose(instead func()) {
	e.instead = instead
	e.forward(func(answer *http.Response) error {
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return fmt.Errorf("the server's answer: %w", err)
		}
		return errLost
	})
}

func (e *exchange) answered(answer *http.Response) error {
	if e.modify == nil {
		return nil
	}
	return e.modify(answer)
}

// unanswered ends an exchange whose answer is not passed on.
func (e *exchange) unanswered(err error) {
	if errors.Is(err, errLost) {
		e.instead()
		return
	}
	e.reset()
}

// fail answers with an error document.
func (e *exchange) fail(status int) {
	header := e.writer.Header()
	clear(header)
	header.Set("Content-Type", "application/xml")
	e.writer.WriteHeader(status)
	_, _ = io.WriteString(e.writer, document(status)) // the server drops it for HEAD
}

// reset resets the client's connection.
func (e *exchange) reset() {
	conn, _, err := http.NewResponseController(e.writer).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	reset(conn)
}

// swallow reads the whole body, so that the client need not be there to send it.
func (e *exchange) swallow() bool {
	content, err := io.ReadAll(e.request.Body)
	e.request.Body = io.NopCloser(bytes.NewReader(content))
	return err == nil
}

// wait reports whether the time has passed before ctx, and the proxy, ended.
func (e *exchange) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-e.proxy.ended.Done():
	}
	return false
}
