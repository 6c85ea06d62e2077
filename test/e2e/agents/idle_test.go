package agents_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/adapters/grpc"
)

// idleHeap bounds what an idle client may cost its agent, in bytes of heap. It is
// far above what is measured, which the test prints.
const idleHeap = 256 << 10

// TestAgents_IdleClientsAskForNothing connects clients that do nothing, a thousand
// in the longer runs. They cost memory, which is printed, and no request to the bucket.
func TestAgents_IdleClientsAskForNothing(t *testing.T) {
	t.Parallel()
	idleClients := 200
	if *duration >= 20*time.Second {
		idleClients = 1000
	}
	f := fleetOf(t, 1)
	before, err := f.agents[0].usage()
	must(t, err)
	clients := make([]*grpc.Client, 0, idleClients)
	t.Cleanup(func() {
		var errs []error
		for _, c := range clients {
			errs = append(errs, c.Close())
		}
		must(t, errors.Join(errs...))
	})
	for range idleClients {
		c, err := grpc.Dial(t.Context(), f.client())
		must(t, err)
		clients = append(clients, c)
		_, err = c.Topic(t.Context(), topic) // connects
		must(t, err)
	}
	eventually(t, "all are connected", func() error {
		if n := f.agents[0].status().Connections; n != idleClients {
			return fmt.Errorf("there are %d connections", n)
		}
		return nil
	})
	puts, gets := f.toBucket.Requests("PUT"), f.toBucket.Requests("GET")
	smallest := usage{heap: 1 << 60}
	for range 30 {
		rest(100 * time.Millisecond)
		u, err := f.agents[0].usage()
		must(t, err)
		if u.heap < smallest.heap {
			smallest = u
		}
	}
	if puts, gets = f.toBucket.Requests("PUT")-puts, f.toBucket.Requests("GET")-gets; puts+gets != 0 {
		t.Errorf("%d PUTs and %d GETs while nobody did anything", puts, gets)
	}
	each := (smallest.heap - before.heap) / float64(idleClients)
	t.Logf("for each of %d idle clients the agent has %.1f KiB of heap and %.1f goroutines", idleClients, each/1024, (smallest.goroutines-before.goroutines)/float64(idleClients))
	if each > idleHeap {
		t.Errorf("an idle client costs %.0f bytes of heap", each)
	}
}
