package portstest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// metadataUnderTest is a store and the test it serves. Its own methods end the
// test when a call fails.
type metadataUnderTest struct {
	*testing.T
	ports.MetadataStore
	suite *metadataSuite
}

func (m *metadataUnderTest) ok(err error) {
	m.Helper()
	if err != nil {
		m.Fatalf("unexpected error: %v", err)
	}
}

// is demands an error that matches target.
func (m *metadataUnderTest) is(err, target error) {
	m.Helper()
	if !errors.Is(err, target) {
		m.Fatalf("error is %v, want one that matches %v", err, target)
	}
}

// definite demands an error of a call that had and will have no effect.
func (m *metadataUnderTest) definite(err error) {
	m.Helper()
	if err == nil || ports.KindOf(err) != ports.Definite {
		m.Fatalf("error is %v, want a definite one", err)
	}
}

func (m *metadataUnderTest) topic(name string, partitions int32) domain.Topic {
	m.Helper()
	t, err := m.CreateTopic(m.Context(), domain.TopicSpec{Name: name, Partitions: partitions})
	m.ok(err)
	return t
}

// partition creates a topic of one partition.
func (m *metadataUnderTest) partition(topic string) commit.PartitionKey {
	m.Helper()
	return at(m.topic(topic, 1), 0)
}

func (m *metadataUnderTest) delete(t domain.TopicID) {
	m.Helper()
	m.ok(m.DeleteTopic(m.Context(), t))
}

func (m *metadataUnderTest) session(name string) ports.ProducerSession {
	m.Helper()
	s, err := m.RegisterProducer(m.Context(), name)
	m.ok(err)
	return s
}

func (m *metadataUnderTest) reserve() domain.SegmentID {
	m.Helper()
	refs, err := m.Reserve(m.Context(), 1)
	m.ok(err)
	return refs[0].ID
}

// segment reserves a segment for batches.
func (m *metadataUnderTest) segment(batches ...commit.Batch) commit.Segment {
	m.Helper()
	return segmentOf(m.reserve(), batches...)
}

// commit demands that seg is judged.
func (m *metadataUnderTest) commit(seg commit.Segment) []commit.Outcome {
	m.Helper()
	results, err := m.Commit(m.Context(), []commit.Segment{seg})
	m.ok(err)
	if len(results) != 1 {
		m.Fatalf("%d results for one segment", len(results))
	}
	m.ok(results[0].Err)
	if len(results[0].Outcomes) != len(seg.Batches) {
		m.Fatalf("%d outcomes for %d batches", len(results[0].Outcomes), len(seg.Batches))
	}
	return results[0].Outcomes
}

// append commits the batches in one new segment.
func (m *metadataUnderTest) append(batches ...commit.Batch) []commit.Outcome {
	m.Helper()
	return m.commit(m.segment(batches...))
}

func (m *metadataUnderTest) abandon(b commit.Batch) commit.Outcome {
	m.Helper()
	o, err := m.AbandonBatch(m.Context(), ports.AbandonedBatch{
		StreamKey: b.Stream(), Epoch: b.Epoch, FirstSequence: b.FirstSequence, Records: b.Records,
	})
	m.ok(err)
	return o
}

// outcomes demands these answers.
func (m *metadataUnderTest) outcomes(got []commit.Outcome, want ...commit.Outcome) {
	m.Helper()
	if !slices.Equal(got, want) {
		m.Fatalf("outcomes are %v, want %v", got, want)
	}
}

// bounds demands log start and high watermark.
func (m *metadataUnderTest) bounds(key commit.PartitionKey, start, high domain.Offset) {
	m.Helper()
	p := m.plan(key, 0, 0)
	if p.LogStart != start || p.HighWatermark != high {
		m.Fatalf("partition holds %d up to %d, want %d up to %d", p.LogStart, p.HighWatermark, start, high)
	}
}

func (m *metadataUnderTest) plan(key commit.PartitionKey, from domain.Offset, maxBytes int64) ports.Plan {
	m.Helper()
	plans, err := m.Plan(m.Context(), []ports.PlanRequest{{PartitionKey: key, From: from, MaxBytes: maxBytes}})
	m.ok(err)
	if len(plans) != 1 {
		m.Fatalf("%d plans for one request", len(plans))
	}
	m.ok(plans[0].Err)
	return plans[0]
}

// extents demands the runs of offsets of what a complete read finds, and that
// they follow each other.
func (m *metadataUnderTest) extents(key commit.PartitionKey, want ...run) []ports.ExtentRef {
	m.Helper()
	p := m.plan(key, 0, 0)
	p = m.plan(key, p.LogStart, 1<<40)
	if got := runs(p.Extents); !slices.Equal(got, want) {
		m.Fatalf("extents are %v, want %v", got, want)
	}
	return p.Extents
}

// run is an extent's first and last offset.
type run struct{ base, last domain.Offset }

func runs(extents []ports.ExtentRef) []run {
	var all []run
	for _, e := range extents {
		all = append(all, run{e.Base, e.Last})
	}
	return all
}

// cancelled is a context that is over.
func (m *metadataUnderTest) cancelled() context.Context {
	ctx, cancel := context.WithCancel(m.Context())
	cancel()
	return ctx
}

func at(t domain.Topic, partition domain.PartitionID) commit.PartitionKey {
	return commit.PartitionKey{Topic: t.ID, Partition: partition}
}

// plain is a batch without a producer.
func plain(key commit.PartitionKey, records int32) commit.Batch {
	return commit.Batch{
		Topic: key.Topic, Partition: key.Partition, Producer: commit.NoProducer,
		Epoch: -1, FirstSequence: -1, Records: records, MaxTimestamp: 1_000,
	}
}

// sequenced is a batch of a producer session.
func sequenced(s ports.ProducerSession, key commit.PartitionKey, first domain.Sequence, records int32) commit.Batch {
	b := plain(key, records)
	b.Producer, b.Epoch, b.FirstSequence = s.ID, s.Epoch, first
	return b
}

const (
	segmentHeader = 64
	batchLength   = 100
)

// segmentOf puts the batches one after the other; those without a length get
// batchLength.
func segmentOf(id domain.SegmentID, batches ...commit.Batch) commit.Segment {
	seg := commit.Segment{ID: id, Size: segmentHeader, CRC32C: 0xfeedface}
	for _, b := range batches {
		if b.Length == 0 {
			b.Length = batchLength
		}
		b.Position = seg.Size
		seg.Size += int64(b.Length)
		seg.Batches = append(seg.Batches, b)
	}
	return seg
}

func accepted(base domain.Offset) commit.Outcome {
	return commit.Outcome{Status: commit.Accepted, Base: base}
}
func duplicate(base domain.Offset) commit.Outcome {
	return commit.Outcome{Status: commit.Duplicate, Base: base}
}
func refused(s commit.Status) commit.Outcome { return commit.Outcome{Status: s, Base: -1} }
