// Package consumer reads assigned partitions in order, from a chosen position
// on, without a gap.
//
// A Consumer reads one fetch ahead: while the application works on the records
// of one, a single goroutine brings the next. At the end of the log that fetch waits
// in the fetcher for new records, so a new one is handed out at once and an idle consumer
// does next to nothing: it looks every FetchMaxWait whether it still reads what there is; if all
// partitions of a topic are assigned, more often at first.
//
// Partitions are known by topic id. If a topic is deleted and its name given to
// another, the consumer answers domain.ErrTopicNotFound until it is assigned again.
package consumer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// Consumer reads the partitions that are assigned to it. Its methods may be
// called from several goroutines; two that poll at the same time share the messages
// between them.
type Consumer struct {
	ports   Ports
	tracer  ports.Tracer // nil: no spans
	cfg     Config
	decoder *batch.Decoder

	// stop ends fetchLoop, which closes done as it ends. Close does both.
	stop context.CancelFunc
	done chan struct{}
	// kick tells fetchLoop that there may be something to fetch.
	kick chan struct{}

	mu     sync.Mutex
	closed bool
	// changed is closed, and made anew, when waiting polls should look again.
	changed chan struct{}
	waiting int

	parts []*partition // sorted by comparePartitions
	whole []*wholeTopic
	// refreshAt is when the topics in whole are due to be looked at.
	refreshAt time.Time
	// refreshEvery is the time between two looks now: TopicRefresh while records
	// come.
	refreshEvery time.Duration
	bounded      bool // a bounded read is going on

	// current[next:] is being handed out, ahead is the fetch after it. Only
	// when ahead is empty may another fetch begin.
	current, ahead []chunk
	next           int
	slab           []domain.Header

	// wanted: a fetch should begin though no poll waits.
	wanted bool
	// interrupt ends the fetch in flight, nil if there is none.
	interrupt context.CancelFunc

	failed       []*partition // in the order they failed, may hold told ones
	fetchErr     error        // failure of a whole fetch, not told yet
	fetchFails   int
	fetchRetryAt time.Time
	told         bool // the last poll returned a failure
	events       []ports.Event
}

// New starts a consumer with nothing assigned. It must be closed. The error
// joins every fault of p and cfg.
func New(p Ports, cfg Config) (*Consumer, error) {
	if err := errors.Join(p.validate(), cfg.Validate()); err != nil {
		return nil, err
	}
	if p.Telemetry == nil {
		p.Telemetry = ports.NoTelemetry{}
	}
	cfg.Codecs = slices.Clone(cfg.Codecs)
	ctx, stop := context.WithCancel(context.Background())
	c := &Consumer{
		ports:   p,
		tracer:  ports.TracerOf(p.Telemetry),
		cfg:     cfg,
		decoder: batch.NewDecoder(cfg.Codecs...),
		stop:    stop,
		done:    make(chan struct{}),
		kick:    make(chan struct{}, 1),
		changed: make(chan struct{}),
	}
	go c.fetchLoop(ctx)
	return c, nil
}

// Close ends the consumer and what it has in flight. Polls that wait, and later
// calls, return domain.ErrClosed. Close may be called twice; it always returns nil.
func (c *Consumer) Close() error {
	c.mu.Lock()
	c.closed = true
	c.current, c.ahead, c.next = nil, nil, 0
	c.announce()
	c.mu.Unlock()
	c.stop()
	<-c.done
	return nil
}

// Poll returns the next messages, at least one and up to most (Config.MaxPoll if
// most is below 1). It waits until there is one or ctx ends, and then returns ctx's error.
//
// The messages of a partition come in the order of their offsets, without a
// gap. A partition that cannot be read is told of with a *PartitionError; its position
// stays, the others are served by the polls that follow, and it is tried again after
// a while that grows up to 5 s, and told of again if that fails. Nothing is ever skipped:
// where to go on after *domain.OutOfRangeError or domain.ErrCorrupt is for the caller to
// Seek. Other errors concern all partitions and are tried again in the same way.
//
// ErrNotAssigned: nothing is assigned. domain.ErrClosed: the consumer is closed.
func (c *Consumer) Poll(ctx context.Context, most int) ([]domain.Message, error) {
	if most < 1 {
		most = c.cfg.MaxPoll
	}
	began := c.traceFrom()
	messages, err := c.pollOnce(ctx, nil, most, false)
	c.trace(ctx, began, messages)
	return messages, err
}

// pollOnce is poll without mu held.
func (c *Consumer) pollOnce(ctx context.Context, dst []domain.Message, most int, toEnd bool) ([]domain.Message, error) {
	c.mu.Lock()
	defer c.leave()
	return c.poll(ctx, dst, most, toEnd)
}

// errAtLimits ends a bounded read.
var errAtLimits = errors.New("at the end")

// poll is Poll with mu held and the messages appended to dst. It lets go of mu
// while it waits. With toEnd it returns errAtLimits where else it would wait for ever.
func (c *Consumer) poll(ctx context.Context, dst []domain.Message, most int, toEnd bool) ([]domain.Message, error) {
	for {
		if err := c.usable(ctx); err != nil {
			return nil, err
		}
		if messages, err := c.take(dst, most); err != nil || len(messages) > 0 {
			return messages, err
		}
		if toEnd && c.allAtLimit() {
			return nil, errAtLimits
		}
		c.wait(ctx)
	}
}

// usable says why no poll can succeed, if so.
func (c *Consumer) usable(ctx context.Context) error {
	switch {
	case c.closed:
		return domain.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case len(c.parts) == 0:
		return ErrNotAssigned
	}
	return nil
}

// take returns what is at hand: messages, or a failure to tell. After a failure
// messages have precedence, so that neither starves the other.
func (c *Consumer) take(dst []domain.Message, most int) ([]domain.Message, error) {
	if !c.told {
		if err := c.tell(); err != nil {
			c.told = true
			return nil, err
		}
	}
	if dst = c.fill(dst, most); len(dst) > 0 {
		c.told = false
		return dst, nil
	}
	err := c.tell()
	c.told = err != nil
	return nil, err
}

// wait lets go of mu until something changed or ctx ended.
func (c *Consumer) wait(ctx context.Context) {
	changed := c.changed
	c.waiting++
	c.demand()
	c.leave()
	select {
	case <-changed:
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.waiting--
}

// leave lets go of mu and then tells telemetry what happened under it.
func (c *Consumer) leave() {
	events := c.events
	c.events = nil
	c.mu.Unlock()
	for _, e := range events {
		c.ports.Telemetry.Record(e)
	}
}

// announce makes the waiting polls look again.
func (c *Consumer) announce() {
	if c.waiting > 0 {
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// demand lets fetchLoop begin a fetch, if it has room for one.
func (c *Consumer) demand() {
	c.wanted = true
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// stopFetch ends the fetch in flight, if there is one, in favour of another.
func (c *Consumer) stopFetch() {
	if c.interrupt != nil {
		c.interrupt()
	}
}

// replan lets a fetch begin that asks for all that should be asked for: the one
// in flight is ended if it leaves out a partition.
func (c *Consumer) replan() {
	now := time.Now()
	if slices.ContainsFunc(c.parts, func(p *partition) bool { return !p.inFlight && p.fetchable(now) }) {
		c.stopFetch()
	}
	c.demand()
	c.announce()
}
