package sequence_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/sequence"
)

// model is the rule told naively: sequences do not wrap, nothing is forgotten,
// and every question is answered by looking at all that ever happened.
type model struct {
	epoch   domain.Epoch
	begun   bool
	next    int64
	settled []settledBatch
}

type settledBatch struct {
	first, last int64
	base        domain.Offset
	stored      bool
}

func (m *model) stored() []settledBatch {
	var all []settledBatch
	for _, b := range m.settled {
		if b.stored {
			all = append(all, b)
		}
	}
	return all
}

func (m *model) judge(epoch domain.Epoch, first int64, n int32) (sequence.Verdict, domain.Offset) {
	last := first + int64(n) - 1
	switch {
	case m.begun && epoch < m.epoch:
		return sequence.Fenced, 0
	case !m.begun || epoch > m.epoch:
		if first == 0 {
			return sequence.New, 0
		}
		return sequence.OutOfOrder, 0
	case first == m.next:
		return sequence.New, 0
	case last >= m.next:
		return sequence.OutOfOrder, 0
	}
	stored := m.stored()
	for _, b := range stored[max(0, len(stored)-5):] {
		if b.first == first && b.last == last {
			return sequence.Duplicate, b.base
		}
	}
	return sequence.DuplicateForgotten, 0
}

func (m *model) settle(epoch domain.Epoch, b settledBatch) {
	if epoch != m.epoch || !m.begun {
		m.settled = nil
	}
	m.epoch, m.begun, m.next = epoch, true, b.last+1
	m.settled = append(m.settled, b)
}

func (m *model) abandon(epoch domain.Epoch, first int64, n int32) (sequence.Verdict, domain.Offset) {
	verdict, base := m.judge(epoch, first, n)
	last := first + int64(n) - 1
	switch verdict {
	case sequence.New:
		m.settle(epoch, settledBatch{first: first, last: last})
	case sequence.DuplicateForgotten:
		stored := m.stored()
		if len(stored) == 0 || stored[len(stored)-1].last < first {
			return sequence.New, 0
		}
	}
	return verdict, base
}

// wrapped is the sequence on the circle that an endless one stands for.
func wrapped(s int64) domain.Sequence { return domain.Sequence(s & 0x7fffffff) }

// machine drives a State and the model through the same calls.
type machine struct {
	state sequence.State
	model model
	log   domain.Offset
}

// draw picks a batch near what was sent before: mostly the next, else a repeat,
// a gap, an overlap or another cut. Batches may be large, so that runs wrap.
func (m *machine) draw(t *rapid.T) (epoch domain.Epoch, first int64, n int32) {
	epoch = m.model.epoch + rapid.SampledFrom([]domain.Epoch{0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 1}).Draw(t, "epoch")
	first = m.model.next
	n = rapid.OneOf(rapid.Int32Range(1, 10), rapid.Int32Range(1, 1<<27)).Draw(t, "records")
	if epoch > m.model.epoch {
		first = 0
	}
	settled := m.model.settled
	switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); {
	case kind < 5:
	case kind < 8 && len(settled) > 0:
		back := rapid.IntRange(1, min(8, len(settled))).Draw(t, "back")
		b := settled[len(settled)-back]
		first, n = b.first, int32(b.last-b.first+1)
	case kind == 8:
		first += rapid.Int64Range(-20, 20).Draw(t, "shift")
	default:
		first += rapid.Int64Range(1, 1<<28).Draw(t, "gap")
	}
	return epoch, max(first, 0), n
}

func (m *machine) Append(t *rapid.T) {
	epoch, first, n := m.draw(t)
	b := sequence.Batch{Epoch: epoch, First: wrapped(first), Records: n}
	want, wantBase := m.model.judge(epoch, first, n)
	got, base := m.state.Judge(b)
	if got != want || base != wantBase {
		t.Fatalf("%+v (from %d) after %+v is judged %d at %d, want %d at %d", b, first, m.state, got, base, want, wantBase)
	}
	if got == sequence.New {
		m.state.Accept(b, m.log)
		m.model.settle(epoch, settledBatch{first, first + int64(n) - 1, m.log, true})
		m.log += domain.Offset(n)
	}
}

func (m *machine) Abandon(t *rapid.T) {
	epoch, first, n := m.draw(t)
	b := sequence.Batch{Epoch: epoch, First: wrapped(first), Records: n}
	before := m.state
	want, wantBase := m.model.abandon(epoch, first, n)
	got, base := m.state.Abandon(b)
	if got != want || base != wantBase {
		t.Fatalf("abandoning %+v (from %d) after %+v gives %d at %d, want %d at %d", b, first, before, got, base, want, wantBase)
	}
}

func (m *machine) Check(t *rapid.T) {
	if len(m.state.Recent) > sequence.Window {
		t.Fatalf("%d batches are remembered", len(m.state.Recent))
	}
	if m.state.Seen && m.state.Last != wrapped(m.model.next-1) {
		t.Fatalf("last is %d, want %d", m.state.Last, wrapped(m.model.next-1))
	}
}

func TestState_AgreesWithTheNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := new(machine)
		t.Repeat(map[string]func(*rapid.T){"append": m.Append, "abandon": m.Abandon, "": m.Check})
	})
}

// Begun just before the wrap, so that every run crosses it.
func TestState_AgreesWithTheNaiveModelAtTheWrap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const begin = 1<<31 - 20
		m := new(machine)
		m.model = model{begun: true, next: begin, settled: []settledBatch{{begin - 1, begin - 1, 0, true}}}
		m.state = sequence.State{Seen: true, Last: begin - 1, Recent: []sequence.Entry{{First: begin - 1, Last: begin - 1}}}
		t.Repeat(map[string]func(*rapid.T){"append": m.Append, "abandon": m.Abandon, "": m.Check})
	})
}
