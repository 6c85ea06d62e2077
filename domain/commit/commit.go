// Package commit is the decision at the heart of the protocol: which batches of
// an uploaded segment enter the log, and at which offsets.
//
// It is pure. A metadata store loads the rows that a commit touches into a
// View, calls Decide for each segment in order, and writes what changed, all in
// one transaction. Every store decides alike because every store asks here.
package commit

import (
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/sequence"
)

// NoProducer is the producer id of batches sent without idempotence.
const NoProducer domain.ProducerID = -1

// Planted bugs, see package mutant.
const (
	mutantReplayForgotten mutant.ID = "duplicate-appended-again"
	mutantSequenceLate    mutant.ID = "sequence-not-remembered"
	mutantEpochIgnored    mutant.ID = "older-epoch-accepted"
	mutantGapInOffsets    mutant.ID = "offset-gap-after-reject"
	mutantWrongDuplicate  mutant.ID = "duplicate-answers-next-offset"
	mutantTopicIgnored    mutant.ID = "deleted-topic-accepted"
	mutantExtentMerged    mutant.ID = "extent-spans-rejected-batch"
)

// PartitionKey names one partition of one topic.
type PartitionKey struct {
	Topic     domain.TopicID
	Partition domain.PartitionID
}

// StreamKey names one producer's records on one partition.
type StreamKey struct {
	Producer domain.ProducerID
	PartitionKey
}

// Batch is one record batch inside a segment, as the commit sees it.
type Batch struct {
	Topic     domain.TopicID
	Partition domain.PartitionID
	// Producer is NoProducer for a batch without idempotence; Epoch and
	// FirstSequence then mean nothing.
	Producer      domain.ProducerID
	Epoch         domain.Epoch
	FirstSequence domain.Sequence
	Records       int32
	// Position and Length locate the batch in the segment, in bytes.
	Position int64
	Length   int32
	// MaxTimestamp is the newest record's, in Unix milliseconds.
	MaxTimestamp int64
}

// Key returns the partition the batch is for.
func (b Batch) Key() PartitionKey { return PartitionKey{b.Topic, b.Partition} }

// Stream returns the producer and partition the batch belongs to.
func (b Batch) Stream() StreamKey { return StreamKey{b.Producer, b.Key()} }

// Segment is an uploaded object that asks to enter the log. Batches stand in
// the order of their Position; those of one producer and partition in the order they
// were sent.
type Segment struct {
	ID      domain.SegmentID
	Size    int64
	CRC32C  uint32
	Batches []Batch
}

// Status is the answer for one batch.
type Status uint8

const (
	// Accepted: stored; Base is its first record's offset.
	Accepted Status = iota + 1
	// Duplicate: stored by an earlier commit at Base.
	Duplicate
	// DuplicateForgotten: stored or abandoned earlier; Base is unknown (-1).
	DuplicateForgotten
	// OutOfOrder: refused, a batch before it is missing.
	OutOfOrder
	// Fenced: refused, the producer has a newer session.
	Fenced
	// UnknownProducer: refused, the session expired or never was.
	UnknownProducer
	// NoPartition: refused, the topic is deleted or has no such partition.
	NoPartition
)

// Outcome answers one batch. Base is -1 unless Status is Accepted or Duplicate.
type Outcome struct {
	Status Status
	Base   domain.Offset
}

// Extent is a run of adjacent accepted batches of one partition in one segment,
// with consecutive offsets.
type Extent struct {
	Topic     domain.TopicID
	Partition domain.PartitionID
	Base      domain.Offset
	// Last is the offset of the extent's last record.
	Last     domain.Offset
	Segment  domain.SegmentID
	Position int64
	Length   int64
	Batches  int32
	// MaxTimestamp is the newest record's, in Unix milliseconds.
	MaxTimestamp int64
	// CommittedAt is when the extent entered the log, on the metadata store's
	// clock, in Unix milliseconds. Retention by age goes by it.
	CommittedAt int64
}

// Key returns the partition the extent belongs to.
func (e Extent) Key() PartitionKey { return PartitionKey{e.Topic, e.Partition} }

// Partition is the row of one partition.
type Partition struct {
	LogStart   domain.Offset
	NextOffset domain.Offset
	Bytes      int64
}

