package producer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// topicAge is how old a topic in use may be before it is looked up again, in
// the background: that is how a widened topic is noticed.
const topicAge = 5 * time.Second

// topic is one topic as it was looked up. Its id never changes: a topic created
// again under the name is another value.
type topic struct {
	p          *Producer
	id         domain.TopicID
	name       string
	partitions atomic.Pointer[[]atomic.Pointer[partition]]
	made       atomic.Int32 // how often partitions were made
	read       atomic.Int64 // nanoseconds since the producer began
	refreshing atomic.Bool
	entered    uint64      // the state of topics when it was entered
	replaced   atomic.Bool // its name stands for another topic, or none: no batch begins
}

// topics finds topics by name. Reading takes no lock.
type topics struct {
	byName atomic.Pointer[map[string]*topic]
	mu     sync.Mutex // for changes
	all    []*topic   // every topic with unsettled batches perhaps, replaced ones too
	state  uint64     // counts changes

	dropped uint64 // the state after the last drop
}

func (ts *topics) find(name string) *topic {
	if m := ts.byName.Load(); m != nil {
		return (*m)[name]
	}
	return nil
}

// now returns the state to give to set together with what is read after it.
func (ts *topics) now() uint64 {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.state
}

// set enters what was looked up since the state before. A topic that is known
// under its id is widened. It returns nil if another id was entered or dropped meanwhile: what
// was found may be older, and a topic must not come back once it was forgotten, because its
// partitions would number their batches from 0 again.
func (ts *topics) set(p *Producer, found domain.Topic, before uint64) *topic {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.find(found.Name)
	if t == nil || t.id != found.ID {
		if (ts.dropped > before || t != nil && t.entered > before) && !mutant.On(mutantLateLookUp) {
			return nil
		}
		t = ts.enter(p, found, t)
	}
	t.widen(found.Partitions)
	t.read.Store(int64(time.Since(p.began)))
	return t
}

func (ts *topics) enter(p *Producer, found domain.Topic, old *topic) *topic {
	ts.state++
	t := &topic{p: p, id: found.ID, name: found.Name, entered: ts.state}
	t.partitions.Store(new([]atomic.Pointer[partition]))
	ts.change(func(m map[string]*topic) { m[found.Name] = t })
	ts.all = append(ts.all, t)
	if old != nil {
		old.replaced.Store(true)
	}
	return t
}

// drop forgets t, if it is what its name stands for.
func (ts *topics) drop(t *topic) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.find(t.name) == t {
		ts.state++
		ts.dropped = ts.state
		ts.change(func(m map[string]*topic) { delete(m, t.name) })
		t.replaced.Store(true)
	}
}

func (ts *topics) change(edit func(map[string]*topic)) {
	next := map[string]*topic{}
	if m := ts.byName.Load(); m != nil {
		maps.Copy(next, *m)
	}
	edit(next)
	ts.byName.Store(&next)
}

