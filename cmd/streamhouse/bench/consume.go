package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// ConsumeResult is what one bench consume gives.
type ConsumeResult struct {
	Throughput
	FetchesPerSecond float64 `json:"fetches_per_second"`
}

// pollSize is how many messages a poll asks for.
const pollSize = 4096

// Consume reads everything that a Produce of the same record size and number
// of partitions left, from the start. Tel must be what c tells.
func Consume(ctx context.Context, c *consumer.Consumer, t *topics.Topics, tel *Counter, load Load, done *atomic.Int64) (ConsumeResult, error) {
	ends, err := endsOf(ctx, t, load)
	if err != nil {
		return ConsumeResult{}, err
	}
	total := int64(0)
	for _, n := range ends {
		total += int64(n)
	}
	if total == 0 {
		return ConsumeResult{}, fmt.Errorf("nothing to consume: topic %s is empty, its bench produce did not come to its end", load.Topic())
	}
	fetches := tel.Count(ports.Fetched)
	m := begin()
	bytes, err := drain(ctx, c, load, ends, total, done)
	u := m.end()
	if err != nil {
		return ConsumeResult{}, err
	}
	return ConsumeResult{
		Throughput:       load.throughput(total, bytes, u),
		FetchesPerSecond: float64(tel.Count(ports.Fetched)-fetches) / u.elapsed.Seconds(),
	}, nil
}

// NewestLoad returns the load, with 1 for its records, whose topic Produce made
// last of those that match.
func NewestLoad(ctx context.Context, t *topics.Topics, match func(Load) bool) (Load, error) {
	list, err := t.List(ctx)
	if err != nil {
		return Load{}, err
	}
	var newest Load
	var made time.Time
	for _, topic := range list {
		l := Load{Records: 1}
		if _, err := fmt.Sscanf(topic.Name, topicForm, &l.Partitions, &l.RecordSize); err != nil || l.Topic() != topic.Name || l.Validate() != nil {
			continue
		}
		if match(l) && !topic.CreatedAt.Before(made) {
			newest, made = l, topic.CreatedAt
		}
	}
	if newest.Records == 0 {
		return Load{}, errors.New("nothing to consume: run bench produce with the same --data, --record-size and --partitions first")
	}
	return newest, nil
}

// endsOf returns the high watermark of each partition.
func endsOf(ctx context.Context, t *topics.Topics, load Load) ([]domain.Offset, error) {
	d, err := t.Describe(ctx, load.Topic())
	if err != nil {
		return nil, err
	}
	ends := make([]domain.Offset, len(d.States))
	for i, s := range d.States {
		ends[i] = s.HighWatermark
	}
	return ends, nil
}

// drain reads total messages and checks that offsets are dense from 0 and
// records of the right size.
func drain(ctx context.Context, c *consumer.Consumer, load Load, ends []domain.Offset, total int64, done *atomic.Int64) (bytes int64, err error) {
	if err := c.Assign(ctx, load.Topic(), consumer.Start()); err != nil {
		return 0, err
	}
	next := make([]domain.Offset, len(ends))
	for n := int64(0); n < total; done.Store(n) {
		messages, err := c.Poll(ctx, pollSize)
		if err != nil {
			return 0, err
		}
		for i := range messages {
			m := &messages[i]
			if m.Offset != next[m.Partition] || len(m.Value) != load.RecordSize {
				return 0, fmt.Errorf("%w: partition %d gave offset %d with %d bytes, want offset %d with %d", domain.ErrInternal, m.Partition, m.Offset, len(m.Value), next[m.Partition], load.RecordSize)
			}
			next[m.Partition]++
			bytes += int64(len(m.Value))
		}
		n += int64(len(messages))
	}
	return bytes, nil
}
