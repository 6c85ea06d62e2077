package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// Assign lets the consumer read the given partitions of the topic from pos on;
// with none given all of them, and those that the topic gets by being widened too, from
// offset 0, which polls notice within Config.TopicRefresh. Partitions assigned already move
// to pos, others stay as they are; all partitions assigned replace everything the name stood for.
//
// *domain.TopicNotFoundError; *domain.InvalidPartitionError: the topic has no such
// partition. After an error the assignment is as it was.
func (c *Consumer) Assign(ctx context.Context, topic string, pos Position, partitions ...domain.PartitionID) error {
	if err := c.open(); err != nil {
		return err
	}
	if err := domain.ValidateName("topic", topic); err != nil {
		return err
	}
	t, err := c.ports.Topics.Topic(ctx, topic)
	if err != nil {
		return err
	}
	parts, err := partitionsOf(t, partitions)
	if err != nil {
		return err
	}
	offsets, err := c.resolve(ctx, parts, pos)
	if err != nil {
		return fmt.Errorf("assign topic %q: %w", topic, err)
	}
	for i, p := range parts {
		p.seek(offsets[i])
	}
	return c.enter(t, parts, len(partitions) == 0)
}

// partitionsOf returns t's partitions ids, or all, once each.
func partitionsOf(t domain.Topic, ids []domain.PartitionID) ([]*partition, error) {
	if len(ids) == 0 {
		for id := range t.Partitions {
			ids = append(ids, domain.PartitionID(id))
		}
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	parts := make([]*partition, len(ids))
	for i, id := range ids {
		if id < 0 || int32(id) >= t.Partitions {
			return nil, &domain.InvalidPartitionError{Topic: t.Name, Partition: id, Count: t.Partitions}
		}
		parts[i] = newPartition(t.Name, commit.PartitionKey{Topic: t.ID, Partition: id})
	}
	return parts, nil
}

// enter puts partitions of t into the assignment.
func (c *Consumer) enter(t domain.Topic, parts []*partition, whole bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return domain.ErrClosed
	}
	ids := make([]domain.PartitionID, len(parts))
	for i, p := range parts {
		ids[i] = p.key.Partition
	}
	if whole {
		ids = nil
		c.refreshSoon()
	}
	c.remove(t.Name, ids)
	if whole {
		c.whole = append(c.whole, &wholeTopic{name: t.Name, id: t.ID, count: t.Partitions})
	}
	c.add(parts...)
	c.replan()
	return nil
}

// Unassign ends the reading of the given partitions of the topic, or of all
// with none given. What is not assigned is ignored.
func (c *Consumer) Unassign(topic string, partitions ...domain.PartitionID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return domain.ErrClosed
	}
	c.remove(topic, partitions)
	c.replan()
	return nil
}

// add puts the parts in their places. A bounded read that has begun does not
// read them.
func (c *Consumer) add(parts ...*partition) {
	for _, p := range parts {
		if c.bounded {
			p.limit = p.position
		}
	}
	c.parts = append(c.parts, parts...)
	slices.SortFunc(c.parts, comparePartitions)
}

// remove takes partitions of the topic out, all if ids is empty.
func (c *Consumer) remove(topic string, ids []domain.PartitionID) {
	in := among(ids)
	c.parts = slices.DeleteFunc(c.parts, func(p *partition) bool {
		out := p.topic == topic && in(p.key.Partition)
		if out {
			p.seek(p.position) // What is buffered of it no longer applies.
		}
		return out
	})
	if len(ids) == 0 {
		c.whole = slices.DeleteFunc(c.whole, func(w *wholeTopic) bool { return w.name == topic })
	}
}

// among reports whether an id is one of ids; every one is if ids is empty.
func among(ids []domain.PartitionID) func(domain.PartitionID) bool {
	if len(ids) == 0 {
		return func(domain.PartitionID) bool { return true }
	}
	set := make(map[domain.PartitionID]struct{}, len(ids))
	for _, id := range ids {
		set[id] = struct{}{}
	}
	return func(id domain.PartitionID) bool {
		_, ok := set[id]
		return ok
	}
}

