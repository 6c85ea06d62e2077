package memory

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/wake"
)

// MetadataOptions is what a Metadata can be told.
type MetadataOptions struct {
	// Seed makes the ids repeatable, given the same calls at the same times. 0,
	// the default, makes them random.
	Seed uint64
	// Now is the store's clock, time.Now by default.
	Now func() time.Time
}

// Metadata is a metadata store in memory. What it holds ends with the process;
// within it, it decides as the durable stores do.
//
// By itself it forgets nothing but expired producer sessions; what else may go
// is for upkeep to say.
type Metadata struct {
	cluster domain.ClusterID
	now     func() time.Time
	wakes   wake.List

	mu     sync.RWMutex // guards all below
	closed bool
	random *rand.Rand

	topics map[domain.TopicID]*domain.Topic
	names  map[string]domain.TopicID

	// rows are what a commit decides on, in the form in which it asks for them.
	rows     commit.View
	extents  map[commit.PartitionKey][]commit.Extent // by offset, without a gap
	segments map[domain.SegmentID]*segmentRow

	sessions     map[domain.ProducerID]*sessionRow
	sessionNames map[string]domain.ProducerID
	lastProducer domain.ProducerID
	nextSweep    time.Time
}

var _ ports.MetadataStore = (*Metadata)(nil)

// NewMetadata makes an empty store.
func NewMetadata(o MetadataOptions) *Metadata {
	m := &Metadata{
		now:    o.Now,
		random: newRandom(o.Seed),
		topics: make(map[domain.TopicID]*domain.Topic),
		names:  make(map[string]domain.TopicID),
		rows: commit.View{
			Producers:  make(map[domain.ProducerID]domain.Epoch),
			Expired:    make(map[domain.ProducerID]bool),
			Partitions: make(map[commit.PartitionKey]*commit.Partition),
			Streams:    make(map[commit.StreamKey]*sequence.State),
		},
		extents:      make(map[commit.PartitionKey][]commit.Extent),
		segments:     make(map[domain.SegmentID]*segmentRow),
		sessions:     make(map[domain.ProducerID]*sessionRow),
		sessionNames: make(map[string]domain.ProducerID),
	}
	if m.now == nil {
		m.now = time.Now
	}
	m.cluster = domain.ClusterID(m.newID())
	return m
}

// ClusterID implements ports.MetadataStore.
func (m *Metadata) ClusterID() domain.ClusterID { return m.cluster }

// Close implements ports.MetadataStore.
func (m *Metadata) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// Subscribe implements ports.Log. Wake is called by the goroutine that
// committed, before its Commit returns.
func (m *Metadata) Subscribe(wake func()) (cancel func()) { return m.wakes.Add(wake) }

// begin refuses a call that must not start. It needs the lock.
func (m *Metadata) begin(ctx context.Context, op string) error {
	if m.closed {
		return ports.MetadataError(op, ports.Definite, domain.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return ports.MetadataError(op, ports.Transient, err)
	}
	return nil
}

// newID makes the next identifier. It needs the lock.
func (m *Metadata) newID() domain.UUID {
	var random [10]byte
	binary.LittleEndian.PutUint64(random[:8], m.random.Uint64())
	binary.LittleEndian.PutUint16(random[8:], uint16(m.random.Uint32()))
	return domain.NewUUIDv7(m.now(), random)
}

func newRandom(seed uint64) *rand.Rand {
	var key [32]byte
	if seed == 0 {
		_, _ = crand.Read(key[:]) // never fails
	} else {
		binary.LittleEndian.PutUint64(key[:], seed)
	}
	return rand.New(rand.NewChaCha8(key))
}

// partition finds a partition's row. It needs the lock.
func (m *Metadata) partition(key commit.PartitionKey) (*commit.Partition, error) {
	if p := m.rows.Partitions[key]; p != nil {
		return p, nil
	}
	t, err := m.topic(key.Topic)
	if err != nil {
		return nil, err
	}
	return nil, &domain.InvalidPartitionError{Topic: t.Name, Partition: key.Partition, Count: t.Partitions}
}

// topic finds a topic's row. It needs the lock.
func (m *Metadata) topic(id domain.TopicID) (*domain.Topic, error) {
	if t := m.topics[id]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("topic %s: %w", id, domain.ErrTopicNotFound)
}
