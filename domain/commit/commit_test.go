package commit_test

import (
	"slices"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
)

var (
	orders  = commit.PartitionKey{Topic: domain.TopicID{1}, Partition: 0}
	orders1 = commit.PartitionKey{Topic: domain.TopicID{1}, Partition: 1}
	nowhere = commit.PartitionKey{Topic: domain.TopicID{9}, Partition: 0}
)

const alice, bob domain.ProducerID = 7, 8

// newView holds both partitions of orders, and the producers alice in epoch 2
// and bob in epoch 0.
func newView() *commit.View {
	return &commit.View{
		Producers:  map[domain.ProducerID]domain.Epoch{alice: 2, bob: 0},
		Partitions: map[commit.PartitionKey]*commit.Partition{orders: {}, orders1: {LogStart: 5, NextOffset: 40}},
		Streams:    make(map[commit.StreamKey]*sequence.State),
	}
}

func plain(key commit.PartitionKey, records int32) commit.Batch {
	return commit.Batch{Topic: key.Topic, Partition: key.Partition, Producer: commit.NoProducer, Records: records}
}

func by(id domain.ProducerID, epoch domain.Epoch, key commit.PartitionKey, first domain.Sequence, records int32) commit.Batch {
	b := plain(key, records)
	b.Producer, b.Epoch, b.FirstSequence = id, epoch, first
	return b
}

// segment puts batches of 100 bytes one after the other.
func segment(batches ...commit.Batch) commit.Segment {
	seg := commit.Segment{ID: domain.SegmentID{3}}
	for i, b := range batches {
		b.Position, b.Length, b.MaxTimestamp = int64(64+100*i), 100, int64(1000-i)
		seg.Batches = append(seg.Batches, b)
	}
	return seg
}

func wantOutcomes(t *testing.T, d commit.Decision, want ...commit.Outcome) {
	t.Helper()
	if !slices.Equal(d.Outcomes, want) {
		t.Errorf("outcomes are %v, want %v", d.Outcomes, want)
	}
}

func accepted(base domain.Offset) commit.Outcome {
	return commit.Outcome{Status: commit.Accepted, Base: base}
}
func refused(s commit.Status) commit.Outcome { return commit.Outcome{Status: s, Base: -1} }

func TestDecide_GivesDenseOffsetsFromTheNextOfEachPartition(t *testing.T) {
	v := newView()
	d := commit.Decide(v, segment(plain(orders, 3), plain(orders1, 2), plain(orders, 1), plain(orders1, 7)))
	wantOutcomes(t, d, accepted(0), accepted(40), accepted(3), accepted(42))
	if p := *v.Partitions[orders]; p != (commit.Partition{NextOffset: 4, Bytes: 200}) {
		t.Errorf("partition is %+v", p)
	}
	if p := *v.Partitions[orders1]; p != (commit.Partition{LogStart: 5, NextOffset: 49, Bytes: 200}) {
		t.Errorf("partition is %+v", p)
	}
}

func TestDecide_CoalescesAdjacentBatchesOfOnePartition(t *testing.T) {
	d := commit.Decide(newView(), segment(plain(orders, 3), plain(orders, 2), plain(orders1, 1), plain(orders, 4)))
	want := []commit.Extent{
		{Topic: orders.Topic, Base: 0, Last: 4, Segment: domain.SegmentID{3}, Position: 64, Length: 200, Batches: 2, MaxTimestamp: 1000},
		{Topic: orders.Topic, Partition: 1, Base: 40, Last: 40, Segment: domain.SegmentID{3}, Position: 264, Length: 100, Batches: 1, MaxTimestamp: 998},
		{Topic: orders.Topic, Base: 5, Last: 8, Segment: domain.SegmentID{3}, Position: 364, Length: 100, Batches: 1, MaxTimestamp: 997},
	}
	if !slices.Equal(d.Extents, want) {
		t.Errorf("extents are %+v, want %+v", d.Extents, want)
	}
}

func TestDecide_SplitsExtentsAroundRefusedBatches(t *testing.T) {
	v := newView()
	d := commit.Decide(v, segment(plain(orders, 1), by(bob, 0, orders, 9, 5), plain(orders, 1), plain(nowhere, 3), plain(orders, 1)))
	wantOutcomes(t, d, accepted(0), refused(commit.OutOfOrder), accepted(1), refused(commit.NoPartition), accepted(2))
	if len(d.Extents) != 3 || v.Partitions[orders].Bytes != 300 {
		t.Errorf("extents are %+v with %d bytes", d.Extents, v.Partitions[orders].Bytes)
	}
}

func TestDecide_DoesNotJoinBatchesThatTouchButSkipBytes(t *testing.T) {
	seg := segment(plain(orders, 1), plain(orders, 1))
	seg.Batches[1].Position++
	if d := commit.Decide(newView(), seg); len(d.Extents) != 2 {
		t.Errorf("extents are %+v", d.Extents)
	}
}

func TestDecide_KeepsTheNewestTimestampOfAnExtent(t *testing.T) {
	seg := segment(plain(orders, 1), plain(orders, 1), plain(orders, 1))
	for i, ts := range []int64{-5, 900, -7} {
		seg.Batches[i].MaxTimestamp = ts
	}
	if d := commit.Decide(newView(), seg); d.Extents[0].MaxTimestamp != 900 {
		t.Errorf("extent is %+v", d.Extents[0])
	}
}

