package memory

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
)

// sweepInterval is how often a registration looks for sessions that nobody will
// use any more.
const sweepInterval = time.Hour

// sessionRow is one producer id. Metadata.rows.Producers has its epoch, and
// rows.Expired says if a named one has expired; an unnamed one then is in neither.
type sessionRow struct {
	name     string // empty: one session only
	epoch    domain.Epoch
	activeAt time.Time
}

func (s *sessionRow) expired(now time.Time) bool { return now.Sub(s.activeAt) >= ports.ProducerExpiry }

// RegisterProducer implements ports.Producers.
func (m *Metadata) RegisterProducer(ctx context.Context, name string) (ports.ProducerSession, error) {
	if name != "" {
		if err := domain.ValidateName("producer", name); err != nil {
			return ports.ProducerSession{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, fmt.Sprintf("register producer %q", name)); err != nil {
		return ports.ProducerSession{}, err
	}
	now := m.now()
	m.sweepSessions(now)
	id := m.sessionFor(name)
	s := m.sessions[id]
	s.activeAt = now
	m.rows.Producers[id] = s.epoch
	delete(m.rows.Expired, id)
	return ports.ProducerSession{ID: id, Epoch: s.epoch}, nil
}

// sessionFor opens the next session of name and returns its id. It needs the
// lock.
func (m *Metadata) sessionFor(name string) domain.ProducerID {
	if id, found := m.sessionNames[name]; found {
		if s := m.sessions[id]; s.epoch < math.MaxInt16 {
			s.epoch++
			return id
		}
		delete(m.sessions, id)
		m.forget(id)
	}
	m.lastProducer++
	id := m.lastProducer
	m.sessions[id] = &sessionRow{name: name}
	if name != "" {
		m.sessionNames[name] = id
	}
	return id
}

// expireSessions forgets the sessions in seg that have been idle for too long.
// It needs the lock.
func (m *Metadata) expireSessions(seg commit.Segment, now time.Time) {
	for _, b := range seg.Batches {
		m.expireSession(b.Producer, now)
	}
}

func (m *Metadata) expireSession(id domain.ProducerID, now time.Time) {
	if s := m.sessions[id]; s != nil && s.expired(now) {
		m.forget(id)
	}
}

// forget makes every commit refuse the producer id. It needs the lock. The
// sequences stay until the next sweep; nothing asks for them. A name's newest epoch is
// still known, so that older sessions are fenced.
func (m *Metadata) forget(id domain.ProducerID) {
	if s := m.sessions[id]; s != nil && s.name != "" {
		m.rows.Expired[id] = true
		return
	}
	delete(m.rows.Producers, id)
	delete(m.rows.Expired, id)
}

// sweepSessions drops what expired sessions leave, so that memory follows the
// sessions in use. A name keeps its id and epoch for ever. It needs the lock.
func (m *Metadata) sweepSessions(now time.Time) {
	if now.Before(m.nextSweep) {
		return
	}
	m.nextSweep = now.Add(sweepInterval)
	for id, s := range m.sessions {
		if s.expired(now) {
			m.forget(id)
			if s.name == "" {
				delete(m.sessions, id)
			}
		}
	}
	for key := range m.rows.Streams {
		if _, known := m.rows.Producers[key.Producer]; !known || m.rows.Expired[key.Producer] {
			delete(m.rows.Streams, key)
		}
	}
}

// AbandonBatch implements ports.Producers.
func (m *Metadata) AbandonBatch(ctx context.Context, b ports.AbandonedBatch) (commit.Outcome, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	op := fmt.Sprintf("abandon batch of producer %d on topic %s partition %d", b.Producer, b.Topic, b.Partition)
	if err := m.begin(ctx, op); err != nil {
		return commit.Outcome{}, err
	}
	m.expireSession(b.Producer, m.now())
	batch := sequence.Batch{Epoch: b.Epoch, First: b.FirstSequence, Records: b.Records}
	return commit.Abandon(&m.rows, b.StreamKey, batch), nil
}
