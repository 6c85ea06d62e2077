package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// mostPartitions is more than any topic of a run has.
const mostPartitions = 8

// follower is an application that reads one topic as it grows.
type follower struct {
	world      *world
	plan       followerPlan
	name       string
	random     *rand.Rand
	generation int
}

// reading is one consumer of a follower, on one incarnation of the topic.
type reading struct {
	*process
	topic    topicState
	consumer *consumer.Consumer
	fetcher  ports.Fetcher
	paused   bool
	gone     bool // the topic was deleted
}

func (f *follower) run() {
	restarts := f.plan.restarts
	var r *reading
	for !f.isQuiesced() {
		if r == nil || r.dead.Load() || r.gone {
			f.leave(r)
			if r = f.open(); r == nil {
				time.Sleep(100 * time.Millisecond)
				continue
			}
		}
		if !r.step("poll") {
			continue
		}
		if restarts > 0 && f.random.IntN(20) == 0 {
			restarts--
			r.gone = true
			continue
		}
		f.act(r)
		f.rest()
	}
	f.drain(r)
}

// rest lets time pass, always once everything has healed: nothing else may be
// left to do than to wait for others.
func (f *follower) rest() {
	if f.world.isHealed() || f.random.IntN(4) == 0 {
		time.Sleep(time.Duration(f.random.Int64N(int64(100 * time.Millisecond))))
	}
}

// isQuiesced reports whether everything has healed and nothing is written any
// more.
func (f *follower) isQuiesced() bool {
	select {
	case <-f.world.quiesced:
		return true
	default:
		return false
	}
}

func (f *follower) leave(r *reading) {
	if r != nil {
		_ = r.consumer.Close() // always nil
	}
}

// open makes a consumer of the present incarnation, from its start. Nil if
// there is none, or it went wrong.
func (f *follower) open() *reading {
	name := f.world.plan.topics[f.plan.topic].name
	topic, healed := f.world.topic(name), f.world.isHealed()
	if topic.deleting {
		return nil
	}
	f.generation++
	r := &reading{process: f.world.newProcess(fmt.Sprintf("%s.%d", f.name, f.generation), true), topic: topic}
	r.reader = true
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	if err := r.start(ctx, f.plan); err != nil {
		if !f.plan.remote || f.world.quiet() {
			f.world.violate("%s: consumer: %v", r.name, err)
		}
		return nil
	}
	err := r.consumer.Assign(ctx, name, consumer.Start())
	if now := f.world.topic(name); now.incarnation != r.topic.incarnation || now.deleting {
		f.leave(r)
		return nil
	}
	if err != nil {
		if f.world.quiet() || healed {
			f.world.violate("%s: assign without a fault: %v", r.name, err)
		}
		f.leave(r)
		return nil
	}
	for id := range int32(mostPartitions) {
		e := r.event(history.Assign, domain.PartitionID(id))
		if f.world.retention(name) != (domain.Retention{}) {
			e.Offset = history.AnyOffset
		}
		f.world.observe(r.process, e)
	}
	return r
}

func (r *reading) start(ctx context.Context, plan followerPlan) error {
	topics, closeClient := ports.Topics(r.metadata), func() error { return nil }
	r.fetcher = direct.NewReader(r.metadata, r.segments, ports.NoTelemetry{}, direct.DefaultReaderConfig())
	if plan.agent {
		r.fetcher = fault.NewFetcher(&lossy{r.fetcher, r.process}, r.world.scheduler.intercept(r.process))
	}
	if plan.remote {
		client, err := r.world.agents.dial(ctx, r.process)
		if err != nil {
			return err
		}
		topics, r.fetcher, closeClient = client, client, client.Close
	}
	cfg := consumer.DefaultConfig()
	cfg.FetchBytes = 2 << 10
	cfg.FetchMaxWait = 5 * time.Second
	cfg.TopicRefresh = time.Second
	var err error
	r.consumer, err = consumer.New(consumer.Ports{Topics: topics, Fetcher: r.fetcher}, cfg)
	if err == nil {
		r.closers = append(r.closers, func(context.Context) error { return r.consumer.Close() })
	}
	r.closers = append(r.closers, func(context.Context) error { return closeClient() })
	return err
}

