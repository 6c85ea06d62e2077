package sqlite

import (
	"context"
	"fmt"
	"math"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
)

var (
	producerByName = query{"SELECT producer_id, epoch FROM producers WHERE name = ?"}
	insertProducer = query{"INSERT INTO producers (name, epoch, active_at) VALUES (?, 0, ?) RETURNING producer_id"}
	raiseEpoch     = query{"UPDATE producers SET epoch = epoch + 1, active_at = ? WHERE producer_id = ?"}
	deleteProducer = query{"DELETE FROM producers WHERE producer_id = ?"}
	forgetStreams  = query{"DELETE FROM producer_partitions WHERE producer_id = ?"}
	idleProducers  = query{"SELECT producer_id, active_at FROM producers INDEXED BY producers_idle WHERE name IS NULL AND active_at <= ? ORDER BY active_at LIMIT 32"}
)

// RegisterProducer implements ports.Producers. Each registration also removes
// some sessions that have expired, so that their rows stay few.
func (s *Store) RegisterProducer(ctx context.Context, name string) (ports.ProducerSession, error) {
	if name != "" {
		if err := domain.ValidateName("producer", name); err != nil {
			return ports.ProducerSession{}, err
		}
	}
	var session ports.ProducerSession
	err := s.write(ctx, fmt.Sprintf("register producer %q", name), func(c *conn) (err error) {
		now := s.now().UnixMilli()
		if err := c.sweepProducers(now); err != nil {
			return err
		}
		session, err = c.register(name, now)
		return err
	})
	return given(session, err)
}

func (c *conn) register(name string, now int64) (ports.ProducerSession, error) {
	if name == "" {
		return c.newProducer(nil, now)
	}
	found := false
	var p ports.ProducerSession
	err := c.query(&producerByName, func(r *row) error {
		p, found = ports.ProducerSession{ID: domain.ProducerID(r.int(0)), Epoch: domain.Epoch(r.int(1))}, true
		return nil
	}, name)
	switch {
	case err != nil:
		return p, err
	case !found:
		return c.newProducer(name, now)
	case p.Epoch == math.MaxInt16:
		if err := c.forget(p.ID); err != nil {
			return p, err
		}
		return c.newProducer(name, now)
	}
	p.Epoch++
	// The sequences of older sessions decide nothing any more.
	if err := c.exec(&forgetStreams, int64(p.ID)); err != nil {
		return p, err
	}
	return p, c.exec(&raiseEpoch, now, int64(p.ID))
}

// newProducer makes a producer of the name, a string or nil.
func (c *conn) newProducer(name any, now int64) (p ports.ProducerSession, err error) {
	err = c.query(&insertProducer, func(r *row) error {
		p.ID = domain.ProducerID(r.int(0))
		return nil
	}, name, now)
	return p, err
}

func (c *conn) forget(id domain.ProducerID) error {
	if err := c.exec(&forgetStreams, int64(id)); err != nil {
		return err
	}
	return c.exec(&deleteProducer, int64(id))
}

// sweepProducers removes unnamed sessions that have expired.
func (c *conn) sweepProducers(now int64) error {
	idle := make(map[domain.ProducerID]int64)
	err := c.query(&idleProducers, func(r *row) error {
		idle[domain.ProducerID(r.int(0))] = r.int(1)
		return nil
	}, now-ports.ProducerExpiry.Milliseconds())
	if err != nil {
		return err
	}
	for id, activeAt := range idle {
		gone, err := c.expired(id, activeAt, now)
		if err == nil && gone {
			err = c.forget(id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// AbandonBatch implements ports.Producers.
func (s *Store) AbandonBatch(ctx context.Context, b ports.AbandonedBatch) (commit.Outcome, error) {
	var outcome commit.Outcome
	op := fmt.Sprintf("abandon batch of producer %d on topic %s partition %d", b.Producer, b.Topic, b.Partition)
	err := s.write(ctx, op, func(c *conn) (err error) {
		outcome, err = c.abandon(b, s.now().UnixMilli())
		return err
	})
	return given(outcome, err)
}

var storeState = query{`INSERT INTO producer_partitions (producer_id, partition_key, accepted_at, state) VALUES (?, ?, 0, ?)
	ON CONFLICT DO UPDATE SET state = excluded.state`}

func (c *conn) abandon(b ports.AbandonedBatch, now int64) (commit.Outcome, error) {
	var v view
	named := commit.Batch{Topic: b.Topic, Partition: b.Partition, Producer: b.Producer}
	if err := v.load(c, newMemo(0), []commit.Segment{{Batches: []commit.Batch{named}}}, now); err != nil {
		return commit.Outcome{}, err
	}
	o := commit.Abandon(&v.View, b.StreamKey, sequence.Batch{Epoch: b.Epoch, First: b.FirstSequence, Records: b.Records})
	if o.Status != commit.Accepted {
		return o, nil
	}
	return o, c.exec(&storeState, int64(b.Producer), v.keys[b.PartitionKey], packState(v.Streams[b.StreamKey]))
}
