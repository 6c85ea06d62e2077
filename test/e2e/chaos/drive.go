package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// Config is one run.
type Config struct {
	// Open opens the two stores, or reaches agents, as a process of its own would;
	// every writer and reader has its own. It is called again until it succeeds.
	Open func(ctx context.Context) (*Reach, error)
	// Topic exists, with so many partitions.
	Topic      string
	Partitions int32

	Writers, Readers int
	// Pace is the pause of a writer between two bursts, Burst how many records
	// one has at most.
	Pace  time.Duration
	Burst int
	// Lives is how long a writer lives before it is closed and another takes
	// its place, on average. 0: as long as the run.
	Lives time.Duration
	Seed  uint64
}

// Counts says what happened.
type Counts struct {
	Sent, Acked, Failed, Unknown, Stored atomic.Int64
	Read                                 atomic.Int64
	Opens, FailedOpens                   atomic.Int64
	// Commits are transactions that were asked for, FailedCommits those that
	// certainly did nothing, AmbiguousCommits those of unknown outcome.
	Commits, FailedCommits, AmbiguousCommits atomic.Int64
	// Retries are batches that producers sent again, Doubts those of them whose
	// first outcome was unknown, Abandoned those they gave up with their outcome open.
	Retries, Doubts, Abandoned atomic.Int64
}

// Record implements ports.Telemetry.
func (c *Counts) Record(e ports.Event) {
	switch e.Kind {
	case ports.MetadataCommit:
		c.Commits.Add(1)
		switch {
		case e.Err == nil:
		case ports.KindOf(e.Err) == ports.Ambiguous:
			c.AmbiguousCommits.Add(1)
		default:
			c.FailedCommits.Add(1)
		}
	case ports.BatchRetried:
		c.Retries.Add(1)
		if e.Err != nil && ports.KindOf(e.Err) == ports.Ambiguous {
			c.Doubts.Add(1)
		}
	case ports.BatchAbandoned:
		c.Abandoned.Add(1)
	}
}

func (c *Counts) String() string {
	return fmt.Sprintf("sent %d, acknowledged %d, stored at an unknown offset %d, not stored %d, unknown %d; read %d; opened %d times, %d attempts to open failed; "+
		"%d commits, %d failed, %d of unknown outcome; %d batches sent again, %d of them of unknown outcome, %d given up",
		c.Sent.Load(), c.Acked.Load(), c.Stored.Load(), c.Failed.Load(), c.Unknown.Load(), c.Read.Load(), c.Opens.Load(), c.FailedOpens.Load(),
		c.Commits.Load(), c.FailedCommits.Load(), c.AmbiguousCommits.Load(), c.Retries.Load(), c.Doubts.Load(), c.Abandoned.Load())
}

// Run is a run in progress.
type Run struct {
	Counts
	cfg      Config
	recorder *history.Recorder
	history  bytes.Buffer
	failures []error
	mu       sync.Mutex // guards failures

	stopWriting, stopReading chan struct{}
	writers, readers         sync.WaitGroup
}

// Start starts the writers and readers.
func Start(t *testing.T, cfg Config) *Run {
	t.Helper()
	r := &Run{cfg: cfg, stopWriting: make(chan struct{}), stopReading: make(chan struct{})}
	r.recorder = history.NewRecorder(&r.history)
	r.recorder.Record(history.Event{Kind: history.Create, Topic: cfg.Topic, Incarnation: 1})
	for i := range cfg.Writers {
		w := &writer{run: r, name: fmt.Sprintf("writer-%d", i), random: rand.New(rand.NewPCG(cfg.Seed, uint64(i)))}
		r.writers.Go(w.work)
	}
	for i := range cfg.Readers {
		r.readers.Go(func() { r.follow(fmt.Sprintf("reader-%d", i)) })
	}
	return r
}

func (r *Run) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Errorf(format, args...))
}