func TestDecide_AnswersEachStatus(t *testing.T) {
	v := newView()
	commit.Decide(v, segment(by(bob, 0, orders, 0, 2)))
	for range 5 {
		next := v.Streams[commit.StreamKey{Producer: bob, PartitionKey: orders}].Last.Add(1)
		commit.Decide(v, segment(by(bob, 0, orders, next, 2)))
	}
	d := commit.Decide(v, segment(
		by(bob, 0, orders, 12, 2), by(bob, 0, orders, 4, 2), by(bob, 0, orders, 0, 2), by(bob, 0, orders, 15, 1),
		by(alice, 1, orders, 0, 1), by(alice, 3, orders, 0, 1), by(99, 0, orders, 0, 1), by(bob, 0, nowhere, 0, 1),
	))
	wantOutcomes(t, d, accepted(12), commit.Outcome{Status: commit.Duplicate, Base: 4}, refused(commit.DuplicateForgotten),
		refused(commit.OutOfOrder), refused(commit.Fenced), refused(commit.UnknownProducer), refused(commit.UnknownProducer),
		refused(commit.NoPartition))
	if len(d.Extents) != 1 || v.Partitions[orders].NextOffset != 14 {
		t.Errorf("extents are %+v, next offset %d", d.Extents, v.Partitions[orders].NextOffset)
	}
}

func TestDecide_NothingLiveGivesNoExtents(t *testing.T) {
	v := newView()
	seg := segment(by(bob, 0, orders, 0, 2))
	commit.Decide(v, seg)
	before := *v.Partitions[orders]
	d := commit.Decide(v, seg)
	wantOutcomes(t, d, commit.Outcome{Status: commit.Duplicate, Base: 0})
	if len(d.Extents) != 0 || *v.Partitions[orders] != before {
		t.Errorf("a repeat gave %+v, partition %+v", d.Extents, *v.Partitions[orders])
	}
	if d := commit.Decide(v, commit.Segment{}); len(d.Outcomes) != 0 || d.Outcomes == nil {
		t.Errorf("an empty segment gave %+v", d)
	}
}

func TestAbandon_AnswersAsTheCommitWould(t *testing.T) {
	v := newView()
	commit.Decide(v, segment(by(bob, 0, orders, 0, 2)))
	for _, c := range []struct {
		b    commit.Batch
		want commit.Outcome
	}{
		{by(bob, 0, orders, 0, 2), commit.Outcome{Status: commit.Duplicate, Base: 0}},
		{by(bob, 0, orders, 5, 2), refused(commit.OutOfOrder)},
		{by(bob, 0, orders, 1, 1), refused(commit.DuplicateForgotten)},
		{by(bob, 0, orders, 2, 2), refused(commit.Accepted)},
		{by(bob, 0, orders, 2, 2), refused(commit.Accepted)},
		{by(bob, 0, orders1, 0, 2), refused(commit.Accepted)},
		{by(bob, 0, nowhere, 0, 2), refused(commit.NoPartition)},
		{by(bob, 1, orders, 4, 2), refused(commit.UnknownProducer)},
		{by(99, 0, orders, 0, 2), refused(commit.UnknownProducer)},
		{by(alice, 1, orders, 0, 2), refused(commit.Fenced)},
		{plain(orders, 2), refused(commit.UnknownProducer)},
	} {
		sb := sequence.Batch{Epoch: c.b.Epoch, First: c.b.FirstSequence, Records: c.b.Records}
		if got := commit.Abandon(v, c.b.Stream(), sb); got != c.want {
			t.Errorf("abandoning %+v is answered %v, want %v", c.b, got, c.want)
		}
	}
	wantOutcomes(t, commit.Decide(v, segment(by(bob, 0, orders, 2, 2), by(bob, 0, orders, 4, 1))),
		refused(commit.DuplicateForgotten), accepted(2))
}

func TestAbandon_LeavesNoTraceWhenRefused(t *testing.T) {
	v := newView()
	commit.Abandon(v, commit.StreamKey{Producer: bob, PartitionKey: orders}, sequence.Batch{First: 4, Records: 1})
	if len(v.Streams) != 0 || *v.Partitions[orders] != (commit.Partition{}) {
		t.Errorf("streams are %+v", v.Streams)
	}
}

func BenchmarkDecide(b *testing.B) {
	v := newView()
	var batches []commit.Batch
	for p := range domain.PartitionID(16) {
		key := commit.PartitionKey{Topic: domain.TopicID{2}, Partition: p}
		v.Partitions[key] = new(commit.Partition)
		batches = append(batches, by(bob, 0, key, 0, 100))
	}
	seg := segment(batches...)
	b.ReportAllocs()
	for b.Loop() {
		d := commit.Decide(v, seg)
		if d.Outcomes[15].Status != commit.Accepted {
			b.Fatal(d.Outcomes[15])
		}
		for i := range seg.Batches {
			seg.Batches[i].FirstSequence = seg.Batches[i].FirstSequence.Add(100)
		}
	}
}

// A process that comes back after days is an older session though every session
// of its name has expired: told "expired", it would register the name again and fence its
// successor. Found by the simulator.
func TestDecide_AnOlderSessionIsFencedAfterTheNewestExpired(t *testing.T) {
	v := &commit.View{
		Producers:  map[domain.ProducerID]domain.Epoch{1: 3},
		Expired:    map[domain.ProducerID]bool{1: true},
		Partitions: map[commit.PartitionKey]*commit.Partition{{}: {}},
		Streams:    map[commit.StreamKey]*sequence.State{},
	}
	for epoch, want := range map[domain.Epoch]commit.Status{2: commit.Fenced, 3: commit.UnknownProducer} {
		d := commit.Decide(v, commit.Segment{Batches: []commit.Batch{{Producer: 1, Epoch: epoch, Records: 1, Length: 1}}})
		if got := d.Outcomes[0].Status; got != want {
			t.Errorf("epoch %d of an expired producer whose newest is 3: status %d, want %d", epoch, got, want)
		}
	}
}