func (r *reading) event(kind history.Kind, id domain.PartitionID) history.Event {
	return history.Event{Kind: kind, Actor: r.name, Topic: r.topic.topic.Name, Incarnation: r.topic.incarnation, Partition: int32(id)}
}

func (f *follower) act(r *reading) {
	switch f.random.IntN(12) {
	case 0:
		f.seek(r)
	case 1:
		f.pause(r)
	case 2:
		f.look(r)
	case 3:
		f.inspect(r)
	default:
		ctx, cancel := context.WithTimeout(r.ctx, time.Duration(1+f.random.IntN(2000))*time.Millisecond)
		defer cancel()
		_ = f.poll(ctx, r, f.plan.max)
	}
}

// poll reads what there is, and judges what it is told instead.
func (f *follower) poll(ctx context.Context, r *reading, most int) error {
	messages, err := r.consumer.Poll(ctx, most)
	for _, m := range messages {
		f.world.read(r.process, r.name, r.topic.incarnation, m)
	}
	if err == nil || r.dead.Load() {
		return nil
	}
	r.gone = r.gone || errors.Is(err, domain.ErrTopicNotFound)
	faulty := !f.world.quiet() && !f.world.isHealed()
	switch {
	case errors.Is(err, context.DeadlineExceeded), f.trimmed(r, err):
	case errors.Is(err, domain.ErrOutOfRange):
		f.world.violate("%s was told that its position is out of range: %v", r.name, err)
	case errors.Is(err, domain.ErrTopicNotFound) && f.deleted(r):
	case !faulty && !f.world.isHealed():
		f.world.violate("%s: poll without a fault: %v", r.name, err)
	}
	return err
}

// deleted reports whether the topic that r reads is or was being deleted.
func (f *follower) deleted(r *reading) bool {
	now := f.world.topic(r.topic.topic.Name)
	return now.deletions > r.topic.deletions
}

// seek goes back, within what was read.
func (f *follower) seek(r *reading) {
	if !f.plan.seeks {
		return
	}
	id := domain.PartitionID(f.random.IntN(int(r.topic.topic.Partitions)))
	at, err := r.consumer.Position(r.topic.topic.Name, id)
	if err != nil || at == 0 {
		return
	}
	to := domain.Offset(f.random.Int64N(int64(at)))
	if err := r.consumer.Seek(r.ctx, r.topic.topic.Name, id, consumer.At(to)); err != nil {
		f.world.violate("%s: seek to an offset: %v", r.name, err)
		return
	}
	e := r.event(history.Assign, id)
	e.Offset = int64(to)
	f.world.observe(r.process, e)
}

// pause changes whether the first partition is read.
func (f *follower) pause(r *reading) {
	change := r.consumer.Pause
	if r.paused {
		change = r.consumer.Resume
	}
	if err := change(r.topic.topic.Name, 0); err != nil {
		f.world.violate("%s: pause or resume: %v", r.name, err)
	}
	r.paused = !r.paused
}

// look asks for the bounds of a partition: they must not be older than what was
// acknowledged before.
func (f *follower) look(r *reading) {
	id := domain.PartitionID(f.random.IntN(int(r.topic.topic.Partitions)))
	key := commit.PartitionKey{Topic: r.topic.topic.ID, Partition: id}
	f.world.observe(r.process, r.event(history.Look, id))
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	got, err := r.fetcher.Fetch(ctx, ports.FetchRequest{Partitions: []ports.FetchPosition{{PartitionKey: key}}})
	if err != nil || got[0].Err != nil {
		return
	}
	e := r.event(history.Bounds, id)
	e.High = int64(got[0].HighWatermark)
	f.world.observe(r.process, e)
}

