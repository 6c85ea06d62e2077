package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// ConsumeResult is what one bench consume gives.
type ConsumeResult struct {
	Topic                string  `json:"topic"`
	Records              int64   `json:"records"`
	RecordSize           int     `json:"record_size"`
	Partitions           int32   `json:"partitions"`
	Seconds              float64 `json:"seconds"`
	RecordsPerSecond     float64 `json:"records_per_second"`
	MBPerSecond          float64 `json:"mb_per_second"`
	CPUSecondsPerMillion float64 `json:"cpu_seconds_per_million"`
	AllocsPerRecord      float64 `json:"allocs_per_record"`
	PeakRSSMB            float64 `json:"peak_rss_mb"`
	FetchesPerSecond     float64 `json:"fetches_per_second"`
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
	fetches := tel.Count(ports.Fetched)
	m := begin()
	bytes, err := drain(ctx, c, load, ends, total, done)
	u := m.end()
	if err != nil {
		return ConsumeResult{}, err
	}
	seconds, records := u.elapsed.Seconds(), float64(total)
	return ConsumeResult{
		Topic: load.Topic(), Records: total, RecordSize: load.RecordSize, Partitions: load.Partitions,
		Seconds:              seconds,
		RecordsPerSecond:     records / seconds,
		MBPerSecond:          float64(bytes) / 1e6 / seconds,
		CPUSecondsPerMillion: u.cpu.Seconds() / records * 1e6,
		AllocsPerRecord:      float64(u.mallocs) / records,
		PeakRSSMB:            float64(u.peakRSS) / (1 << 20),
		FetchesPerSecond:     float64(tel.Count(ports.Fetched)-fetches) / seconds,
	}, nil
}

// endsOf returns the high watermark of each partition.
func endsOf(ctx context.Context, t *topics.Topics, load Load) ([]domain.Offset, error) {
	d, err := t.Describe(ctx, load.Topic())
	if errors.Is(err, domain.ErrTopicNotFound) {
		return nil, fmt.Errorf("nothing to consume: run bench produce with the same --data, --record-size and --partitions first: %w", err)
	}
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
