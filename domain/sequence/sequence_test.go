package sequence_test

import (
	"math"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/sequence"
)

// batch is n records from first on, in epoch 0.
func batch(first domain.Sequence, n int32) sequence.Batch {
	return sequence.Batch{First: first, Records: n}
}

// accept has s accept batches that must be new, and gives them offsets from base on.
func accept(t *testing.T, s *sequence.State, base domain.Offset, batches ...sequence.Batch) {
	t.Helper()
	for _, b := range batches {
		judged(t, s, b, sequence.New, 0)
		s.Accept(b, base)
		base += domain.Offset(b.Records)
	}
}

func judged(t *testing.T, s *sequence.State, b sequence.Batch, want sequence.Verdict, base domain.Offset) {
	t.Helper()
	if got, o := s.Judge(b); got != want || o != base {
		t.Errorf("batch %+v after %+v is judged %d at %d, want %d at %d", b, *s, got, o, want, base)
	}
}

func abandoned(t *testing.T, s *sequence.State, b sequence.Batch, want sequence.Verdict, base domain.Offset) {
	t.Helper()
	if got, o := s.Abandon(b); got != want || o != base {
		t.Errorf("abandoning %+v gives %d at %d, want %d at %d", b, got, o, want, base)
	}
}

func TestSequence_AddWrapsFromTheLastToZero(t *testing.T) {
	for _, c := range []struct {
		s    domain.Sequence
		n    int32
		want domain.Sequence
	}{
		{0, 0, 0}, {0, 1, 1}, {math.MaxInt32, 1, 0}, {math.MaxInt32, 0, math.MaxInt32},
		{math.MaxInt32 - 1, 3, 1}, {math.MaxInt32, math.MaxInt32, math.MaxInt32 - 1}, {0, math.MaxInt32, math.MaxInt32},
	} {
		if got := c.s.Add(c.n); got != c.want {
			t.Errorf("%d and %d records is %d, want %d", c.s, c.n, got, c.want)
		}
	}
}

func TestJudge_FirstBatchOfAnEpochBeginsAtZero(t *testing.T) {
	s := new(sequence.State)
	judged(t, s, batch(0, 5), sequence.New, 0)
	judged(t, s, batch(1, 5), sequence.OutOfOrder, 0)
	judged(t, s, batch(math.MaxInt32, 1), sequence.OutOfOrder, 0)
	accept(t, s, 0, batch(0, 5))
	judged(t, s, sequence.Batch{Epoch: 1, First: 5, Records: 1}, sequence.OutOfOrder, 0)
	judged(t, s, sequence.Batch{Epoch: 1, First: 0, Records: 5}, sequence.New, 0)
}

func TestJudge_ChangesNothing(t *testing.T) {
	s := new(sequence.State)
	for range 2 {
		judged(t, s, batch(0, 5), sequence.New, 0)
	}
	if s.Seen || s.Recent != nil {
		t.Errorf("state is %+v", s)
	}
}

func TestJudge_KnowsEachBatchOfTheWindowByItsEnds(t *testing.T) {
	s := new(sequence.State)
	for i := range domain.Sequence(9) {
		accept(t, s, domain.Offset(100+10*i), batch(10*i, 10))
		for back := range min(i+1, sequence.Window) {
			first := 10 * (i - back)
			judged(t, s, batch(first, 10), sequence.Duplicate, domain.Offset(100+first))
			judged(t, s, batch(first, 9), sequence.DuplicateForgotten, 0)
			judged(t, s, batch(first+1, 9), sequence.DuplicateForgotten, 0)
		}
	}
	judged(t, s, batch(30, 10), sequence.DuplicateForgotten, 0)
	judged(t, s, batch(0, 90), sequence.DuplicateForgotten, 0)
	if len(s.Recent) != sequence.Window {
		t.Errorf("%d batches are remembered, want %d", len(s.Recent), sequence.Window)
	}
}

