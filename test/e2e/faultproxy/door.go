package faultproxy

import (
	"net"
	"sync"

	"github.com/streamhouse/streamhouse/test/e2e/loopback"
)

// door is a listener that can be shut and opened again at the same address.
// While it is shut the kernel refuses connections.
type door struct {
	addr *net.TCPAddr

	mu     sync.Mutex
	inner  *net.TCPListener // nil while it is shut
	opened chan struct{}    // closed when it is opened, or closed for good
	closed bool
}

func newDoor() (*door, error) {
	inner, err := loopback.Listen()
	if err != nil {
		return nil, err
	}
	return &door{addr: inner.Addr().(*net.TCPAddr), inner: inner}, nil
}

// Accept waits through the times in which the door is shut.
func (d *door) Accept() (net.Conn, error) {
	for {
		d.mu.Lock()
		inner, opened, closed := d.inner, d.opened, d.closed
		d.mu.Unlock()
		switch {
		case closed:
			return nil, net.ErrClosed
		case inner == nil:
			<-opened
		default:
			conn, err := inner.AcceptTCP()
			if err == nil {
				return conn, nil
			}
			if d.is(inner) {
				return nil, err
			}
		}
	}
}

func (d *door) is(inner *net.TCPListener) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inner == inner
}

// Addr is the address, whether the door is open or shut.
func (d *door) Addr() net.Addr { return d.addr }

func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inner != nil {
		_ = d.inner.Close()
		d.inner, d.opened = nil, make(chan struct{})
	}
}

// open opens a door that is shut.
func (d *door) open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inner != nil || d.closed {
		return nil
	}
	inner, err := net.ListenTCP("tcp", d.addr) // which does not wait
	if err == nil {
		d.inner = inner
		close(d.opened)
	}
	return err
}

// Close closes the door for good.
func (d *door) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	if d.inner == nil {
		close(d.opened)
		return nil
	}
	return d.inner.Close()
}

// reset closes a connection without a farewell: the other side sees a reset.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