// View is the part of the store that a commit reads and changes. The store puts
// in every row that exists for the keys the segments name; a missing one means that it
// does not exist. Decide changes the rows in place.
type View struct {
	// Producers maps a producer to its newest epoch.
	Producers map[domain.ProducerID]domain.Epoch
	// Expired holds the producers whose newest session was idle for too long.
	// Its older ones are fenced all the same: what comes back after days must not take the
	// producer's name from its successor.
	Expired    map[domain.ProducerID]bool
	Partitions map[PartitionKey]*Partition
	Streams    map[StreamKey]*sequence.State
	// Now is the store's clock, in Unix milliseconds.
	Now int64
}

// Decision is what a segment's commit does besides changing the View.
type Decision struct {
	// Outcomes answers the segment's batches, in their order.
	Outcomes []Outcome
	// Extents enter the log. None means that the segment holds nothing live.
	Extents []Extent
}

// Decide judges the batches of seg in order, gives offsets to the new ones and
// changes v accordingly.
func Decide(v *View, seg Segment) Decision {
	d := Decision{Outcomes: make([]Outcome, len(seg.Batches))}
	for i, b := range seg.Batches {
		o := decide(v, b)
		d.Outcomes[i] = o
		if o.Status == Accepted {
			d.Extents = extend(d.Extents, seg.ID, b, o.Base, v.Now)
		}
	}
	return d
}

func decide(v *View, b Batch) Outcome {
	part := v.Partitions[b.Key()]
	if part == nil {
		if mutant.On(mutantTopicIgnored) {
			return Outcome{Accepted, 0}
		}
		return Outcome{NoPartition, -1}
	}
	if b.Producer == NoProducer {
		return part.append(b)
	}
	if refused, ok := v.session(b.Producer, b.Epoch); !ok {
		return refused
	}
	return v.sequenced(part, b)
}

// session reports whether epoch is the producer's newest session, and else how
// its batches are refused.
func (v *View) session(id domain.ProducerID, epoch domain.Epoch) (Outcome, bool) {
	newest, known := v.Producers[id]
	if !known || epoch > newest {
		return Outcome{UnknownProducer, -1}, false
	}
	if epoch < newest && !mutant.On(mutantEpochIgnored) {
		return Outcome{Fenced, -1}, false
	}
	if v.Expired[id] {
		return Outcome{UnknownProducer, -1}, false
	}
	return Outcome{}, true
}

// sequenced decides on a batch whose producer session is the newest.
func (v *View) sequenced(part *Partition, b Batch) Outcome {
	state := v.Streams[b.Stream()]
	if state == nil {
		state = new(sequence.State)
		v.Streams[b.Stream()] = state
	}
	sb := sequence.Batch{Epoch: b.Epoch, First: b.FirstSequence, Records: b.Records}
	verdict, base := state.Judge(sb)
	switch verdict {
	case sequence.Duplicate:
		switch {
		case mutant.On(mutantReplayForgotten):
			return part.append(b)
		case mutant.On(mutantWrongDuplicate):
			return Outcome{Duplicate, part.NextOffset}
		}
		return Outcome{Duplicate, base}
	case sequence.DuplicateForgotten:
		return Outcome{DuplicateForgotten, -1}
	case sequence.OutOfOrder:
		if mutant.On(mutantGapInOffsets) {
			part.NextOffset += domain.Offset(b.Records)
		}
		return Outcome{OutOfOrder, -1}
	case sequence.Fenced:
		return Outcome{Fenced, -1}
	}
	o := part.append(b)
	if !mutant.On(mutantSequenceLate) {
		state.Accept(sb, o.Base)
	}
	return o
}

func (p *Partition) append(b Batch) Outcome {
	base := p.NextOffset
	p.NextOffset += domain.Offset(b.Records)
	p.Bytes += int64(b.Length)
	return Outcome{Accepted, base}
}

// extend adds b to the last extent if it continues it, byte by byte and offset
// by offset; else it begins a new extent.
func extend(extents []Extent, id domain.SegmentID, b Batch, base domain.Offset, now int64) []Extent {
	last := base + domain.Offset(b.Records) - 1
	if n := len(extents); n > 0 {
		e := &extents[n-1]
		adjacent := e.Position+e.Length == b.Position || mutant.On(mutantExtentMerged)
		if e.Topic == b.Topic && e.Partition == b.Partition && adjacent && e.Last+1 == base {
			e.Last, e.Length = last, e.Length+int64(b.Length)
			e.Batches++
			e.MaxTimestamp = max(e.MaxTimestamp, b.MaxTimestamp)
			return extents
		}
	}
	return append(extents, Extent{
		Topic: b.Topic, Partition: b.Partition, Base: base, Last: last, Segment: id,
		Position: b.Position, Length: int64(b.Length), Batches: 1, MaxTimestamp: b.MaxTimestamp, CommittedAt: now,
	})
}