// Finish is called after everything has healed: it waits until every record's
// fate is known, reads the log to its end and checks the history. It returns how
// long the writers took to come to their end.
func (r *Run) Finish(t *testing.T) (drained time.Duration) {
	t.Helper()
	began := time.Now()
	close(r.stopWriting)
	r.writers.Wait()
	drained = time.Since(began)
	close(r.stopReading)
	r.readers.Wait()
	r.final(t)
	if err := r.recorder.Close(); err != nil {
		t.Error(err)
	}
	for _, err := range r.failures {
		t.Error(err)
	}
	violations, err := history.Check(bytes.NewReader(r.history.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range violations {
		if i == 20 {
			t.Errorf("and %d more", len(violations)-i)
			break
		}
		t.Error(v)
	}
	return drained
}

// WriteHistory writes the history as JSON lines, for people who look for the
// cause of a violation.
func (r *Run) WriteHistory(w io.Writer) error {
	_, err := w.Write(r.history.Bytes())
	return err
}

// stores opens the stores, however often it takes. Nil if stop is closed before.
func (r *Run) stores(stop <-chan struct{}) *Reach {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		reach, err := r.cfg.Open(ctx)
		cancel()
		if err == nil {
			r.Opens.Add(1)
			return reach
		}
		r.FailedOpens.Add(1)
		if !sleep(stop, 100*time.Millisecond) {
			return nil
		}
	}
}

// sleep reports false if stop was closed.
func sleep(stop <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
		return false
	}
}

// Reach is how one process reaches the log: by its stores, or through agents.
type Reach struct {
	Metadata ports.MetadataStore
	Segments ports.SegmentStore
	// Agents takes the place of both; its Close is called if it has one.
	Agents ports.AgentClient
}

// cluster makes a streamhouse.Cluster of the stores.
type cluster struct{ *Reach }

func (c cluster) Metadata() ports.MetadataStore { return c.Reach.Metadata }
func (c cluster) Segments() ports.SegmentStore  { return c.Reach.Segments }

func (p *Reach) topics() ports.Topics {
	if p.Agents != nil {
		return p.Agents
	}
	return p.Metadata
}

func (p *Reach) producer() *streamhouse.ProducerBuilder {
	if p.Agents != nil {
		return streamhouse.NewProducerBuilder().Agents(p.Agents)
	}
	return streamhouse.NewProducerBuilder().Cluster(cluster{p})
}

func (p *Reach) consumer() *streamhouse.ConsumerBuilder {
	if p.Agents != nil {
		return streamhouse.NewConsumerBuilder().Agents(p.Agents)
	}
	return streamhouse.NewConsumerBuilder().Cluster(cluster{p})
}

// Close closes what there is.
func (p *Reach) Close() error {
	var errs []error
	for _, part := range []any{p.Metadata, p.Segments, p.Agents} {
		if c, ok := part.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// final reads every partition to its end.
func (r *Run) final(t *testing.T) {
	t.Helper()
	p := r.stores(nil)
	defer func() { _ = p.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d, err := streamhouse.NewTopics(p.topics()).Describe(ctx, r.cfg.Topic)
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.consumer().Assign(r.cfg.Topic, streamhouse.FromStart()).Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, s := range d.States {
		r.recorder.Record(history.Event{Kind: history.Assign, Actor: "final", Topic: r.cfg.Topic, Incarnation: 1, Partition: int32(s.Partition), Offset: int64(s.LogStart)})
	}
	for failures := 0; ; failures++ {
		err := r.readToEnd(ctx, c)
		if err == nil {
			break
		}
		if failures == maxFinalFailures || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	for _, s := range d.States {
		r.recorder.Record(history.Event{
			Kind: history.Final, Actor: "final", Topic: r.cfg.Topic, Incarnation: 1, Partition: int32(s.Partition),
			Start: int64(s.LogStart), High: int64(s.HighWatermark),
		})
	}
}

// maxFinalFailures is how often the final read may fail, and go on: stores that
// were cut off a moment ago may say so once more.
const maxFinalFailures = 20

func (r *Run) readToEnd(ctx context.Context, c *streamhouse.Consumer) error {
	for m, err := range c.ReadToEnd(ctx) {
		if err != nil {
			return err
		}
		r.read("final", m)
	}
	return nil
}

func (r *Run) read(actor string, m streamhouse.Message) {
	r.Read.Add(1)
	r.recorder.Record(history.Event{
		Kind: history.Read, Actor: actor, Topic: r.cfg.Topic, Incarnation: 1, Partition: int32(m.Partition),
		Offset: int64(m.Offset), ID: string(m.Value),
	})
}
