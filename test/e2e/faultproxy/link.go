package faultproxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// link is one client's connection and the one to the server that belongs to
// it. Each direction has a goroutine; done is closed when the link is cut.
type link struct {
	proxy          *TCP
	client, server net.Conn
	done           chan struct{}
	once           sync.Once
	session        session // of a proxy that tells messages apart
}

var errCut = errors.New("the connection was cut")

// run passes bytes until both directions have ended.
func (l *link) run() {
	var back sync.WaitGroup
	back.Go(func() { l.end(l.client, l.pump(ToClient)) })
	l.end(l.server, l.pump(ToServer))
	back.Wait()
	l.close(closeConn)
}

func closeConn(conn net.Conn) { _ = conn.Close() }

// end passes on how a direction has ended: in order, or not.
func (l *link) end(receiver net.Conn, err error) {
	if err != nil {
		l.close(reset)
		return
	}
	if half, ok := receiver.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

// cut ends the link as a fault, which is counted before anybody can notice.
func (l *link) cut(how func(net.Conn)) {
	l.close(func(conn net.Conn) {
		if conn == l.client {
			l.proxy.counts.cut.Add(1)
		}
		how(conn)
	})
}

// close ends the link, whoever comes first.
func (l *link) close(how func(net.Conn)) {
	l.once.Do(func() {
		close(l.done)
		how(l.client)
		how(l.server)
	})
}

func (l *link) pump(d Direction) error {
	from := l.client
	if d == ToClient {
		from = l.server
	}
	if l.proxy.framed != nil {
		return l.pumpMessages(d, from)
	}
	piece := make([]byte, chunk)
	for {
		n, err := from.Read(piece)
		if err := l.pass(d, piece[:n]); err != nil {
			return err
		}
		if err != nil {
			return orderly(err)
		}
	}
}

func orderly(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// pass passes a piece on, when the network lets it, and as far as it does.
func (l *link) pass(d Direction, piece []byte) error {
	if len(piece) == 0 {
		return nil
	}
	frozen, latency := l.proxy.weather(d)
	if latency > 0 {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.done:
			return errCut
		}
		frozen, _ = l.proxy.weather(d)
	}
	for frozen != nil {
		select {
		case <-frozen:
			frozen, _ = l.proxy.weather(d)
		case <-l.done:
			return errCut
		}
	}
	to := l.server
	if d == ToClient {
		to = l.client
	}
	allowed, last := l.proxy.take(d, len(piece))
	n, err := to.Write(piece[:allowed])
	l.proxy.counts.bytes[d].Add(int64(n))
	if last {
		l.cut(closeConn) // no reset: it could overtake the bytes that are to arrive
		return errCut
	}
	return err
}
