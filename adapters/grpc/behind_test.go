package grpc_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	grpcgo "google.golang.org/grpc"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// TestLending_ServesTheEndOfTheLogWhileOthersAreFarBehind has clients that are far
// behind ask for all that there is and read none of it.
func TestLending_ServesTheEndOfTheLogWhileOthersAreFarBehind(t *testing.T) {
	c := newCluster(t, tcp{})
	a := c.start("", func(_ *grpc.Backend, cfg *grpc.ServerConfig) { cfg.FetchBytes, cfg.FetchTotalBytes = 2<<20, 16<<20 })
	old, fresh := c.topic("old"), c.topic("fresh")
	client := c.dial()
	var many batch.Builder
	many.Reset(nil)
	for range 12_000 {
		many.Append(1, nil, make([]byte, 250), nil)
	}
	encoded, err := many.Encode(nil, nil, batch.NoProducer)
	if err != nil {
		t.Fatal(err)
	}
	if r := appendAll(t, client, ports.Batch{PartitionKey: old, Bytes: encoded}, newBatch(t, fresh, "first")); r[0].Err != nil || r[1].Err != nil {
		t.Fatal(r)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	const lagging = 30
	for range lagging {
		conn := raw(t, a, grpcgo.WithInitialWindowSize(64<<10), grpcgo.WithInitialConnWindowSize(64<<10))
		stream, err := conn.NewStream(ctx, &grpcgo.StreamDesc{ServerStreams: true}, agentv1.LogService_Fetch_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(&agentv1.FetchRequest{Positions: []*agentv1.FetchPosition{{TopicId: old.Topic[:]}}, MaxBytes: 8 << 20}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the clients far behind do not use up what there is", func() bool { return a.server.Stats().FetchBytes > 10<<20 }) // less than one more asks for is left
	behind, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	request := func(key commit.PartitionKey, from domain.Offset, wait time.Duration) ports.FetchRequest {
		return ports.FetchRequest{Partitions: []ports.FetchPosition{{PartitionKey: key, Offset: from}}, MaxBytes: 8 << 20, MaxWait: wait}
	}
	if got, err := client.Fetch(behind, request(old, 0, 0)); err == nil {
		t.Errorf("one more far behind gets %d bytes, want it to wait", len(got[0].Batches))
	}
	for i, value := range []string{"first", "second", "third"} {
		got, err := client.Fetch(t.Context(), request(fresh, domain.Offset(i), patience))
		if err != nil || got[0].Err != nil || !bytes.Contains(got[0].Batches, []byte(value)) {
			t.Fatalf("at the end: %v, %v", got, err)
		}
		waits := make(chan error, 1)
		go func() { // at the very end, waiting for what comes
			got, err := client.Fetch(t.Context(), request(fresh, domain.Offset(i+1), patience))
			if err == nil && len(got[0].Batches) == 0 {
				err = errors.New("nothing")
			}
			waits <- err
		}()
		if r := appendAll(t, client, newBatch(t, fresh, []string{"second", "third", "fourth"}[i])); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
		if err := within(t, waits, "who waits at the end is not served"); err != nil {
			t.Errorf("who waits at the end gets %v", err)
		}
	}
	giveUp()
	if got, err := client.Fetch(t.Context(), request(old, 0, 0)); err != nil || len(got[0].Batches) == 0 {
		t.Errorf("far behind, with room again: %v", err)
	}
	eventually(t, "what was lent is not given back", func() bool { return a.server.Stats().FetchBytes == 0 })
}