func TestJudge_RefusesGapsAndOverlaps(t *testing.T) {
	s := new(sequence.State)
	accept(t, s, 0, batch(0, 10))
	for _, b := range []sequence.Batch{batch(11, 1), batch(1<<29, 1), batch(5, 6), batch(9, 2), batch(0, 11)} {
		judged(t, s, b, sequence.OutOfOrder, 0)
	}
	judged(t, s, batch(10, 1), sequence.New, 0)
}

func TestJudge_FencesOlderEpochsAlsoTheirRepeats(t *testing.T) {
	s := new(sequence.State)
	accept(t, s, 0, batch(0, 10))
	accept(t, s, 10, sequence.Batch{Epoch: 3, Records: 1})
	for epoch := range domain.Epoch(3) {
		judged(t, s, sequence.Batch{Epoch: epoch, Records: 10}, sequence.Fenced, 0)
		judged(t, s, sequence.Batch{Epoch: epoch, First: 10, Records: 1}, sequence.Fenced, 0)
	}
	judged(t, s, sequence.Batch{Epoch: 3, Records: 1}, sequence.Duplicate, 10)
	if len(s.Recent) != 1 {
		t.Errorf("batches of the older epoch are remembered: %+v", s.Recent)
	}
}

func TestJudge_WorksUpToTheLastEpoch(t *testing.T) {
	s := new(sequence.State)
	accept(t, s, 0, sequence.Batch{Epoch: math.MaxInt16 - 1, Records: 1})
	accept(t, s, 1, sequence.Batch{Epoch: math.MaxInt16, Records: 1})
	judged(t, s, sequence.Batch{Epoch: math.MaxInt16 - 1, Records: 1}, sequence.Fenced, 0)
	judged(t, s, sequence.Batch{Epoch: math.MaxInt16, First: 1, Records: 1}, sequence.New, 0)
}

// atWrap has accepted up to the sequence before 2^31-left.
func atWrap(left int32) *sequence.State {
	last := domain.Sequence(math.MaxInt32 - left)
	return &sequence.State{Seen: true, Last: last, Recent: []sequence.Entry{{First: last - 9, Last: last, Base: 50}}}
}

func TestJudge_GoesOnAtZeroAfterTheLastSequence(t *testing.T) {
	s := atWrap(0)
	judged(t, s, batch(0, 4), sequence.New, 0)
	judged(t, s, batch(1, 4), sequence.OutOfOrder, 0)
	accept(t, s, 60, batch(0, 4))
	judged(t, s, batch(math.MaxInt32-9, 10), sequence.Duplicate, 50)
	judged(t, s, batch(0, 4), sequence.Duplicate, 60)
	judged(t, s, batch(math.MaxInt32-30, 5), sequence.DuplicateForgotten, 0)
	judged(t, s, batch(4, 1), sequence.New, 0)
}

func TestJudge_TakesABatchAcrossTheWrap(t *testing.T) {
	s := atWrap(2)
	across := batch(math.MaxInt32-1, 5)
	if across.Last() != 2 {
		t.Fatalf("batch ends at %d", across.Last())
	}
	judged(t, s, batch(math.MaxInt32, 5), sequence.OutOfOrder, 0)
	judged(t, s, batch(0, 1), sequence.OutOfOrder, 0)
	accept(t, s, 60, across)
	judged(t, s, across, sequence.Duplicate, 60)
	judged(t, s, batch(math.MaxInt32-1, 6), sequence.OutOfOrder, 0)
	judged(t, s, batch(3, 1), sequence.New, 0)
}

func TestAccept_KeepsEarlierCopiesOfTheStateUntouched(t *testing.T) {
	s := new(sequence.State)
	accept(t, s, 0, batch(0, 1), batch(1, 1), batch(2, 1))
	copied := *s
	accept(t, s, 3, batch(3, 1))
	accept(t, &copied, 70, batch(3, 1))
	judged(t, s, batch(3, 1), sequence.Duplicate, 3)
	judged(t, &copied, batch(3, 1), sequence.Duplicate, 70)
}

func TestAbandon_SpendsTheSequencesOfABatchThatIsNotStored(t *testing.T) {
	s := new(sequence.State)
	accept(t, s, 0, batch(0, 5))
	abandoned(t, s, batch(5, 5), sequence.New, 0)
	judged(t, s, batch(5, 5), sequence.DuplicateForgotten, 0)
	accept(t, s, 5, batch(10, 1))
	judged(t, s, batch(0, 5), sequence.Duplicate, 0)
}

