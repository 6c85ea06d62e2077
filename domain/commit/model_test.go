package commit_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
)

// model is the commit told naively: each partition is a list of the records in
// it, each stream the list of the batches it ever settled.
type model struct {
	epochs  map[domain.ProducerID]domain.Epoch
	logs    map[commit.PartitionKey][]record
	streams map[commit.StreamKey]*stream
}

// record says where a record's batch lies: in which segment, as its how manieth
// batch.
type record struct{ segment, batch, index int }

type stream struct {
	epoch   domain.Epoch
	next    domain.Sequence
	batches []stored
}

type stored struct {
	first domain.Sequence
	count int32
	base  domain.Offset
}

func (m *model) commit(b commit.Batch, segment, index int) commit.Outcome {
	log, exists := m.logs[b.Key()]
	if !exists {
		return refused(commit.NoPartition)
	}
	if b.Producer != commit.NoProducer {
		if o := m.sequenced(b, domain.Offset(len(log))); o.Status != commit.Accepted {
			return o
		}
	}
	for i := range b.Records {
		m.logs[b.Key()] = append(m.logs[b.Key()], record{segment, index, int(i)})
	}
	return accepted(domain.Offset(len(log)))
}

func (m *model) sequenced(b commit.Batch, next domain.Offset) commit.Outcome {
	epoch, known := m.epochs[b.Producer]
	switch {
	case !known || b.Epoch > epoch:
		return refused(commit.UnknownProducer)
	case b.Epoch < epoch:
		return refused(commit.Fenced)
	}
	s := m.streams[b.Stream()]
	if s == nil || s.epoch != b.Epoch {
		if b.FirstSequence != 0 {
			return refused(commit.OutOfOrder)
		}
		s = &stream{epoch: b.Epoch}
		m.streams[b.Stream()] = s
	}
	end := b.FirstSequence + domain.Sequence(b.Records)
	switch {
	case b.FirstSequence == s.next:
		s.next = end
		s.batches = append(s.batches, stored{b.FirstSequence, b.Records, next})
		return accepted(next)
	case end > s.next:
		return refused(commit.OutOfOrder)
	}
	for _, old := range s.batches[max(0, len(s.batches)-5):] {
		if old.first == b.FirstSequence && old.count == b.Records {
			return commit.Outcome{Status: commit.Duplicate, Base: old.base}
		}
	}
	return refused(commit.DuplicateForgotten)
}

type machine struct {
	view     *commit.View
	model    model
	segments []commit.Segment
	extents  map[commit.PartitionKey][]commit.Extent
}

func newMachine() *machine {
	m := &machine{
		view: &commit.View{
			Producers:  make(map[domain.ProducerID]domain.Epoch),
			Partitions: make(map[commit.PartitionKey]*commit.Partition),
			Streams:    make(map[commit.StreamKey]*sequence.State),
		},
		model: model{
			epochs:  make(map[domain.ProducerID]domain.Epoch),
			logs:    make(map[commit.PartitionKey][]record),
			streams: make(map[commit.StreamKey]*stream),
		},
		extents: make(map[commit.PartitionKey][]commit.Extent),
	}
	return m
}

func (m *machine) key(t *rapid.T) commit.PartitionKey {
	return commit.PartitionKey{
		Topic:     domain.TopicID{rapid.Uint8Range(1, 2).Draw(t, "topic")},
		Partition: domain.PartitionID(rapid.Int32Range(0, 2).Draw(t, "partition")),
	}
}

func (m *machine) CreatePartition(t *rapid.T) {
	key := m.key(t)
	if m.view.Partitions[key] == nil {
		m.view.Partitions[key] = new(commit.Partition)
		m.model.logs[key] = []record{}
	}
}

func (m *machine) Register(t *rapid.T) {
	id := domain.ProducerID(rapid.Int64Range(0, 2).Draw(t, "producer"))
	if epoch, known := m.model.epochs[id]; known {
		m.model.epochs[id] = epoch + 1
	} else {
		m.model.epochs[id] = 0
	}
	m.view.Producers[id] = m.model.epochs[id]
}