// Seek moves one assigned partition to pos. The next message polled of it is
// the one there; a failure of it that was not told yet is forgotten.
//
// ErrNotAssigned; the errors of finding pos.
func (c *Consumer) Seek(ctx context.Context, topic string, id domain.PartitionID, pos Position) error {
	c.mu.Lock()
	p, err := c.find(topic, id)
	var at []*partition
	if err == nil {
		at = snapshot([]*partition{p})
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	offsets, err := c.resolve(ctx, at, pos)
	if err != nil {
		return fmt.Errorf("seek: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, err := c.find(topic, id); err != nil {
		return err
	} else if now != p {
		return notAssigned(topic, id)
	}
	p.seek(offsets[0])
	c.replan()
	return nil
}

// Pause leaves the given partitions of the topic, or all assigned ones with
// none given, out of the polls until they are resumed. Their positions stay.
// ErrNotAssigned if one is not assigned; the others are paused nevertheless.
func (c *Consumer) Pause(topic string, partitions ...domain.PartitionID) error {
	return c.setPaused(topic, partitions, true)
}

// Resume ends a Pause, in the same manner.
func (c *Consumer) Resume(topic string, partitions ...domain.PartitionID) error {
	return c.setPaused(topic, partitions, false)
}

func (c *Consumer) setPaused(topic string, ids []domain.PartitionID, paused bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return domain.ErrClosed
	}
	in, found := among(ids), make(map[domain.PartitionID]struct{})
	for _, p := range c.parts {
		if p.topic == topic && in(p.key.Partition) {
			p.paused = paused
			found[p.key.Partition] = struct{}{}
		}
	}
	c.replan()
	for _, id := range ids {
		if _, ok := found[id]; !ok {
			return notAssigned(topic, id)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("topic %q: %w", topic, ErrNotAssigned)
	}
	return nil
}

// Position returns the offset of the next message that will be polled of the
// partition. ErrNotAssigned.
func (c *Consumer) Position(topic string, id domain.PartitionID) (domain.Offset, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.find(topic, id)
	if err != nil {
		return 0, err
	}
	return p.position, nil
}

// PartitionLag says how far the consumer is behind in one partition.
type PartitionLag struct {
	Topic     string
	Partition domain.PartitionID
	// Position is the offset of the next message that will be polled.
	Position domain.Offset
	// LogStart is the first offset there is, HighWatermark the next to come.
	LogStart      domain.Offset
	HighWatermark domain.Offset
	// Lag is how many messages are left to poll, not below 0.
	Lag int64
}

// Lag asks the store how far the consumer is behind in each assigned partition,
// sorted by topic and partition. Partitions that cannot be asked for are left out
// and told of in the error, joined.
func (c *Consumer) Lag(ctx context.Context) ([]PartitionLag, error) {
	c.mu.Lock()
	closed, parts := c.closed, snapshot(c.parts)
	c.mu.Unlock()
	if closed {
		return nil, domain.ErrClosed
	}
	bounds, err := c.bounds(ctx, parts)
	if err != nil {
		return nil, err
	}
	lags, errs := make([]PartitionLag, 0, len(parts)), []error(nil)
	for i, p := range parts {
		b := bounds[i]
		if b.err != nil {
			errs = append(errs, b.err)
			continue
		}
		lags = append(lags, PartitionLag{
			Topic: p.topic, Partition: p.key.Partition, Position: p.position,
			LogStart: b.start, HighWatermark: b.end, Lag: max(0, int64(b.end-p.position)),
		})
	}
	return lags, errors.Join(errs...)
}

// find returns the assigned partition.
func (c *Consumer) find(topic string, id domain.PartitionID) (*partition, error) {
	if c.closed {
		return nil, domain.ErrClosed
	}
	want := partition{topic: topic, key: commit.PartitionKey{Partition: id}}
	at, ok := slices.BinarySearchFunc(c.parts, &want, comparePartitions)
	if !ok {
		return nil, notAssigned(topic, id)
	}
	return c.parts[at], nil
}

// snapshot copies what names the parts and where they stand, for use without mu.
func snapshot(parts []*partition) []*partition {
	copies := make([]partition, len(parts))
	list := make([]*partition, len(parts))
	for i, p := range parts {
		copies[i] = partition{topic: p.topic, key: p.key, position: p.position}
		list[i] = &copies[i]
	}
	return list
}

func (c *Consumer) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return domain.ErrClosed
	}
	return nil
}