func TestAbandon_RepeatedGivesTheSameAnswerUntilALaterBatchIsStored(t *testing.T) {
	s := new(sequence.State)
	for range 3 {
		abandoned(t, s, batch(0, 5), sequence.New, 0)
	}
	accept(t, s, 0, batch(5, 5))
	for range 3 {
		abandoned(t, s, batch(10, 5), sequence.New, 0)
		abandoned(t, s, batch(15, 5), sequence.New, 0)
		abandoned(t, s, batch(10, 5), sequence.New, 0)
		abandoned(t, s, batch(5, 5), sequence.Duplicate, 0)
	}
	accept(t, s, 5, batch(20, 1))
	abandoned(t, s, batch(10, 5), sequence.DuplicateForgotten, 0)
}

// A batch cut otherwise than it was sent must not pass for lost while its
// records are stored.
func TestAbandon_NeverCallsStoredRecordsLost(t *testing.T) {
	s := new(sequence.State)
	accept(t, s, 0, batch(0, 10))
	abandoned(t, s, batch(5, 5), sequence.DuplicateForgotten, 0)
	abandoned(t, s, batch(9, 1), sequence.DuplicateForgotten, 0)
	abandoned(t, s, batch(10, 5), sequence.New, 0)
	abandoned(t, s, batch(8, 7), sequence.DuplicateForgotten, 0)
	abandoned(t, s, batch(12, 3), sequence.New, 0)
}

func TestAbandon_RefusesWhatItCannotSettle(t *testing.T) {
	s := new(sequence.State)
	abandoned(t, s, batch(3, 1), sequence.OutOfOrder, 0)
	if s.Seen {
		t.Error("a refused batch was remembered")
	}
	accept(t, s, 0, batch(0, 5))
	abandoned(t, s, batch(6, 1), sequence.OutOfOrder, 0)
	abandoned(t, s, batch(4, 2), sequence.OutOfOrder, 0)
	accept(t, s, 5, sequence.Batch{Epoch: 1, Records: 1})
	abandoned(t, s, batch(5, 1), sequence.Fenced, 0)
	judged(t, s, sequence.Batch{Epoch: 1, First: 1, Records: 1}, sequence.New, 0)
}

func TestAbandon_OfANewerEpochForgetsTheOlder(t *testing.T) {
	s := new(sequence.State)
	accept(t, s, 0, batch(0, 5))
	abandoned(t, s, sequence.Batch{Epoch: 1, Records: 5}, sequence.New, 0)
	judged(t, s, sequence.Batch{Epoch: 1, Records: 5}, sequence.DuplicateForgotten, 0)
	judged(t, s, batch(0, 5), sequence.Fenced, 0)
	accept(t, s, 5, sequence.Batch{Epoch: 1, First: 5, Records: 1})
}

func TestAbandon_WorksAcrossTheWrap(t *testing.T) {
	s := atWrap(2)
	across := batch(math.MaxInt32-1, 5)
	abandoned(t, s, across, sequence.New, 0)
	abandoned(t, s, across, sequence.New, 0)
	judged(t, s, across, sequence.DuplicateForgotten, 0)
	accept(t, s, 60, batch(3, 1))
}

func BenchmarkJudgeAndAccept(b *testing.B) {
	s := new(sequence.State)
	next := batch(0, 100)
	b.ReportAllocs()
	for b.Loop() {
		if v, _ := s.Judge(next); v != sequence.New {
			b.Fatal(v)
		}
		s.Accept(next, 0)
		next.First = next.First.Add(next.Records)
	}
}

func BenchmarkJudgeDuplicate(b *testing.B) {
	s := new(sequence.State)
	for i := range domain.Sequence(5) {
		s.Accept(batch(100*i, 100), 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		if v, _ := s.Judge(batch(400, 100)); v != sequence.Duplicate {
			b.Fatal(v)
		}
	}
}
