// Package loopback gives tests ports on this machine that a server may leave
// for a moment and come back to.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken from below those that the kernel gives to outgoing
// connections, so that a server that is down finds its port free again.
const (
	firstPort = 15_000
	lastPort  = 32_000
	tries     = 1_000
)

// Listen listens on a port that was free. Nobody but this machine reaches it.
func Listen() (*net.TCPListener, error) {
	var err error
	for range tries {
		var listener net.Listener
		port := firstPort + rand.IntN(lastPort-firstPort)
		if listener, err = net.Listen("tcp", Addr(port)); err == nil {
			return listener.(*net.TCPListener), nil
		}
	}
	return nil, fmt.Errorf("no free port in %d tries: %w", tries, err)
}

// FreePort is a port that was free a moment ago. Another process may be faster.
func FreePort() (int, error) {
	listener, err := Listen()
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

// Addr is the host and port of a port.
func Addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
