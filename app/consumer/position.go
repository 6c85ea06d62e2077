package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// Position says where to begin to read a partition. The zero value is Start.
type Position struct {
	kind   positionKind
	offset domain.Offset
	time   time.Time
}

type positionKind uint8

const (
	fromStart positionKind = iota
	fromEnd
	fromOffset
	fromTime
)

// Start is the first record that there is when the position is taken.
func Start() Position { return Position{kind: fromStart} }

// End is the next record to come when the position is taken.
func End() Position { return Position{kind: fromEnd} }

// At is the record of the given offset. Whether the partition has it shows
// when it is read: *domain.OutOfRangeError.
func At(offset domain.Offset) Position { return Position{kind: fromOffset, offset: offset} }

// Since is the first record whose timestamp is t or later, or End if there is
// none. Timestamps need not rise with offsets: records behind it may be older than t.
func Since(t time.Time) Position { return Position{kind: fromTime, time: t} }

// resolve returns the offset that pos is in each of the partitions now.
func (c *Consumer) resolve(ctx context.Context, parts []*partition, pos Position) ([]domain.Offset, error) {
	if pos.kind == fromTime {
		return c.offsetsAt(ctx, parts, pos.time)
	}
	offsets := make([]domain.Offset, len(parts))
	if pos.kind == fromOffset {
		for i := range offsets {
			offsets[i] = pos.offset
		}
		return offsets, nil
	}
	bounds, err := c.bounds(ctx, parts)
	if err != nil {
		return nil, err
	}
	for i, b := range bounds {
		if b.err != nil {
			return nil, b.err
		}
		offsets[i] = b.start
		if pos.kind == fromEnd {
			offsets[i] = b.end
		}
	}
	return offsets, nil
}

func (c *Consumer) offsetsAt(ctx context.Context, parts []*partition, t time.Time) ([]domain.Offset, error) {
	offsets := make([]domain.Offset, len(parts))
	for i, p := range parts {
		offset, err := c.ports.Fetcher.OffsetAt(ctx, p.key, t)
		if err != nil {
			return nil, p.failure(err)
		}
		offsets[i] = offset
	}
	return offsets, nil
}

// bound is what one partition held at one moment: start up to, not including,
// end.
type bound struct {
	start, end domain.Offset
	err        error
}

// bounds asks for the present bounds of the partitions, in one fetch. The
// positions need not lie within them.
func (c *Consumer) bounds(ctx context.Context, parts []*partition) ([]bound, error) {
	if len(parts) == 0 {
		return nil, nil
	}
	positions := make([]ports.FetchPosition, len(parts))
	for i, p := range parts {
		positions[i] = ports.FetchPosition{PartitionKey: p.key}
	}
	fetched, err := c.ports.Fetcher.Fetch(ctx, ports.FetchRequest{Partitions: positions})
	if err != nil {
		return nil, fetchError(err)
	}
	if len(fetched) != len(parts) {
		return nil, fetchError(domain.ErrInternal)
	}
	bounds := make([]bound, len(parts))
	for i, f := range fetched {
		bounds[i] = boundOf(parts[i], f)
	}
	return bounds, nil
}

func boundOf(p *partition, f ports.FetchedPartition) bound {
	var out *domain.OutOfRangeError
	switch {
	case f.Err == nil:
		return bound{start: f.LogStart, end: f.HighWatermark}
	case errors.As(f.Err, &out):
		return bound{start: out.LogStart, end: out.HighWatermark}
	default:
		return bound{err: p.failure(f.Err)}
	}
}

// newPartition is a partition that stands at offset.
func newPartition(topic string, key commit.PartitionKey) *partition {
	return &partition{topic: topic, key: key, limit: noLimit}
}
