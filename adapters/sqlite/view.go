package sqlite

import (
	"cmp"
	"database/sql/driver"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
)

// view is what a commit decides on, with what is needed to store it again.
type view struct {
	commit.View
	*memo

	activeAt map[domain.ProducerID]int64

	grown   []grown
	written []written
}

// grown is a partition that got records, and its row's key.
type grown struct {
	key int64
	row *commit.Partition
}

// written is a stream that got records.
type written struct {
	producer  domain.ProducerID
	partition int64 // its row's key
	state     *sequence.State
}

// named is what segments name and the memo does not know, each once; the
// producers are all that they name.
type named struct {
	partitions []commit.PartitionKey
	streams    []commit.StreamKey
	producers  []domain.ProducerID
}

// load reads every row that the segments name and m does not hold.
func (v *view) load(c *conn, m *memo, segments []commit.Segment, now int64) error {
	batches := 0
	for i := range segments {
		batches += len(segments[i].Batches)
	}
	v.init(m, batches)
	v.Now = now
	n := v.name(segments)
	if err := v.loadPartitions(c, n.partitions); err != nil {
		return err
	}
	if err := v.loadProducers(c, n.producers, now); err != nil {
		return err
	}
	return v.loadStreams(c, n.streams)
}

// init makes room for n batches.
func (v *view) init(m *memo, n int) {
	v.memo = m
	v.Producers = make(map[domain.ProducerID]domain.Epoch)
	v.Expired = make(map[domain.ProducerID]bool)
	v.Partitions, v.Streams = m.partitions, m.streams
	v.activeAt = make(map[domain.ProducerID]int64)
	v.grown, v.written = make([]grown, 0, n), make([]written, 0, n)
}

// name returns what the segments name, in the order in which it appears.
func (v *view) name(segments []commit.Segment) named {
	var n named
	partitions, streams := make(map[commit.PartitionKey]bool), make(map[commit.StreamKey]bool)
	producers := make(map[domain.ProducerID]bool)
	for _, seg := range segments {
		for i := range seg.Batches {
			k := seg.Batches[i].Stream()
			if v.Partitions[k.PartitionKey] == nil && !partitions[k.PartitionKey] {
				partitions[k.PartitionKey] = true
				n.partitions = append(n.partitions, k.PartitionKey)
			}
			if k.Producer == commit.NoProducer {
				continue
			}
			if !producers[k.Producer] {
				producers[k.Producer] = true
				n.producers = append(n.producers, k.Producer)
			}
			if v.Streams[k] == nil && !streams[k] {
				streams[k] = true
				n.streams = append(n.streams, k)
			}
		}
	}
	return n
}

var topicNumbers = newBulk("SELECT topic_id, topic_no FROM topics WHERE topic_id IN (", "?", ")")

// maxTopicNumbers bounds what a connection remembers of topics.
const maxTopicNumbers = 10_000

// loadKeys finds the row key of each of the partitions whose topic is known.
func (v *view) loadKeys(c *conn, partitions []commit.PartitionKey) error {
	var unknown []driver.Value
	asked := make(map[domain.TopicID]bool)
	if len(c.topics) > maxTopicNumbers {
		clear(c.topics)
	}
	for _, k := range partitions {
		if _, known := c.topics[k.Topic]; !known && !asked[k.Topic] {
			asked[k.Topic] = true
			unknown = append(unknown, append([]byte(nil), k.Topic[:]...))
		}
	}
	err := c.queryBulk(topicNumbers, func(r *row) error {
		c.topics[domain.TopicID(r.uuid(0))] = r.int(1)
		return nil
	}, unknown)
	if err != nil {
		return err
	}
	for _, k := range partitions {
		no, known := c.topics[k.Topic]
		if known && k.Partition >= 0 && k.Partition < domain.MaxPartitions {
			v.keys[k] = partitionKey(no, k.Partition)
		}
	}
	return nil
}

var partitionsByKey = newBulk("SELECT "+partitionColumns+" FROM partitions WHERE partition_key IN (", "?", ")")

// loadPartitions reads the partitions' rows, of those that exist.
func (v *view) loadPartitions(c *conn, partitions []commit.PartitionKey) error {
	if err := v.loadKeys(c, partitions); err != nil {
		return err
	}
	args := make([]driver.Value, 0, len(partitions))
	names := make(map[int64]commit.PartitionKey, len(partitions))
	for _, k := range partitions {
		if pk, known := v.keys[k]; known {
			names[pk] = k
			args = append(args, pk)
		}
	}
	return c.queryBulk(partitionsByKey, func(r *row) error {
		pk, p := scanPartition(r)
		v.Partitions[names[pk]] = &p
		return nil
	}, args)
}

var (
	producersByID = newBulk("SELECT producer_id, epoch, active_at, name IS NOT NULL FROM producers WHERE producer_id IN (", "?", ")")
	lastAccepted  = query{"SELECT coalesce(max(accepted_at), 0) FROM producer_partitions WHERE producer_id = ?"}
)

