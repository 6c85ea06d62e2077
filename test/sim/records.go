package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// newRecord makes the record id, with all that a record may have.
func newRecord(r *rand.Rand, id, topic string) domain.Record {
	record := domain.Record{Topic: topic, Value: []byte(id)}
	if n := r.IntN(3); n > 0 {
		record.Value = append(record.Value, '|')
		record.Value = append(record.Value, strings.Repeat("x", 1<<(2*r.IntN(4*n)))...)
	}
	switch r.IntN(4) {
	case 0:
		record.Key = []byte{}
	case 1, 2:
		record.Key = fmt.Appendf(nil, "k%d", r.IntN(5))
	}
	for i := range r.IntN(3) {
		h := domain.Header{Key: fmt.Sprintf("h%d", i)}
		if r.IntN(2) == 0 {
			h.Value = []byte{byte(i)}
		}
		record.Headers = append(record.Headers, h)
	}
	if r.IntN(4) == 0 {
		record.Timestamp = time.UnixMilli(1_000_000_000_000 + r.Int64N(1_000_000))
	}
	return record
}

// idOf returns the id that a value carries.
func idOf(value []byte) string {
	id, _, _ := bytes.Cut(value, []byte{'|'})
	return string(id)
}

// alike reports how a message differs from the record it should be, "" if not.
func (s sent) alike(m domain.Message) string {
	r := s.record
	same := func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
	switch {
	case !same(m.Key, r.Key):
		return fmt.Sprintf("key %q, sent %q", m.Key, r.Key)
	case !same(m.Value, r.Value):
		return fmt.Sprintf("value of %d bytes, sent %d", len(m.Value), len(r.Value))
	case !slices.EqualFunc(m.Headers, r.Headers, func(a, b domain.Header) bool { return a.Key == b.Key && same(a.Value, b.Value) }):
		return fmt.Sprintf("headers %v, sent %v", m.Headers, r.Headers)
	case !r.Timestamp.IsZero() && !m.Timestamp.Equal(r.Timestamp):
		return fmt.Sprintf("timestamp %v, sent %v", m.Timestamp, r.Timestamp)
	case !s.ackAt.IsZero() && !m.Timestamp.Equal(s.ackAt):
		return fmt.Sprintf("timestamp %v, acknowledged %v", m.Timestamp, s.ackAt)
	}
	return ""
}

// sending notes that p's session begins to send r.
func (w *world) sending(p *process, session, id string, r domain.Record) {
	partition := int32(history.AnyPartition)
	if to, ok := r.Partition.Explicit(); ok {
		partition = int32(to)
	}
	w.mu.Lock()
	w.sent[id] = sent{record: r, at: time.Now()}
	w.mu.Unlock()
	w.observe(p, history.Event{Kind: history.Send, Session: session, ID: id, Topic: r.Topic, Partition: partition})
}

// settled notes how the sending of id ended for its application.
func (w *world) settled(p *process, id string, result domain.SendResult, err error) {
	if p.dead.Load() {
		return
	}
	e := history.Event{Kind: history.Unknown, ID: id}
	switch stored := domain.FateOf(err).Stored; {
	case err == nil:
		e.Kind, e.Partition, e.Offset = history.Ack, int32(result.Partition), int64(result.Offset)
		w.acknowledged(id, result)
	case stored == domain.StoredNo:
		e.Kind = history.Fail
	case stored == domain.StoredYes:
		e.Kind = history.Stored
	}
	w.observe(p, e)
	if err != nil {
		w.trace.add(entry{actor: p.name, did: id + ": " + err.Error()})
	}
}

func (w *world) acknowledged(id string, result domain.SendResult) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.sent[id]; s.record.Topic != "" && s.record.Topic == result.Topic {
		s.ackAt = result.Timestamp
		w.sent[id] = s
	}
}

// read notes that actor got m.
func (w *world) read(p *process, actor string, incarnation int, m domain.Message) {
	id := idOf(m.Value)
	w.mu.Lock()
	s, known := w.sent[id]
	w.mu.Unlock()
	if known {
		if how := s.alike(m); how != "" {
			w.violate("%s read %s altered: %s", actor, id, how)
		}
	}
	w.observe(p, history.Event{
		Kind: history.Read, Actor: actor, ID: id, Topic: m.Topic, Incarnation: incarnation,
		Partition: int32(m.Partition), Offset: int64(m.Offset),
	})
}
