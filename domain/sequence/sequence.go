// Package sequence decides, for one producer and one partition, whether a batch
// is new, a repeat, or out of order. It is the rule of Kafka's idempotent producer (KIP-98,
// window of five batches from KAFKA-5494) as a pure state machine: the
// metadata stores load a State, ask it, and store it again in the transaction
// that assigns the offset.
package sequence

import (
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// Window is how many of the newest batches are remembered with their offsets.
const Window = 5

// Planted bugs, see package mutant.
const (
	mutantWindowSmall mutant.ID = "window-of-4"
	mutantWindowLarge mutant.ID = "window-of-6"
	mutantWrap        mutant.ID = "sequence-wrap-refused"
	mutantGap         mutant.ID = "sequence-gap-accepted"
)

// Entry remembers one accepted batch.
type Entry struct {
	First domain.Sequence
	Last  domain.Sequence
	Base  domain.Offset
}

// State is what is remembered of one producer on one partition. The zero State
// has seen nothing.
type State struct {
	// Seen tells the zero State from one that has accepted sequence 0.
	Seen bool
	// Epoch is the producer's session that Last and Recent belong to.
	Epoch domain.Epoch
	// Last is the newest sequence accepted or abandoned.
	Last domain.Sequence
	// Recent holds at most Window batches, oldest first.
	Recent []Entry
}

// Batch is what the decision needs to know of a batch. Records is at least 1.
type Batch struct {
	Epoch   domain.Epoch
	First   domain.Sequence
	Records int32
}

// Last returns the sequence of the batch's last record.
func (b Batch) Last() domain.Sequence { return b.First.Add(b.Records - 1) }

// Verdict is the answer for one batch.
type Verdict uint8

const (
	// New: the batch is the next in order; store it.
	New Verdict = iota
	// Duplicate: the batch is stored; its offset is known.
	Duplicate
	// DuplicateForgotten: the whole batch lies before the newest sequence but
	// has left the window. It was stored or abandoned; its offset is not known.
	DuplicateForgotten
	// OutOfOrder: a batch before it is missing, or it overlaps one. Not stored.
	OutOfOrder
	// Fenced: a newer session has written. Not stored.
	Fenced
)

// Judge decides on b without changing s. The offset is that of the first record
// of a Duplicate, and 0 otherwise.
func (s *State) Judge(b Batch) (Verdict, domain.Offset) {
	if s.Seen && b.Epoch < s.Epoch {
		return Fenced, 0
	}
	if !s.Seen || b.Epoch > s.Epoch {
		if b.First != 0 && !mutant.On(mutantGap) {
			return OutOfOrder, 0
		}
		return New, 0
	}
	if e, ok := s.find(b); ok {
		return Duplicate, e.Base
	}
	next := s.Last.Add(1)
	if mutant.On(mutantWrap) && next < s.Last {
		return OutOfOrder, 0
	}
	if b.First == next || mutant.On(mutantGap) && ahead(b.First, next) {
		return New, 0
	}
	if !ahead(b.First, next) && !ahead(b.Last(), next) && b.Last() != next {
		return DuplicateForgotten, 0
	}
	return OutOfOrder, 0
}

// Accept records that b, judged New, got base as the offset of its first record.
func (s *State) Accept(b Batch, base domain.Offset) {
	if !s.Seen || s.Epoch != b.Epoch {
		s.Recent = nil
	}
	s.Seen, s.Epoch, s.Last = true, b.Epoch, b.Last()
	s.Recent = append(slices.Clip(s.Recent), Entry{First: b.First, Last: b.Last(), Base: base})
	if n := len(s.Recent) - window(); n > 0 {
		s.Recent = s.Recent[n:]
	}
}

// Abandon gives up the batch b: unless it is stored already, it never will be,
// and the next batch may follow it. It may be repeated, before any later batch
// is stored, with the same answer.
//
//   - Duplicate: b is stored at the offset; nothing changed.
//   - New: b is not stored and never will be; its sequences are spent.
//   - DuplicateForgotten: b lies too far back to tell; nothing changed.
//   - OutOfOrder, Fenced: b is not stored; nothing changed.
func (s *State) Abandon(b Batch) (Verdict, domain.Offset) {
	verdict, base := s.Judge(b)
	switch {
	case verdict == New:
		if !s.Seen || s.Epoch != b.Epoch {
			s.Recent = nil
		}
		s.Seen, s.Epoch, s.Last = true, b.Epoch, b.Last()
	case verdict == DuplicateForgotten && s.afterStored(b):
		return New, 0
	}
	return verdict, base
}

// afterStored reports whether b lies wholly after the newest stored batch: what
// is spent there was abandoned.
func (s *State) afterStored(b Batch) bool {
	n := len(s.Recent)
	return n == 0 || ahead(b.First, s.Recent[n-1].Last)
}

func (s *State) find(b Batch) (Entry, bool) {
	for _, e := range s.Recent {
		if e.First == b.First && e.Last == b.Last() {
			return e, true
		}
	}
	return Entry{}, false
}

// ahead reports whether a comes after b on the circle of 2^31 sequences.
func ahead(a, b domain.Sequence) bool {
	d := (uint32(a) - uint32(b)) & 0x7fffffff
	return d != 0 && d < 1<<30
}

func window() int {
	switch {
	case mutant.On(mutantWindowSmall):
		return Window - 1
	case mutant.On(mutantWindowLarge):
		return Window + 1
	}
	return Window
}
