package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
)

// view is what a commit decides on, with what is needed to store it again.
type view struct {
	commit.View
	topics map[domain.TopicID]int64 // the numbers of those that have a row
	stale  []int64                  // producers whose active_at is an hour old or more
}

const (
	topicNumbers   = "SELECT topic_id, topic_no FROM topics WHERE topic_id = ANY ($1)"
	lockProducers  = "SELECT producer_id, epoch, active_at, name IS NOT NULL FROM producers WHERE producer_id = ANY ($1) ORDER BY producer_id FOR SHARE"
	lockPartitions = `SELECT u.ord, p.log_start, p.next_offset, p.bytes FROM unnest($1::bigint[], $2::integer[]) WITH ORDINALITY AS u(topic_no, partition, ord)
		CROSS JOIN LATERAL (SELECT * FROM partitions AS q WHERE q.topic_no = u.topic_no AND q.partition = u.partition FOR UPDATE) AS p`
	streamsByKey = `SELECT u.ord, p.epoch, p.last_sequence, p.recent FROM unnest($1::bigint[], $2::bigint[], $3::integer[])
		WITH ORDINALITY AS u(producer_id, topic_no, partition, ord) JOIN producer_partitions AS p USING (producer_id, topic_no, partition)`
	lastAccepted = "SELECT coalesce(max(accepted_at), 0) FROM producer_partitions WHERE producer_id = $1"
	timeNow      = "SELECT now_ms()"
)

// refreshAfter is how late producers.active_at may be, in milliseconds.
const refreshAfter = 3_600_000

// load locks and reads every row that n names, in the order of all transactions.
func (v *view) load(ctx context.Context, tx pgx.Tx, n *numbered) error {
	v.Producers = make(map[domain.ProducerID]domain.Epoch)
	v.Expired = make(map[domain.ProducerID]bool)
	v.Partitions = make(map[commit.PartitionKey]*commit.Partition)
	v.Streams = make(map[commit.StreamKey]*sequence.State)
	v.topics = make(map[domain.TopicID]int64)
	err := query(ctx, tx, topicNumbers, func(r pgx.Rows) error {
		var id [16]byte
		var no int64
		err := r.Scan(&id, &no)
		v.topics[id] = no
		return err
	}, n.topics)
	if err != nil {
		return err
	}
	active, named, err := v.loadProducers(ctx, tx, n.producers)
	if err != nil {
		return err
	}
	if err := v.loadPartitions(ctx, tx, n.partitions); err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, timeNow).Scan(&v.Now); err != nil {
		return err
	}
	if err := v.expire(ctx, tx, active, named); err != nil {
		return err
	}
	return v.loadStreams(ctx, tx, n.streams)
}

func (v *view) loadProducers(ctx context.Context, tx pgx.Tx, ids []int64) (active map[int64]int64, named map[int64]bool, err error) {
	active, named = make(map[int64]int64), make(map[int64]bool)
	err = query(ctx, tx, lockProducers, func(r pgx.Rows) error {
		var id, at int64
		var epoch int16
		var hasName bool
		err := r.Scan(&id, &epoch, &at, &hasName)
		v.Producers[domain.ProducerID(id)], active[id], named[id] = domain.Epoch(epoch), at, hasName
		return err
	}, ids)
	return active, named, err
}

func (v *view) loadPartitions(ctx context.Context, tx pgx.Tx, keys []commit.PartitionKey) error {
	topics, numbers := make([]int64, len(keys)), make([]int32, len(keys))
	for i, k := range keys {
		topics[i], numbers[i] = v.topics[k.Topic], int32(k.Partition)
	}
	return query(ctx, tx, lockPartitions, func(r pgx.Rows) error {
		var at int
		p := new(commit.Partition)
		err := r.Scan(&at, &p.LogStart, &p.NextOffset, &p.Bytes)
		v.Partitions[keys[at-1]] = p
		return err
	}, topics, numbers)
}

// expire finds the sessions that have been idle for too long.
func (v *view) expire(ctx context.Context, tx pgx.Tx, active map[int64]int64, named map[int64]bool) error {
	limit := v.Now - ports.ProducerExpiry.Milliseconds()
	for id, at := range active {
		if at <= v.Now-refreshAfter {
			v.stale = append(v.stale, id)
		}
		if at > limit {
			continue
		}
		var last int64
		if err := tx.QueryRow(ctx, lastAccepted, id).Scan(&last); err != nil {
			return err
		}
		switch {
		case last > limit:
		case named[id]:
			v.Expired[domain.ProducerID(id)] = true
		default:
			delete(v.Producers, domain.ProducerID(id))
		}
	}
	return nil
}

func (v *view) loadStreams(ctx context.Context, tx pgx.Tx, streams []commit.StreamKey) error {
	producers, topics, numbers := make([]int64, len(streams)), make([]int64, len(streams)), make([]int32, len(streams))
	for i, k := range streams {
		producers[i], topics[i], numbers[i] = int64(k.Producer), v.topics[k.Topic], int32(k.Partition)
	}
	return query(ctx, tx, streamsByKey, func(r pgx.Rows) error {
		var at int
		var row streamRow
		err := r.Scan(&at, &row.epoch, &row.last, &row.recent)
		v.Streams[streams[at-1]] = row.state()
		return err
	}, producers, topics, numbers)
}

// streamRow is a row of producer_partitions without its key.
type streamRow struct {
	epoch  int16
	last   int32
	recent [][]int64
}

func (r streamRow) state() *sequence.State {
	s := &sequence.State{Seen: true, Epoch: domain.Epoch(r.epoch), Last: domain.Sequence(r.last)}
	for _, e := range r.recent {
		s.Recent = append(s.Recent, sequence.Entry{First: domain.Sequence(e[0]), Last: domain.Sequence(e[1]), Base: domain.Offset(e[2])})
	}
	return s
}

func packRecent(s *sequence.State) [][]int64 {
	recent := make([][]int64, 0, len(s.Recent))
	for _, e := range s.Recent {
		recent = append(recent, []int64{int64(e.First), int64(e.Last), int64(e.Base)})
	}
	return slices.Clip(recent)
}