// loadProducers reads the producers' newest sessions and finds the expired ones.
func (v *view) loadProducers(c *conn, producers []domain.ProducerID, now int64) error {
	ids := make([]driver.Value, 0, len(producers))
	for _, id := range producers {
		ids = append(ids, int64(id))
	}
	named := make(map[domain.ProducerID]bool)
	err := c.queryBulk(producersByID, func(r *row) error {
		id := domain.ProducerID(r.int(0))
		v.Producers[id], v.activeAt[id], named[id] = domain.Epoch(r.int(1)), r.int(2), r.int(3) != 0
		return nil
	}, ids)
	if err != nil {
		return err
	}
	for id, at := range v.activeAt {
		switch gone, err := c.expired(id, at, now); {
		case err != nil:
			return err
		case gone && named[id]:
			v.Expired[id] = true
		case gone:
			delete(v.Producers, id)
		}
	}
	return nil
}

// expired reports whether the session has been idle for too long. ActiveAt may
// be late, so if it says yes the streams are asked.
func (c *conn) expired(id domain.ProducerID, activeAt, now int64) (bool, error) {
	limit := now - ports.ProducerExpiry.Milliseconds()
	if activeAt > limit || mutant.On(mutantExpiryLate) {
		return false, nil
	}
	gone := true
	err := c.query(&lastAccepted, func(r *row) error {
		gone = r.int(0) <= limit
		return nil
	}, int64(id))
	return gone, err
}

var streamsByKey = newBulk(`SELECT producer_id, partition_key, state FROM producer_partitions
	WHERE (producer_id, partition_key) IN (VALUES `, "(?, ?)", ")")

func (v *view) loadStreams(c *conn, streams []commit.StreamKey) error {
	type dbKey struct{ producer, partition int64 }
	names := make(map[dbKey]commit.StreamKey, len(streams))
	args := make([]driver.Value, 0, 2*len(streams))
	for _, k := range streams {
		if pk, known := v.keys[k.PartitionKey]; known {
			names[dbKey{int64(k.Producer), pk}] = k
			args = append(args, int64(k.Producer), pk)
		}
	}
	return c.queryBulk(streamsByKey, func(r *row) error {
		state, err := unpackState(r.blob(2))
		v.Streams[names[dbKey{r.int(0), r.int(1)}]] = state
		return err
	}, args)
}

// touch notes what the outcomes of seg changed. Its batches are sorted by partition.
func (v *view) touch(seg commit.Segment, outcomes []commit.Outcome) {
	for i := range seg.Batches {
		if outcomes[i].Status != commit.Accepted {
			continue
		}
		k := seg.Batches[i].Stream()
		row := v.Partitions[k.PartitionKey]
		last := len(v.grown) - 1
		if last < 0 || v.grown[last].row != row {
			v.grown = append(v.grown, grown{v.keys[k.PartitionKey], row})
			last++
		}
		if k.Producer != commit.NoProducer {
			v.written = append(v.written, written{k.Producer, v.grown[last].key, v.Streams[k]})
		}
	}
}

// once leaves each row once, in the order of their keys.
func (v *view) once() {
	byKey := func(a, b grown) int { return cmp.Compare(a.key, b.key) }
	slices.SortFunc(v.grown, byKey)
	v.grown = slices.CompactFunc(v.grown, func(a, b grown) bool { return a == b })
	byStream := func(a, b written) int {
		return cmp.Or(cmp.Compare(a.producer, b.producer), cmp.Compare(a.partition, b.partition))
	}
	slices.SortFunc(v.written, byStream)
	v.written = slices.CompactFunc(v.written, func(a, b written) bool { return a == b })
}

// refreshAfter is how late producers.active_at may be, in milliseconds.
const refreshAfter = 3_600_000

var (
	storePartitions = newBulk("REPLACE INTO partitions ("+partitionColumns+") VALUES ", "(?, ?, ?, ?, ?)", "")
	storeStreams    = newBulk("REPLACE INTO producer_partitions (producer_id, partition_key, accepted_at, state) VALUES ", "(?, ?, ?, ?)", "")
	storeActive     = query{"UPDATE producers SET active_at = ? WHERE producer_id = ?"}
)

// store writes what touch has noted.
func (v *view) store(c *conn, now int64) error {
	v.once()
	args := make([]driver.Value, 0, len(v.grown)*storePartitions.width)
	for _, g := range v.grown {
		p := g.row
		args = append(args, g.key, int64(p.LogStart), int64(p.NextOffset), p.Bytes, sumOfPartition(*p))
	}
	if err := c.execBulk(storePartitions, args); err != nil {
		return err
	}
	if mutant.On(mutantStateNotKept) {
		return nil
	}
	args = args[:0]
	for _, w := range v.written {
		args = append(args, int64(w.producer), w.partition, now, packState(w.state))
	}
	if err := c.execBulk(storeStreams, args); err != nil {
		return err
	}
	return v.storeActive(c, now)
}

func (v *view) storeActive(c *conn, now int64) error {
	for _, w := range v.written {
		if now-v.activeAt[w.producer] < refreshAfter {
			continue
		}
		v.activeAt[w.producer] = now
		if err := c.exec(&storeActive, now, int64(w.producer)); err != nil {
			return err
		}
	}
	return nil
}
