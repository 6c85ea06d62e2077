package loopback_test

import (
	"net"
	"testing"

	"github.com/streamhouse/streamhouse/test/e2e/loopback"
)

func TestFreePort_IsFreeAndNoPortOfOutgoingConnections(t *testing.T) {
	for range 20 {
		port, err := loopback.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if port >= 32_768 { // where Linux begins, unless told otherwise
			t.Errorf("port %d may be taken by an outgoing connection", port)
		}
		listener, err := net.Listen("tcp", loopback.Addr(port))
		if err != nil {
			t.Fatalf("port %d is not free: %v", port, err)
		}
		_ = listener.Close()
	}
}
