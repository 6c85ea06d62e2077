package consumer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// wholeTopic is a topic of which all partitions are assigned, those to come
// included.
type wholeTopic struct {
	name  string
	id    domain.TopicID
	count int32
}

// job is what fetchLoop does next: a look at the topics, or else a fetch.
type job struct {
	ctx    context.Context //nolint:containedctx // It is the job's own, and ends with it.
	cancel context.CancelFunc
	topics []string
	parts  []*partition
	asked  []uint64 // the versions of parts
	fetch  ports.FetchRequest
}

// fetchLoop keeps one fetch ahead of what is handed out, as long as polls ask
// for it. It is the consumer's only goroutine; Close ends it.
func (c *Consumer) fetchLoop(ctx context.Context) {
	defer close(c.done)
	var j job
	for ctx.Err() == nil {
		pause, ok := c.plan(ctx, &j)
		if !ok {
			c.rest(ctx, pause)
			continue
		}
		if j.topics != nil {
			c.refresh(&j)
		} else {
			c.fetch(&j)
		}
		j.cancel()
	}
}

// rest waits for a kick, but for pause at most.
func (c *Consumer) rest(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-c.kick:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// plan makes j the next thing to do. If there is nothing now, it returns for
// how long; without a kick meanwhile.
func (c *Consumer) plan(ctx context.Context, j *job) (pause time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ahead) > 0 || !c.wanted && c.waiting == 0 {
		return never, false
	}
	now := time.Now()
	if wait := c.fetchRetryAt.Sub(now); wait > 0 {
		return wait, false
	}
	j.topics = nil
	wait := c.refreshDue(now)
	if wait == 0 {
		j.topics = c.wholeNames()
	} else if wait = min(wait, c.choose(j, now)); len(j.parts) == 0 {
		return wait, false
	}
	j.fetch.MaxBytes, j.fetch.MaxWait = c.cfg.FetchBytes, min(c.cfg.FetchMaxWait, wait)
	j.ctx, j.cancel = context.WithCancel(ctx)
	c.interrupt = j.cancel
	c.wanted = false
	return 0, true
}

// never is longer than any wait.
const never = time.Duration(math.MaxInt64)

// refreshSoon makes the next look at the topics due within TopicRefresh. A
// consumer that nothing comes to looks ever more rarely.
func (c *Consumer) refreshSoon() {
	if c.refreshEvery != c.cfg.TopicRefresh {
		c.refreshEvery = c.cfg.TopicRefresh
		c.refreshAt = time.Now().Add(c.cfg.TopicRefresh)
	}
}

// refreshDue returns how long it is until the topics are due to be looked at.
func (c *Consumer) refreshDue(now time.Time) time.Duration {
	if len(c.whole) == 0 {
		return never
	}
	return max(0, c.refreshAt.Sub(now))
}

// choose puts the partitions to fetch into j, and returns how long it is until
// the next of the others may be tried again.
func (c *Consumer) choose(j *job, now time.Time) (retry time.Duration) {
	retry = never
	j.parts, j.asked, j.fetch.Partitions = j.parts[:0], j.asked[:0], j.fetch.Partitions[:0]
	for _, p := range c.parts {
		if p.inFlight = p.fetchable(now); p.inFlight {
			j.parts = append(j.parts, p)
			j.asked = append(j.asked, p.version)
			j.fetch.Partitions = append(j.fetch.Partitions, ports.FetchPosition{PartitionKey: p.key, Offset: p.ahead})
		} else if wait := p.retryAt.Sub(now); wait > 0 && !p.paused {
			retry = min(retry, wait)
		}
	}
	return retry
}

// fetch runs j's fetch and buffers what it brings.
func (c *Consumer) fetch(j *job) {
	fetched, err := c.ports.Fetcher.Fetch(j.ctx, j.fetch)
	if err == nil && len(fetched) != len(j.parts) {
		err = fmt.Errorf("%w: %d answers for %d partitions", domain.ErrInternal, len(fetched), len(j.parts))
	}
	chunks := make([]chunk, 0, len(fetched))
	next := make([]domain.Offset, len(fetched))
	for i := range fetched {
		if err != nil {
			break
		}
		var ch chunk
		ch, next[i] = newChunk(&fetched[i], j.fetch.Partitions[i].Offset)
		chunks = append(chunks, ch)
	}
	c.mu.Lock()
	defer c.leave()
	if c.land(j, err) {
		c.buffer(j, chunks, next)
		c.announce()
	}
}

