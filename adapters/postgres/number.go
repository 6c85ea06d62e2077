package postgres

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// number numbers what the segments name.
func number(segments []commit.Segment) *numbered {
	n := &numbered{segmentAt: make(map[domain.SegmentID]int, len(segments))}
	batches := 0
	for _, seg := range segments {
		if _, again := n.segmentAt[seg.ID]; !again {
			n.segmentAt[seg.ID] = len(n.segments)
			n.segments = append(n.segments, seg)
			batches += len(seg.Batches)
		}
	}
	partitions := n.numberPartitions(batches)
	streams := n.numberStreams(batches, partitions)
	n.init(batches)
	for i, seg := range n.segments {
		n.segmentIDs = append(n.segmentIDs, seg.ID)
		n.sizes = append(n.sizes, seg.Size)
		n.sums = append(n.sums, int64(seg.CRC32C))
		for _, b := range seg.Batches {
			n.add(int32(i+1), b, partitions[b.Key()], streams[b.Stream()])
		}
		n.ends = append(n.ends, int32(len(n.inPart)))
	}
	return n
}

// init makes room. No slice stays nil: that would be a NULL.
func (n *numbered) init(batches int) {
	some := len(n.segments)
	n.segmentIDs, n.sizes, n.sums = make([][16]byte, 0, some), make([]int64, 0, some), make([]int64, 0, some)
	n.ends = make([]int32, 0, some)
	for _, to := range []*[]int32{&n.inSegment, &n.inPart, &n.inStream, &n.epochs, &n.counts, &n.lengths} {
		*to = make([]int32, 0, batches)
	}
	for _, to := range []*[]int64{&n.firsts, &n.positions, &n.timestamps} {
		*to = make([]int64, 0, batches)
	}
}

func (n *numbered) add(segment int32, b commit.Batch, partition, stream int32) {
	n.inSegment = append(n.inSegment, segment)
	n.inPart = append(n.inPart, partition)
	n.inStream = append(n.inStream, stream)
	n.epochs = append(n.epochs, int32(b.Epoch))
	n.firsts = append(n.firsts, int64(b.FirstSequence))
	n.counts = append(n.counts, b.Records)
	n.positions = append(n.positions, b.Position)
	n.lengths = append(n.lengths, b.Length)
	n.timestamps = append(n.timestamps, b.MaxTimestamp)
	if stream > 0 {
		n.records[stream-1] += int64(b.Records)
	}
}

// numberPartitions numbers partitions and topics, and returns the numbers of
// the partitions.
func (n *numbered) numberPartitions(batches int) map[commit.PartitionKey]int32 {
	numbers := make(map[commit.PartitionKey]int32, batches)
	for _, seg := range n.segments {
		for _, b := range seg.Batches {
			if _, again := numbers[b.Key()]; !again {
				numbers[b.Key()] = 0
				n.partitions = append(n.partitions, b.Key())
			}
		}
	}
	slices.SortFunc(n.partitions, comparePartitions)
	n.topics, n.topicOf, n.numbers = [][16]byte{}, make([]int32, len(n.partitions)), make([]int32, len(n.partitions))
	for i, k := range n.partitions {
		numbers[k] = int32(i + 1)
		if last := len(n.topics) - 1; last < 0 || n.topics[last] != k.Topic {
			n.topics = append(n.topics, k.Topic)
		}
		n.topicOf[i], n.numbers[i] = int32(len(n.topics)), int32(k.Partition)
	}
	return numbers
}

// numberStreams numbers producers and streams, and returns the numbers of the
// streams; that of no stream is 0.
func (n *numbered) numberStreams(batches int, partitions map[commit.PartitionKey]int32) map[commit.StreamKey]int32 {
	numbers := make(map[commit.StreamKey]int32, batches)
	n.producers = []int64{}
	for _, seg := range n.segments {
		for _, b := range seg.Batches {
			k := b.Stream()
			if _, again := numbers[k]; again || k.Producer == commit.NoProducer {
				continue
			}
			n.streams = append(n.streams, k)
			n.producers = append(n.producers, int64(k.Producer))
			numbers[k] = int32(len(n.streams))
		}
	}
	slices.Sort(n.producers)
	n.producers = slices.Compact(n.producers)
	n.producerOf, n.partOf, n.records = make([]int32, len(n.streams)), make([]int32, len(n.streams)), make([]int64, len(n.streams))
	for i, k := range n.streams {
		at, _ := slices.BinarySearch(n.producers, int64(k.Producer))
		n.producerOf[i], n.partOf[i] = int32(at+1), partitions[k.PartitionKey]
	}
	return numbers
}

// comparePartitions is the order in which partitions are locked.
func comparePartitions(a, b commit.PartitionKey) int {
	return cmp.Or(bytes.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition))
}
