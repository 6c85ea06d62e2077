package faultproxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
)

// echo is a server that sends back what it gets, and remembers it.
type echo struct {
	listener net.Listener
	mu       sync.Mutex
	got      bytes.Buffer
	serving  sync.WaitGroup
}

func newEcho(t *testing.T) *echo {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	e := &echo{listener: listener}
	e.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			e.serving.Go(func() { e.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		e.serving.Wait()
	})
	return e
}

func (e *echo) serve(conn net.Conn) {
	defer conn.Close()
	piece := make([]byte, 1024)
	for {
		n, err := conn.Read(piece)
		e.mu.Lock()
		e.got.Write(piece[:n])
		e.mu.Unlock()
		if _, writeErr := conn.Write(piece[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

func (e *echo) has() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got.String()
}

// line is a client's connection through a proxy.
type line struct {
	*testing.T
	*net.TCPConn
}

func newLine(t *testing.T, p *faultproxy.TCP) *line {
	conn, err := net.Dial("tcp", p.Addr())
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &line{t, conn.(*net.TCPConn)}
}

func (l *line) say(text string) {
	l.Helper()
	_, err := l.Write([]byte(text))
	must(l.T, err)
}

// hear returns what comes until as many bytes are there as in want, or an error.
func (l *line) hear(n int, limit time.Duration) (string, error) {
	l.Helper()
	must(l.T, l.SetReadDeadline(time.Now().Add(limit)))
	text := make([]byte, n)
	got, err := io.ReadFull(l, text)
	return string(text[:got]), err
}

func (l *line) want(text string) {
	l.Helper()
	if got, err := l.hear(len(text), patience); got != text || err != nil {
		l.Errorf("heard %q, error %v, want %q", got, err, text)
	}
}

// silence waits for what must not come.
func (l *line) silence() {
	l.Helper()
	if got, err := l.hear(1, pause); !errors.Is(err, os.ErrDeadlineExceeded) {
		l.Errorf("heard %q, error %v, want silence", got, err)
	}
}

func (l *line) broken(want error) {
	l.Helper()
	if got, err := l.hear(1, patience); !errors.Is(err, want) {
		l.Errorf("heard %q, error %v, want %v", got, err, want)
	}
}

func TestTCP_PassesBothDirectionsAndEndsInOrder(t *testing.T) {
	server := newEcho(t)
	p := faultproxy.NewTCP(t, server.listener.Addr().String())
	l := newLine(t, p)
	l.say("hello")
	l.want("hello")
	must(t, l.CloseWrite())
	l.broken(io.EOF)
	within(t, "the connection has ended", func() bool { return p.Connections() == 0 })
	if c := p.Counts(); c != (faultproxy.Counts{Accepted: 1, Bytes: [2]int64{5, 5}}) {
		t.Errorf("counts %+v", c)
	}
}

func TestTCP_CutResetsWhatIsThereAndTakesNewOnes(t *testing.T) {
	p := faultproxy.NewTCP(t, newEcho(t).listener.Addr().String())
	for range 2 {
		l := newLine(t, p)
		l.say("hello")
		l.want("hello")
		p.Cut()
		l.broken(syscall.ECONNRESET)
	}
	if c := p.Counts(); c.Cut != 2 || c.Accepted != 2 {
		t.Errorf("counts %+v", c)
	}
}

func TestTCP_CutAfterPassesExactlySoManyBytes(t *testing.T) {
	for _, d := range []faultproxy.Direction{faultproxy.ToServer, faultproxy.ToClient} {
		for n := range int64(6) {
			server := newEcho(t)
			p := faultproxy.NewTCP(t, server.listener.Addr().String())
			l := newLine(t, p)
			l.say("first")
			l.want("first")
			p.CutAfter(d, n)
			l.say("second")
			heard, err := l.hear(7, patience)
			if err == nil || p.Counts().Cut != 1 {
				t.Errorf("direction %d, %d bytes: heard %q, cut %d", d, n, heard, p.Counts().Cut)
			}
			if d == faultproxy.ToServer {
				within(t, "the server has its bytes", func() bool { return server.has() == "first"+"second"[:n] })
			} else if heard != "second"[:n] {
				t.Errorf("%d bytes: heard %q", n, heard)
			}
			again := newLine(t, p)
			again.say("a cut happens once")
			again.want("a cut happens once")
		}
	}
}

func TestTCP_FreezeStopsOneDirectionUntilTheThaw(t *testing.T) {
	server := newEcho(t)
	p := faultproxy.NewTCP(t, server.listener.Addr().String())
	l := newLine(t, p)
	l.say("1")
	l.want("1")

	p.Freeze(faultproxy.ToClient)
	l.say("2")
	within(t, "the server has heard", func() bool { return server.has() == "12" })
	l.silence()
	p.Thaw()
	l.want("2")

	p.Freeze(faultproxy.ToServer)
	l.say("3")
	l.silence()
	if server.has() != "12" {
		t.Errorf("the server has %q", server.has())
	}
	p.Thaw()
	l.want("3")

	p.Freeze(faultproxy.ToServer)
	p.Freeze(faultproxy.ToClient)
	l.say("4")
	p.Cut() // also ends what is frozen
	l.broken(syscall.ECONNRESET)
	within(t, "the connection has ended", func() bool { return p.Connections() == 0 })
}

func TestTCP_LatencyIsAddedInEachDirection(t *testing.T) {
	p := faultproxy.NewTCP(t, newEcho(t).listener.Addr().String())
	l := newLine(t, p)
	const latency = 20 * time.Millisecond
	p.Latency(latency)
	began := time.Now()
	l.say("hello")
	l.want("hello")
	if took := time.Since(began); took < 2*latency {
		t.Errorf("the answer came after %v", took)
	}
	p.Latency(time.Hour)
	l.say("late")
	l.silence()
	p.Cut()
	l.broken(syscall.ECONNRESET)
}

func TestTCP_RefusesNewConnectionsOnly(t *testing.T) {
	p := faultproxy.NewTCP(t, newEcho(t).listener.Addr().String())
	l := newLine(t, p)
	l.say("1")
	l.want("1")
	for range 2 {
		p.Refuse()
		if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		l.say("2")
		l.want("2")
		must(t, p.Up())
		newLine(t, p).say("3")
	}
	p.Down()
	l.broken(syscall.ECONNRESET)
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
}

func TestTCP_ResetsWhenTheServerIsGone(t *testing.T) {
	server := newEcho(t)
	must(t, server.listener.Close())
	p := faultproxy.NewTCP(t, server.listener.Addr().String())
	conn, err := net.Dial("tcp", p.Addr())
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) { // which dialing may see too
		t.Errorf("error %v", err)
	}
	if c := p.Counts(); c.Unreachable != 1 || c.Cut != 0 {
		t.Errorf("counts %+v", c)
	}
}

func TestTCP_CloseEndsEverything(t *testing.T) {
	for _, prepare := range []func(*faultproxy.TCP){
		func(*faultproxy.TCP) {},
		func(p *faultproxy.TCP) { p.Freeze(faultproxy.ToServer) },
		func(p *faultproxy.TCP) { p.Freeze(faultproxy.ToClient) },
		func(p *faultproxy.TCP) { p.Latency(time.Hour) },
		(*faultproxy.TCP).Refuse,
	} {
		p := faultproxy.NewTCP(t, newEcho(t).listener.Addr().String())
		l := newLine(t, p)
		within(t, "the connection is there", func() bool { return p.Connections() == 1 })
		prepare(p)
		l.say("hello")
		p.Close()
		if p.Connections() != 0 {
			t.Error("a connection is there")
		}
		if _, err := net.Dial("tcp", p.Addr()); err == nil {
			t.Error("a closed proxy takes connections")
		}
		p.Close()
	}
}
