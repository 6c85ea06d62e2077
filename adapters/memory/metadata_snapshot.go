package memory

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
)

// Snapshot is all that a metadata store holds at one instant, for tests: every
// list is sorted by its key. Nothing in it is shared with the store.
type Snapshot struct {
	Topics     []domain.Topic // by name
	Partitions []PartitionRow
	Extents    []commit.Extent // by partition and offset; of deleted topics too
	Segments   []SegmentRow
	Producers  []ProducerRow
	Streams    []StreamRow
}

// PartitionRow is one partition.
type PartitionRow struct {
	commit.PartitionKey
	LogStart   domain.Offset
	NextOffset domain.Offset
	Bytes      int64
}

// SegmentRow is one segment. Live counts the extents that refer to it.
type SegmentRow struct {
	ID        domain.SegmentID
	Key       string
	State     ports.SegmentState
	CreatedAt time.Time
	Size      int64
	CRC32C    uint32
	Live      int
	// Replaced says that it was committed by Replace.
	Replaced bool
	// Outcomes is what the commit answered, nil before it.
	Outcomes []commit.Outcome
}

// ProducerRow is one producer id, expired or not. ActiveAt is when it last had
// a batch accepted or was registered.
type ProducerRow struct {
	ID       domain.ProducerID
	Name     string
	Epoch    domain.Epoch
	ActiveAt time.Time
}

// StreamRow is what is remembered of one producer on one partition.
type StreamRow struct {
	commit.StreamKey
	State sequence.State
}

// Snapshot returns what m holds. It works on a closed store too.
func (m *Metadata) Snapshot() Snapshot {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := Snapshot{Topics: m.sortedTopics()}
	for key, p := range m.rows.Partitions {
		s.Partitions = append(s.Partitions, PartitionRow{key, p.LogStart, p.NextOffset, p.Bytes})
	}
	slices.SortFunc(s.Partitions, func(a, b PartitionRow) int { return ComparePartitions(a.PartitionKey, b.PartitionKey) })
	for _, key := range m.extentKeys() {
		s.Extents = append(s.Extents, m.extents[key]...)
	}
	s.Segments, s.Producers, s.Streams = m.segmentRows(), m.producerRows(), m.streamRows()
	return s
}

func (m *Metadata) segmentRows() []SegmentRow {
	rows := make([]SegmentRow, 0, len(m.segments))
	for id, r := range m.segments {
		rows = append(rows, SegmentRow{
			ID: id, Key: segment.Key(id), State: r.state, CreatedAt: r.createdAt,
			Size: r.size, CRC32C: r.crc32c, Live: r.live, Replaced: r.replaced, Outcomes: slices.Clone(r.outcomes),
		})
	}
	slices.SortFunc(rows, func(a, b SegmentRow) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return rows
}

func (m *Metadata) producerRows() []ProducerRow {
	rows := make([]ProducerRow, 0, len(m.sessions))
	for id, r := range m.sessions {
		rows = append(rows, ProducerRow{ID: id, Name: r.name, Epoch: r.epoch, ActiveAt: r.activeAt})
	}
	slices.SortFunc(rows, func(a, b ProducerRow) int { return cmp.Compare(a.ID, b.ID) })
	return rows
}

// streamRows leaves out what only a refused batch asked for.
func (m *Metadata) streamRows() []StreamRow {
	rows := make([]StreamRow, 0, len(m.rows.Streams))
	for key, state := range m.rows.Streams {
		if state.Seen {
			row := StreamRow{StreamKey: key, State: *state}
			row.State.Recent = slices.Clone(state.Recent)
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b StreamRow) int {
		return cmp.Or(cmp.Compare(a.Producer, b.Producer), ComparePartitions(a.PartitionKey, b.PartitionKey))
	})
	return rows
}

// ComparePartitions orders keys by topic id, then partition.
func ComparePartitions(a, b commit.PartitionKey) int {
	return cmp.Or(bytes.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition))
}

// Check reports the first broken invariant of a metadata store: extents dense
// from at most the log start to the high watermark, bytes and live counts equal to what
// the extents say, a segment's state in agreement with its live count.
func (s Snapshot) Check() error {
	at := make(map[commit.PartitionKey][]commit.Extent)
	live := make(map[domain.SegmentID]int)
	for _, e := range s.Extents {
		key := commit.PartitionKey{Topic: e.Topic, Partition: e.Partition}
		at[key] = append(at[key], e)
		live[e.Segment]++
	}
	for _, p := range s.Partitions {
		if err := p.check(at[p.PartitionKey]); err != nil {
			return fmt.Errorf("topic %s partition %d: %w", p.Topic, p.Partition, err)
		}
		delete(at, p.PartitionKey)
	}
	for key := range at {
		if slices.ContainsFunc(s.Topics, func(t domain.Topic) bool { return t.ID == key.Topic }) {
			return fmt.Errorf("topic %s partition %d has extents but does not exist", key.Topic, key.Partition)
		}
	}
	for _, row := range s.Segments {
		if err := row.check(live[row.ID]); err != nil {
			return fmt.Errorf("segment %s: %w", row.ID, err)
		}
		delete(live, row.ID)
	}
	for id := range live {
		return fmt.Errorf("segment %s has extents but does not exist", id)
	}
	return nil
}

func (p PartitionRow) check(extents []commit.Extent) error {
	next, bytes := p.NextOffset, int64(0)
	for i, e := range extents {
		if i > 0 && e.Base != next {
			return fmt.Errorf("extent at %d does not follow the one that ends before %d", e.Base, next)
		}
		if i == 0 && (e.Base > p.LogStart || e.Last < p.LogStart) {
			return fmt.Errorf("first extent %d to %d does not hold the log start %d", e.Base, e.Last, p.LogStart)
		}
		next = e.Last + 1
		bytes += e.Length
	}
	switch {
	case next != p.NextOffset:
		return fmt.Errorf("extents end at %d, the high watermark is %d", next, p.NextOffset)
	case len(extents) == 0 && p.LogStart != p.NextOffset:
		return fmt.Errorf("no extents from the log start %d to the high watermark %d", p.LogStart, p.NextOffset)
	case bytes != p.Bytes:
		return fmt.Errorf("%d bytes are counted, the extents have %d", p.Bytes, bytes)
	}
	return nil
}

func (r SegmentRow) check(live int) error {
	if r.Live != live {
		return fmt.Errorf("%d live extents are counted, %d refer to it", r.Live, live)
	}
	settled := r.Replaced || r.Outcomes != nil
	ok := false
	switch r.State {
	case ports.SegmentPending:
		ok = live == 0 && !settled
	case ports.SegmentCommitted:
		ok = live > 0 && settled
	case ports.SegmentDeleting, ports.SegmentDeleted:
		ok = live == 0
	}
	if !ok {
		return fmt.Errorf("is %s with %d live extents, judged by a commit: %t", r.State, live, settled)
	}
	return nil
}
