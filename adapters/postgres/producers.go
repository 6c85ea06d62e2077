package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
)

const (
	// Commits of the producer's sessions are over before, or wait.
	lockProducer   = "SELECT producer_id, epoch FROM producers WHERE name = $1 FOR UPDATE"
	insertProducer = `INSERT INTO producers (name, epoch, active_at) VALUES ($1, 0, now_ms()) ON CONFLICT (name) DO NOTHING RETURNING producer_id`
	raiseEpoch     = "UPDATE producers SET epoch = epoch + 1, active_at = now_ms() WHERE producer_id = $1"
	deleteProducer = "DELETE FROM producers WHERE producer_id = $1"
	deleteStreams  = "DELETE FROM producer_partitions WHERE producer_id = $1"

	// Sessions without a name that seem to have expired. Those that a commit
	// or another sweep is busy with are left alone.
	lockIdle = `SELECT producer_id FROM producers WHERE name IS NULL AND active_at <= (SELECT now_ms()) - $1
		ORDER BY active_at LIMIT 32 FOR UPDATE SKIP LOCKED`
	// Those of them that have. They are locked by now, so no commit can prolong them.
	deleteIdle = `WITH gone AS (DELETE FROM producers AS p WHERE producer_id = ANY ($2) AND NOT EXISTS
			(SELECT 1 FROM producer_partitions AS s WHERE s.producer_id = p.producer_id AND s.accepted_at > (SELECT now_ms()) - $1)
			RETURNING producer_id)
		DELETE FROM producer_partitions AS s USING gone WHERE s.producer_id = gone.producer_id`
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
	err := s.write(ctx, fmt.Sprintf("register producer %q", name), func(ctx context.Context, tx pgx.Tx) (err error) {
		if session, err = register(ctx, tx, name); err != nil {
			return err
		}
		return sweepProducers(ctx, tx)
	})
	return given(&session, err)
}

// register opens the next session of the name, or one without a name.
func register(ctx context.Context, tx pgx.Tx, name string) (p ports.ProducerSession, err error) {
	for {
		if name == "" {
			err = tx.QueryRow(ctx, insertProducer, nil).Scan(&p.ID)
			return p, err
		}
		switch err = tx.QueryRow(ctx, lockProducer, name).Scan(&p.ID, &p.Epoch); {
		case err == nil && p.Epoch < math.MaxInt16:
			p.Epoch++
			// The sequences of older sessions decide nothing any more.
			if err := exec(ctx, tx, deleteStreams, int64(p.ID)); err != nil {
				return p, err
			}
			return p, exec(ctx, tx, raiseEpoch, int64(p.ID))
		case err == nil:
			err = errors.Join(exec(ctx, tx, deleteStreams, int64(p.ID)), exec(ctx, tx, deleteProducer, int64(p.ID)))
		case errors.Is(err, pgx.ErrNoRows):
			err = nil
		}
		if err != nil {
			return p, err
		}
		p = ports.ProducerSession{}
		if err = tx.QueryRow(ctx, insertProducer, name).Scan(&p.ID); !errors.Is(err, pgx.ErrNoRows) {
			return p, err
		}
		// Another transaction has just made it.
	}
}

// sweepProducers removes unnamed sessions that have expired. It waits for
// nobody.
func sweepProducers(ctx context.Context, tx pgx.Tx) error {
	var idle []int64
	err := query(ctx, tx, lockIdle, func(r pgx.Rows) error {
		var id int64
		err := r.Scan(&id)
		idle = append(idle, id)
		return err
	}, ports.ProducerExpiry.Milliseconds())
	if err != nil || len(idle) == 0 {
		return err
	}
	return exec(ctx, tx, deleteIdle, ports.ProducerExpiry.Milliseconds(), idle)
}

// AbandonBatch implements ports.Producers.
func (s *Store) AbandonBatch(ctx context.Context, b ports.AbandonedBatch) (commit.Outcome, error) {
	var outcome commit.Outcome
	op := fmt.Sprintf("abandon batch of producer %d on topic %s partition %d", b.Producer, b.Topic, b.Partition)
	err := s.write(ctx, op, func(ctx context.Context, tx pgx.Tx) (err error) {
		outcome, err = abandon(ctx, tx, b)
		return err
	})
	return given(&outcome, err)
}

const storeAbandoned = `INSERT INTO producer_partitions (producer_id, topic_no, partition, accepted_at, epoch, last_sequence, recent)
	VALUES ($1, $2, $3, 0, $4, $5, $6) ON CONFLICT (producer_id, topic_no, partition)
	DO UPDATE SET epoch = excluded.epoch, last_sequence = excluded.last_sequence, recent = excluded.recent`

func abandon(ctx context.Context, tx pgx.Tx, b ports.AbandonedBatch) (commit.Outcome, error) {
	var v view
	named := commit.Batch{Topic: b.Topic, Partition: b.Partition, Producer: b.Producer}
	if err := v.load(ctx, tx, number([]commit.Segment{{Batches: []commit.Batch{named}}})); err != nil {
		return commit.Outcome{}, err
	}
	o := commit.Abandon(&v.View, b.StreamKey, sequence.Batch{Epoch: b.Epoch, First: b.FirstSequence, Records: b.Records})
	if o.Status != commit.Accepted {
		return o, nil
	}
	state := v.Streams[b.StreamKey]
	return o, exec(ctx, tx, storeAbandoned, int64(b.Producer), v.topics[b.Topic], int32(b.Partition),
		int16(state.Epoch), int32(state.Last), packRecent(state))
}