// newChunk checks what was fetched from an offset on, as far as headers tell.
func newChunk(f *ports.FetchedPartition, from domain.Offset) (chunk, domain.Offset) {
	size, next, err := checkBatches(f.Batches, from)
	ch := chunk{sources: f.Sources, data: f.Batches[:size], err: f.Err, found: false}
	if err != nil {
		ch.err, ch.found = located(err, f.Sources, size), true
	}
	return ch, next
}

// land ends j's time in flight and reports whether it succeeded. A job that was
// interrupted has failed without anything to tell.
func (c *Consumer) land(j *job, err error) bool {
	c.interrupt = nil
	for i, p := range j.parts {
		if p.version == j.asked[i] {
			p.inFlight = false
		}
	}
	interrupted := j.ctx.Err() != nil
	c.wanted = c.wanted || err != nil || interrupted
	if err == nil {
		c.fetchFails = 0
		return true
	}
	if !interrupted {
		c.fetchErr = fetchError(err)
		c.fetchFails++
		c.fetchRetryAt = time.Now().Add(c.backoff(c.fetchFails))
		c.announce()
	}
	return false
}

// buffer keeps the chunks that still follow what is buffered before them. The
// errors of a fetch that was interrupted are those of the interruption.
func (c *Consumer) buffer(j *job, chunks []chunk, next []domain.Offset) {
	interrupted := j.ctx.Err() != nil
	for i, ch := range chunks {
		p := j.parts[i]
		if interrupted {
			ch.err = nil
		}
		if c.closed || p.version != j.asked[i] {
			continue
		}
		if len(ch.data) == 0 && ch.err == nil {
			if !interrupted {
				p.failures = 0
			}
			continue
		}
		if mutant.On(mutantSilentReset) && resets(p, ch.err) {
			continue
		}
		p.ahead, p.stuck = next[i], ch.err != nil
		ch.p, ch.version = p, p.version
		c.ahead = append(c.ahead, ch)
		c.refreshSoon()
	}
}

// resets is the planted bug that takes an offset out of range for the log's end
// or start.
func resets(p *partition, err error) bool {
	var out *domain.OutOfRangeError
	if !errors.As(err, &out) {
		return false
	}
	p.seek(min(max(p.position, out.LogStart), out.HighWatermark))
	return true
}

func (c *Consumer) wholeNames() []string {
	names := make([]string, len(c.whole))
	for i, w := range c.whole {
		names[i] = w.name
	}
	return names
}

// refresh looks at j's topics and adds the partitions they have got, from
// their start. A topic that is not there any more is left to the fetches, which tell.
func (c *Consumer) refresh(j *job) {
	j.parts = j.parts[:0]
	topics, err := c.look(j.ctx, j.topics)
	c.mu.Lock()
	defer c.leave()
	if c.land(j, err) {
		c.refreshEvery = min(2*c.refreshEvery, max(c.cfg.TopicRefresh, c.cfg.FetchMaxWait))
		c.refreshAt = time.Now().Add(c.refreshEvery)
		c.wanted = true
		for _, t := range topics {
			c.widen(t)
		}
	}
}

// look finds the topics by name, those that are gone left out.
func (c *Consumer) look(ctx context.Context, names []string) ([]domain.Topic, error) {
	topics := make([]domain.Topic, 0, len(names))
	for _, name := range names {
		t, err := c.ports.Topics.Topic(ctx, name)
		switch {
		case isGone(err):
		case err != nil:
			return nil, err
		default:
			topics = append(topics, t)
		}
	}
	return topics, nil
}

// widen adds the partitions that t has got, if it is the topic assigned.
func (c *Consumer) widen(t domain.Topic) {
	for _, w := range c.whole {
		if w.name == t.Name && mutant.On(mutantStaleTopic) {
			c.follow(w, t)
		}
		if w.id != t.ID {
			continue
		}
		for ; w.count < t.Partitions; w.count++ {
			key := commit.PartitionKey{Topic: t.ID, Partition: domain.PartitionID(w.count)}
			c.add(newPartition(t.Name, key))
		}
	}
}

// follow is the planted bug that goes on in a topic because it has the name of
// the one assigned.
func (c *Consumer) follow(w *wholeTopic, t domain.Topic) {
	w.id = t.ID
	for _, p := range c.parts {
		if p.topic == t.Name {
			p.key.Topic = t.ID
			p.seek(p.position)
		}
	}
}

func isGone(err error) bool { return errors.Is(err, domain.ErrTopicNotFound) }

func fetchError(err error) error { return fmt.Errorf("fetch: %w", err) }