// prune forgets replaced topics with nothing under way. Nothing begins in them.
func (ts *topics) prune() {
	ts.mu.Lock()
	all := ts.all
	ts.mu.Unlock()
	idle := map[*topic]bool{}
	for _, t := range all {
		idle[t] = t.replaced.Load() && t.idle()
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.all = slices.DeleteFunc(slices.Clone(ts.all), func(t *topic) bool { return idle[t] })
}

// idle reports whether no batch of t is under way.
func (t *topic) idle() bool {
	list := *t.partitions.Load()
	for i := range list {
		if part := list[i].Load(); part != nil && !part.idle() {
			return false
		}
	}
	return true
}

// eachPartition calls f for every partition that was ever written to, and some others.
func (ts *topics) eachPartition(f func(*partition)) {
	ts.mu.Lock()
	all := ts.all
	ts.mu.Unlock()
	for _, t := range all {
		list := *t.partitions.Load()
		for i := range list {
			if part := list[i].Load(); part != nil {
				f(part)
			}
		}
	}
}

// widen makes room for count partitions. The caller holds topics.mu.
func (t *topic) widen(count int32) {
	old := *t.partitions.Load()
	if int(count) <= len(old) {
		return
	}
	wider := make([]atomic.Pointer[partition], count)
	for i := range old {
		// A partition made while this runs would be lost: make it here.
		wider[i].Store(t.partitionIn(old, domain.PartitionID(i)))
	}
	t.partitions.Store(&wider)
}

func (t *topic) count() int32 { return int32(len(*t.partitions.Load())) }

// partition returns partition id, or nil if there is none.
func (t *topic) partition(id domain.PartitionID) *partition {
	list := *t.partitions.Load()
	if id < 0 || int(id) >= len(list) {
		return nil
	}
	return t.partitionIn(list, id)
}

// A topic's first lonePartitions partitions are made one by one, the others
// groupSize at a time, side by side (see partition).
const (
	lonePartitions = 16
	groupSize      = 128
)

func (t *topic) partitionIn(list []atomic.Pointer[partition], id domain.PartitionID) *partition {
	if part := list[id].Load(); part != nil {
		return part
	}
	first, size := int(id), 1
	if t.made.Add(1) > lonePartitions {
		first, size = int(id)/groupSize*groupSize, groupSize
	}
	group := list[first:min(first+size, len(list))]
	parts, sendings := make([]partition, len(group)), make([]sending, len(group))
	for i := range group {
		sendings[i] = sending{topic: t, id: domain.PartitionID(first + i), session: t.p.session.Load()}
		parts[i].p, parts[i].sending = t.p, &sendings[i]
		group[i].CompareAndSwap(nil, &parts[i])
	}
	return list[id].Load()
}

// route finds the partition for r. Without wait it does not call the metadata
// store: ErrWouldBlock.
func (p *Producer) route(ctx context.Context, r *domain.Record, wait bool) (*partition, error) {
	t := p.topics.find(r.Topic)
	if t == nil {
		var err error
		if t, err = p.findTopic(ctx, r.Topic, wait); err != nil {
			return nil, err
		}
	}
	id, explicit := r.Partition.Explicit()
	if !explicit {
		id = p.cfg.Partitioner.Partition(r.Topic, r.Key, t.count())
	}
	if part := t.partition(id); part != nil {
		return part, nil
	}
	if explicit && wait {
		return p.widened(ctx, t, id)
	}
	p.refresh(t, time.Now())
	return nil, &domain.InvalidPartitionError{Topic: r.Topic, Partition: id, Count: t.count()}
}

// widened looks the topic up again for a partition that it does not have yet.
func (p *Producer) widened(ctx context.Context, t *topic, id domain.PartitionID) (*partition, error) {
	t, err := p.lookUp(ctx, t.name)
	if err != nil {
		return nil, err
	}
	if part := t.partition(id); part != nil {
		return part, nil
	}
	return nil, &domain.InvalidPartitionError{Topic: t.name, Partition: id, Count: t.count()}
}

// findTopic looks up a topic that is not known, in the background if the caller
// must not wait.
func (p *Producer) findTopic(ctx context.Context, name string, wait bool) (*topic, error) {
	if err := domain.ValidateName("topic", name); err != nil {
		return nil, err
	}
	if wait {
		return p.lookUp(ctx, name)
	}
	begin, err := p.lookUps.begin(name)
	if err != nil {
		return nil, err
	}
	if begin {
		p.spawn(func() {
			_, err := p.lookUp(p.life, name)
			p.lookUps.end(name, err)
		})
	}
	return nil, fmt.Errorf("topic %q is being looked up: %w", name, domain.ErrWouldBlock)
}

// maxLookUps bounds the names that are looked up in the background at a time.
const maxLookUps = 64

// lookUps are the look-ups in the background: those that run, and how the last
// ones failed, for the next TrySend of the name.
type lookUps struct {
	mu    sync.Mutex
	names map[string]error // nil while it runs
}

// begin reports whether the caller is to look name up, or how that failed.
func (l *lookUps) begin(name string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err, known := l.names[name]
	if err != nil {
		delete(l.names, name)
		return false, err
	}
	if known {
		return false, nil
	}
	if len(l.names) >= maxLookUps {
		maps.DeleteFunc(l.names, func(_ string, err error) bool { return err != nil })
	}
	if len(l.names) >= maxLookUps {
		return false, nil
	}
	if l.names == nil {
		l.names = map[string]error{}
	}
	l.names[name] = nil
	return true, nil
}

// end notes how a look-up ended.
func (l *lookUps) end(name string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.names[name] = err
	} else {
		delete(l.names, name)
	}
}

// refresh looks t up again in the background, if what is known is old at now.
func (p *Producer) refresh(t *topic, now time.Time) {
	if int64(now.Sub(p.began))-t.read.Load() <= int64(topicAge) || !t.refreshing.CompareAndSwap(false, true) {
		return
	}
	p.spawn(func() {
		defer t.refreshing.Store(false)
		ctx, cancel := context.WithTimeout(p.life, p.cfg.RequestTimeout)
		defer cancel()
		before := p.topics.now()
		switch found, err := p.metadata.Topic(ctx, t.name); {
		case err == nil:
			p.topics.set(p, found, before)
		case errors.Is(err, domain.ErrTopicNotFound):
			p.topics.drop(t)
		default: // the store is away: what is known stays good, the commit decides
			t.read.Store(int64(time.Since(p.began)))
		}
	})
}

// lookUp reads a topic from the metadata store, and again while that fails in a
// way that may pass, for RequestTimeout at most.
func (p *Producer) lookUp(ctx context.Context, name string) (*topic, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.RequestTimeout, domain.ErrTimeout)
	defer cancel()
	for failures := 1; ; failures++ {
		before := p.topics.now()
		found, err := p.metadata.Topic(ctx, name)
		if err == nil {
			p.topics.prune()
			if t := p.topics.set(p, found, before); t != nil {
				return t, nil
			}
			continue
		}
		switch ports.KindOf(err) {
		case ports.Definite:
			return nil, err
		case ports.Fatal:
			return nil, notAccepted(name, err)
		}
		timer := time.NewTimer(p.backoff(failures))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, notAccepted(name, fmt.Errorf("%w: %w", context.Cause(ctx), err))
		}
	}
}