func (m *machine) batch(t *rapid.T) commit.Batch {
	b := plain(m.key(t), rapid.Int32Range(1, 4).Draw(t, "records"))
	b.Producer = domain.ProducerID(rapid.Int64Range(-1, 3).Draw(t, "producer"))
	b.Epoch = m.model.epochs[b.Producer] + rapid.SampledFrom([]domain.Epoch{0, 0, 0, 0, 0, 0, -1, 1}).Draw(t, "epoch")
	s := m.model.streams[b.Stream()]
	if s == nil || s.epoch != b.Epoch {
		b.FirstSequence = rapid.SampledFrom([]domain.Sequence{0, 0, 0, 1}).Draw(t, "first")
		return b
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	default:
		b.FirstSequence = s.next
	case 0:
		b.FirstSequence = max(0, s.next+domain.Sequence(rapid.Int32Range(-6, 3).Draw(t, "shift")))
	case 1, 2:
		old := s.batches[len(s.batches)-rapid.IntRange(1, min(7, len(s.batches))).Draw(t, "back")]
		b.FirstSequence, b.Records = old.first, old.count
	}
	return b
}

// Commit draws its batches one by one, each after the model has judged the one
// before, and then has the whole segment decided at once.
func (m *machine) Commit(t *rapid.T) {
	seg := commit.Segment{ID: domain.SegmentID{byte(len(m.segments)), byte(len(m.segments) >> 8)}}
	var want []commit.Outcome
	position := int64(10)
	for i := range rapid.IntRange(0, 6).Draw(t, "batches") {
		b := m.batch(t)
		position += int64(rapid.SampledFrom([]int{0, 0, 0, 5}).Draw(t, "hole"))
		b.Position, b.Length = position, rapid.Int32Range(1, 50).Draw(t, "length")
		b.MaxTimestamp = rapid.Int64Range(-5, 5).Draw(t, "timestamp")
		position += int64(b.Length)
		seg.Batches = append(seg.Batches, b)
		want = append(want, m.model.commit(b, len(m.segments), i))
	}
	m.segments = append(m.segments, seg)
	d := commit.Decide(m.view, seg)
	for i, o := range d.Outcomes {
		if o != want[i] {
			t.Fatalf("batch %d of %+v is answered %v, want %v", i, seg.Batches, o, want[i])
		}
	}
	for _, e := range d.Extents {
		key := commit.PartitionKey{Topic: e.Topic, Partition: e.Partition}
		m.extents[key] = append(m.extents[key], e)
	}
}

// Check walks each partition's extents as a reader does: the batches that lie
// in their bytes must be the model's records, in its order, and nothing between.
func (m *machine) Check(t *rapid.T) {
	for key, log := range m.model.logs {
		next := domain.Offset(0)
		var bytes int64
		for _, e := range m.extents[key] {
			if e.Base != next {
				t.Fatalf("extent %+v does not follow offset %d", e, next)
			}
			next = m.walk(t, e, log)
			bytes += e.Length
		}
		p := m.view.Partitions[key]
		if next != domain.Offset(len(log)) || p.NextOffset != next || p.Bytes != bytes {
			t.Fatalf("partition is %+v, its extents end at %d with %d bytes, the model has %d records", p, next, bytes, len(log))
		}
	}
}

// walk returns the offset after the extent e, having compared its records.
func (m *machine) walk(t *rapid.T, e commit.Extent, log []record) domain.Offset {
	number := int(e.Segment[0]) + int(e.Segment[1])<<8
	position, next, newest, batches := e.Position, e.Base, int64(-1<<63), int32(0)
	for i, b := range m.segments[number].Batches {
		if b.Position != position || position >= e.Position+e.Length {
			continue
		}
		for j := range b.Records {
			if want := (record{number, i, int(j)}); b.Key() != (commit.PartitionKey{Topic: e.Topic, Partition: e.Partition}) || log[next] != want {
				t.Fatalf("offset %d holds %v, want %v", next, want, log[next])
			}
			next++
		}
		position += int64(b.Length)
		newest = max(newest, b.MaxTimestamp)
		batches++
	}
	if position != e.Position+e.Length || next != e.Last+1 || newest != e.MaxTimestamp || batches != e.Batches {
		t.Fatalf("extent %+v covers %d batches up to byte %d and offset %d", e, batches, position, next)
	}
	return next
}

func TestDecide_AgreesWithTheNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		for range 3 {
			m.CreatePartition(t)
			m.Register(t)
		}
		t.Repeat(map[string]func(*rapid.T){
			"create": m.CreatePartition, "register": m.Register, "commit": m.Commit, "commit again": m.Commit, "": m.Check,
		})
	})
}
