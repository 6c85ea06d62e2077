package grpc_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
)

// workload is records sent by one producer to the partitions in turn, and what
// became of each.
type workload struct {
	t          *testing.T
	c          *cluster
	partitions int32
	telemetry  *retries

	mu      sync.Mutex
	results map[string]streamhouse.SendResult
	errs    []error
}

// retries remembers why a batch was first sent again.
type retries struct {
	*memory.Telemetry
	once  sync.Once
	first error
}

func (r *retries) Record(e ports.Event) {
	if e.Kind == ports.BatchRetried {
		r.once.Do(func() { r.first = e.Err })
	}
	r.Telemetry.Record(e)
}

func newWorkload(t *testing.T, c *cluster, partitions int32) *workload {
	t.Helper()
	if _, err := c.metadata.CreateTopic(t.Context(), streamhouse.TopicSpec{Name: "orders", Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	return &workload{t: t, c: c, partitions: partitions, telemetry: &retries{Telemetry: memory.NewTelemetry()}, results: make(map[string]streamhouse.SendResult)}
}

// send sends n records through client, pausing now and then, and waits for all.
func (w *workload) send(client *grpc.Client, n int, pause time.Duration, change ...func(*streamhouse.ProducerBuilder)) {
	w.t.Helper()
	b := streamhouse.NewProducerBuilder().Agents(client).Telemetry(w.telemetry).RetryBackoff(2 * time.Millisecond).DeliveryTimeout(time.Minute)
	for _, f := range change {
		f(b)
	}
	p, err := b.Build(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range n {
		value := fmt.Sprintf("%d", i/int(w.partitions))
		partition := streamhouse.PartitionID(i % int(w.partitions))
		p.SendAsync(w.t.Context(), streamhouse.Record{Topic: "orders", Value: []byte(value), Partition: streamhouse.ToPartition(partition)},
			func(r streamhouse.SendResult, err error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if err != nil {
					w.errs = append(w.errs, fmt.Errorf("record %s of partition %d: %w", value, partition, err))
					return
				}
				w.results[fmt.Sprintf("%d/%s", partition, value)] = r
			})
		if i%16 == 15 && pause > 0 {
			<-time.After(pause)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		w.t.Errorf("close: %v", err)
	}
}

// check demands that every record is acknowledged, is where its acknowledgement
// says, and is there once, in order.
func (w *workload) check(n int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, err := range w.errs {
		if i < 5 {
			w.t.Errorf("%v", err)
		}
	}
	if len(w.results) != n {
		w.t.Errorf("%d records are acknowledged, %d failed, of %d", len(w.results), len(w.errs), n)
	}
	consumer, err := streamhouse.NewConsumerBuilder().MetadataStore(w.c.metadata).SegmentStore(w.c.segments).
		Assign("orders", streamhouse.FromStart()).Build(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer consumer.Close()
	next := make([]int, w.partitions)
	for m, err := range consumer.ReadToEnd(w.t.Context()) {
		if err != nil {
			w.t.Fatal(err)
		}
		if string(m.Value) != fmt.Sprint(next[m.Partition]) {
			w.t.Fatalf("partition %d: record %s is at offset %d, where %d was due", m.Partition, m.Value, m.Offset, next[m.Partition])
		}
		if r := w.results[fmt.Sprintf("%d/%s", m.Partition, m.Value)]; r.Offset != m.Offset {
			w.t.Fatalf("partition %d: record %s is at %d, its acknowledgement says %d", m.Partition, m.Value, m.Offset, r.Offset)
		}
		next[m.Partition]++
	}
	total := 0
	for _, k := range next {
		total += k
	}
	if total != n {
		w.t.Errorf("%d records are there, want %d", total, n)
	}
}

// impatient lets a client give up a silent agent soon.
func impatient(cfg *grpc.ClientConfig) {
	cfg.StallAfter, cfg.ConnectTimeout, cfg.RefreshInterval = 300*time.Millisecond, 300*time.Millisecond, 200*time.Millisecond
}

// TestFailover_LosesRepeatsAndReordersNothing kills, drains, pauses and starts
// agents at random under a producer, with hedging in every other run.
func TestFailover_LosesRepeatsAndReordersNothing(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			g := newGates(newPipes())
			c := newCluster(t, g)
			c.slowDown(30 * time.Millisecond)
			x := &chaos{c: c, g: g, random: rand.New(rand.NewPCG(seed, 1)), running: map[int]*agent{}}
			for i := range 3 {
				x.running[i] = c.start("")
			}
			w := newWorkload(t, c, 4)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			client := c.dial(impatient, func(cfg *grpc.ClientConfig) {
				if seed%2 == 1 {
					cfg.HedgeAfter = 10 * time.Millisecond // which is often, with puts of up to 30 ms
				}
			})
			wg.Go(func() { x.run(client, stop) })
			const records = 8000
			w.send(client, records, 2*time.Millisecond)
			close(stop)
			wg.Wait()
			w.check(records)
			hedged := seed%2 == 1 // which may hide every failure from the producer
			if x.done == 0 || w.telemetry.Count(ports.BatchRetried) == 0 && !hedged {
				t.Errorf("%d agents were harmed, and %d batches sent again: that proves nothing", x.done, w.telemetry.Count(ports.BatchRetried))
			}
		})
	}
}

// chaos harms agents, the one in use more often. At least one is always there.
type chaos struct {
	c       *cluster
	g       *gates
	random  *rand.Rand
	running map[int]*agent
	done    int
}

func (x *chaos) run(client *grpc.Client, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(20+x.random.IntN(60)) * time.Millisecond):
		}
		i := x.random.IntN(3)
		for j, a := range x.running {
			if a.addr == client.Address() && x.random.IntN(4) > 0 {
				i = j
			}
		}
		a := x.running[i]
		switch x.random.IntN(3) {
		case 0:
			a.kill()
			x.running[i] = x.c.start("")
		case 1:
			a.drain()
			x.running[i] = x.c.start("")
		case 2:
			x.g.pause(a.addr)
			select {
			case <-time.After(time.Duration(x.random.IntN(500)) * time.Millisecond):
			case <-stop:
			}
			x.g.resume(a.addr)
		}
		x.done++
	}
}

func TestDrain_FailsNoSendAndRepeatsNone(t *testing.T) {
	c := newCluster(t, tcp{})
	c.slowDown(30 * time.Millisecond)
	agents := []*agent{c.start(""), c.start(""), c.start("")}
	w := newWorkload(t, c, 4)
	var wg sync.WaitGroup
	wg.Go(func() { // a rolling restart
		for _, a := range agents {
			<-time.After(100 * time.Millisecond)
			c.start("")
			a.drain()
		}
	})
	const records = 6000
	w.send(c.dial(func(cfg *grpc.ClientConfig) { cfg.RefreshInterval = 200 * time.Millisecond }), records, 2*time.Millisecond)
	wg.Wait()
	w.check(records)
	if n := w.telemetry.Count(ports.BatchRetried); n != 0 {
		t.Errorf("%d batches were sent again, first because of: %v", n, w.telemetry.first)
	}
	for i, a := range agents {
		if s := a.server.Stats(); s.HeldBytes != 0 || s.Streams != 0 || s.Connections != 0 {
			t.Errorf("agent %d ended with %+v", i, s)
		}
	}
}
