package sqlite

import (
	"database/sql/driver"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
)

// view is what a commit decides on, with what is needed to store it again.
type view struct {
	commit.View
	keys map[commit.PartitionKey]int64 // of existing topics, perhaps beyond their partitions

	partitions map[int64]*commit.Partition
	activeAt   map[domain.ProducerID]int64

	grown    []int64 // partitions that got records, each once
	isGrown  map[int64]bool
	written  []commit.StreamKey // streams that got records, each once
	accepted map[commit.StreamKey]bool
}

// load reads every row that the segments name.
func (v *view) load(c *conn, segments []commit.Segment, now int64) error {
	batches := 0
	for i := range segments {
		batches += len(segments[i].Batches)
	}
	v.init(batches)
	v.Now = now
	streams := v.name(segments)
	if err := v.loadKeys(c); err != nil {
		return err
	}
	if err := v.loadPartitions(c); err != nil {
		return err
	}
	if err := v.loadProducers(c, streams, now); err != nil {
		return err
	}
	return v.loadStreams(c, streams)
}

// init makes room for n batches or partitions.
func (v *view) init(n int) {
	v.Producers = make(map[domain.ProducerID]domain.Epoch)
	v.Expired = make(map[domain.ProducerID]bool)
	v.Partitions = make(map[commit.PartitionKey]*commit.Partition, n)
	v.Streams = make(map[commit.StreamKey]*sequence.State, n)
	v.keys = make(map[commit.PartitionKey]int64, n)
	v.partitions = make(map[int64]*commit.Partition, n)
	v.activeAt = make(map[domain.ProducerID]int64)
	v.isGrown = make(map[int64]bool, n)
	v.grown = make([]int64, 0, n)
	v.accepted = make(map[commit.StreamKey]bool, n)
	v.written = make([]commit.StreamKey, 0, n)
}

// name notes the partitions that the segments name, and returns their streams,
// each once, in the order in which they appear.
func (v *view) name(segments []commit.Segment) []commit.StreamKey {
	streams := make([]commit.StreamKey, 0, cap(v.written))
	seen := make(map[commit.StreamKey]bool, cap(v.written))
	for _, seg := range segments {
		for i := range seg.Batches {
			b := &seg.Batches[i]
			k := b.Stream()
			v.keys[k.PartitionKey] = 0
			if b.Producer != commit.NoProducer && !seen[k] {
				seen[k] = true
				streams = append(streams, k)
			}
		}
	}
	return streams
}

var topicNumbers = newBulk("SELECT topic_id, topic_no FROM topics WHERE topic_id IN (", "?", ")")

// maxTopicNumbers bounds what a connection remembers of topics.
const maxTopicNumbers = 10_000

// loadKeys finds the row key of each partition of a known topic.
func (v *view) loadKeys(c *conn) error {
	var unknown []driver.Value
	asked := make(map[domain.TopicID]bool)
	for k := range v.keys {
		if _, known := c.topics[k.Topic]; !known && !asked[k.Topic] {
			asked[k.Topic] = true
			unknown = append(unknown, append([]byte(nil), k.Topic[:]...))
		}
	}
	if len(c.topics) > maxTopicNumbers {
		clear(c.topics)
	}
	err := c.queryBulk(topicNumbers, func(r *row) error {
		c.topics[domain.TopicID(r.uuid(0))] = r.int(1)
		return nil
	}, unknown)
	if err != nil {
		return err
	}
	for k := range v.keys {
		no, known := c.topics[k.Topic]
		if !known || k.Partition < 0 || k.Partition >= domain.MaxPartitions {
			delete(v.keys, k)
			continue
		}
		v.keys[k] = partitionKey(no, k.Partition)
	}
	return nil
}

var partitionsByKey = newBulk("SELECT "+partitionColumns+" FROM partitions WHERE partition_key IN (", "?", ")")

func (v *view) loadPartitions(c *conn) error {
	args := make([]driver.Value, 0, len(v.keys))
	for _, pk := range v.keys {
		args = append(args, pk)
	}
	err := c.queryBulk(partitionsByKey, func(r *row) error {
		pk, p := scanPartition(r)
		v.partitions[pk] = &p
		return nil
	}, args)
	if err != nil {
		return err
	}
	for k, pk := range v.keys {
		if p := v.partitions[pk]; p != nil {
			v.Partitions[k] = p
		}
	}
	return nil
}

var (
	producersByID = newBulk("SELECT producer_id, epoch, active_at, name IS NOT NULL FROM producers WHERE producer_id IN (", "?", ")")
	lastAccepted  = query{"SELECT coalesce(max(accepted_at), 0) FROM producer_partitions WHERE producer_id = ?"}
)

// loadProducers reads the producers' newest sessions and finds the expired ones.
func (v *view) loadProducers(c *conn, streams []commit.StreamKey, now int64) error {
	var ids []driver.Value
	seen := make(map[domain.ProducerID]bool)
	for _, k := range streams {
		if !seen[k.Producer] {
			seen[k.Producer] = true
			ids = append(ids, int64(k.Producer))
		}
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

// touch notes what the outcomes of seg changed.
func (v *view) touch(seg commit.Segment, outcomes []commit.Outcome) {
	for i := range seg.Batches {
		if outcomes[i].Status != commit.Accepted {
			continue
		}
		k := seg.Batches[i].Stream()
		if pk := v.keys[k.PartitionKey]; !v.isGrown[pk] {
			v.isGrown[pk] = true
			v.grown = append(v.grown, pk)
		}
		if k.Producer != commit.NoProducer && !v.accepted[k] {
			v.accepted[k] = true
			v.written = append(v.written, k)
		}
	}
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
	args := make([]driver.Value, 0, len(v.grown)*storePartitions.width)
	for _, pk := range v.grown {
		p := v.partitions[pk]
		args = append(args, pk, int64(p.LogStart), int64(p.NextOffset), p.Bytes, sumOfPartition(*p))
	}
	if err := c.execBulk(storePartitions, args); err != nil {
		return err
	}
	if mutant.On(mutantStateNotKept) {
		return nil
	}
	args = args[:0]
	for _, k := range v.written {
		args = append(args, int64(k.Producer), v.keys[k.PartitionKey], now, packState(v.Streams[k]))
	}
	if err := c.execBulk(storeStreams, args); err != nil {
		return err
	}
	return v.storeActive(c, now)
}

func (v *view) storeActive(c *conn, now int64) error {
	for _, k := range v.written {
		if now-v.activeAt[k.Producer] < refreshAfter {
			continue
		}
		v.activeAt[k.Producer] = now
		if err := c.exec(&storeActive, now, int64(k.Producer)); err != nil {
			return err
		}
	}
	return nil
}