// inspect looks at an answer of the fetcher itself: batches must be whole, begin
// where they were asked for and follow each other, whatever the store gave.
func (f *follower) inspect(r *reading) {
	if f.plan.agent {
		return // a broken agent promises nothing: its consumer finds out
	}
	id := domain.PartitionID(f.random.IntN(int(r.topic.topic.Partitions)))
	from, err := r.consumer.Position(r.topic.topic.Name, id)
	if err != nil {
		return
	}
	from = domain.Offset(f.random.Int64N(int64(from) + 1))
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	key := commit.PartitionKey{Topic: r.topic.topic.ID, Partition: id}
	got, err := r.fetcher.Fetch(ctx, ports.FetchRequest{Partitions: []ports.FetchPosition{{PartitionKey: key, Offset: from}}, MaxBytes: 1 << 20})
	if err != nil || got[0].Err != nil && len(got[0].Batches) == 0 {
		return
	}
	next := from
	for rest := got[0].Batches; len(rest) > 0; {
		h, err := batch.ParseHeader(rest)
		if err != nil || h.BaseOffset > next || h.BaseOffset != next && next != from {
			f.world.violate("%s fetched %s/%d from %d: batch at %d where %d was due, %v", r.name, key.Topic, id, from, h.BaseOffset, next, err)
			return
		}
		next, rest = h.BaseOffset+domain.Offset(h.Records), rest[h.Length:]
	}
	if end := got[0].HighWatermark; got[0].Err == nil && (next > end || next == from && from < end) {
		f.world.violate("%s fetched %s/%d from %d to %d, though it ends at %d", r.name, key.Topic, id, from, next, end)
	}
}

// drain demands, once everything has healed and nothing is written any more,
// that the consumer comes to the end.
func (f *follower) drain(r *reading) {
	begin := time.Now()
	for r == nil || r.dead.Load() || r.gone || f.deleted(r) {
		f.leave(r)
		if r = f.open(); r == nil {
			if time.Since(begin) > settleBound {
				f.world.violate("%s cannot begin to read though everything healed", f.name)
				return
			}
			time.Sleep(time.Second)
		}
	}
	defer f.leave(r)
	if r.paused {
		f.pause(r)
	}
	f.toEnd(r)
	f.beyond(r)
}

func (f *follower) toEnd(r *reading) {
	states, err := f.world.metadata.DescribePartitions(context.Background(), r.topic.topic.ID)
	if err != nil {
		f.world.violate("%s: describe: %v", r.name, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	for !f.atEnd(r, states) {
		err := f.poll(ctx, r, 100)
		if ctx.Err() != nil {
			f.world.violate("%s did not come to the end within a minute: %v", r.name, err)
			return
		}
	}
	for _, s := range states {
		e := r.event(history.Final, s.Partition)
		e.Start, e.High = int64(s.LogStart), int64(s.HighWatermark)
		f.world.observe(r.process, e)
	}
}

func (f *follower) atEnd(r *reading, states []domain.PartitionState) bool {
	for _, s := range states {
		at, err := r.consumer.Position(r.topic.topic.Name, s.Partition)
		if s.HighWatermark > 0 && (err != nil || at < s.HighWatermark) {
			return false
		}
	}
	return true
}

// leftErrors is how many errors from before the heal a consumer may have to tell:
// through agents there may be one on each leg of the way.
const leftErrors = 4

// beyond demands to be told about a position that is not there.
func (f *follower) beyond(r *reading) {
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	states, err := f.world.metadata.DescribePartitions(ctx, r.topic.topic.ID)
	if err == nil {
		err = r.consumer.Seek(ctx, r.topic.topic.Name, 0, consumer.At(states[0].HighWatermark+3))
	}
	if err != nil {
		f.world.violate("%s: seek: %v", r.name, err)
		return
	}
	messages, err := r.consumer.Poll(ctx, 1)
	for n := 0; n < leftErrors && (errors.Is(err, fault.ErrInjected) || f.plan.remote && errors.Is(err, domain.ErrNoAgentsAvailable)); n++ {
		messages, err = r.consumer.Poll(ctx, 1) // that was still to be told
	}
	var out *domain.OutOfRangeError
	if !errors.As(err, &out) || out.HighWatermark != states[0].HighWatermark || out.LogStart != states[0].LogStart {
		f.world.violate("%s polled beyond the end and got %v, %v: want to be told the range", r.name, messages, err)
	}
}
