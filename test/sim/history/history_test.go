package history

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// clean is a history without fault: two sessions, one of them a restart, one
// topic with two partitions, one consumer beside the final reader.
func clean() []Event {
	h := []Event{
		{Kind: Create, Topic: "t", Incarnation: 1},
		{Kind: Open, Session: "a"},
		{Kind: Open, Session: "n1", Name: "n"},
		{Kind: Assign, Actor: "c", Topic: "t", Incarnation: 1, Partition: 0},
		{Kind: Send, Session: "a", ID: "a1", Topic: "t", Partition: 0},
		{Kind: Send, Session: "a", ID: "a2", Topic: "t", Partition: AnyPartition},
		{Kind: Send, Session: "n1", ID: "n1", Topic: "t", Partition: 0},
		{Kind: Ack, ID: "a1", Partition: 0, Offset: 0},
		{Kind: Read, Actor: "c", ID: "a1", Topic: "t", Incarnation: 1, Partition: 0, Offset: 0},
		{Kind: Ack, ID: "a2", Partition: 1, Offset: 0},
		{Kind: Look, Actor: "c", Topic: "t", Incarnation: 1, Partition: 0},
		{Kind: Bounds, Actor: "c", Topic: "t", Incarnation: 1, Partition: 0, High: 1},
		{Kind: Unknown, ID: "n1"},
		{Kind: Open, Session: "n2", Name: "n"},
		{Kind: Send, Session: "n2", ID: "n2", Topic: "t", Partition: 0},
		{Kind: Send, Session: "n2", ID: "n3", Topic: "t", Partition: 0},
		{Kind: Ack, ID: "n2", Partition: 0, Offset: 2},
		{Kind: Fail, ID: "n3"},
		{Kind: Read, Actor: "c", ID: "n1", Topic: "t", Incarnation: 1, Partition: 0, Offset: 1},
		{Kind: Send, Session: "a", ID: "a3", Topic: "t", Partition: 0},
		{Kind: Ack, ID: "a3", Partition: 0, Offset: 3},
	}
	return append(h, final(1, 0, "a1", "n1", "n2", "a3")...)
}

// final reads a partition to its end; "" leaves an offset out.
func final(incarnation int, partition int32, ids ...string) []Event {
	at := Event{Actor: "f", Topic: "t", Incarnation: incarnation, Partition: partition}
	assign := at
	assign.Kind = Assign
	h := []Event{assign}
	for i, id := range ids {
		if id == "" {
			continue
		}
		e := at
		e.Kind, e.ID, e.Offset = Read, id, int64(i)
		h = append(h, e)
	}
	end := at
	end.Kind, end.High = Final, int64(len(ids))
	return append(h, end)
}

// with returns a clean history that ends in its second partition, after more.
func with(more ...Event) []Event {
	h := append(clean(), more...)
	return append(h, final(1, 1, "a2")...)
}

func check(t *testing.T, events []Event) []Violation {
	t.Helper()
	var file bytes.Buffer
	r := NewRecorder(&file)
	for _, e := range events {
		r.Record(e)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	found, err := Check(&file)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// replace returns the history with the first event that matches changed.
func replace(h []Event, match func(Event) bool, change func(*Event)) []Event {
	for i := range h {
		if match(h[i]) {
			change(&h[i])
			return h
		}
	}
	panic("no event matches")
}

func is(kind Kind, id string) func(Event) bool {
	return func(e Event) bool { return e.Kind == kind && e.ID == id }
}

func TestCheck_FindsNothingInCleanHistories(t *testing.T) {
	recreated := append(with(),
		Event{Kind: Send, Session: "a", ID: "a4", Topic: "t", Partition: 0},
		Event{Kind: Delete, Topic: "t"},
		Event{Kind: Ack, ID: "a4", Partition: 0, Offset: 4},
		Event{Kind: Deleted, Topic: "t"},
		Event{Kind: Create, Topic: "t", Incarnation: 2},
		Event{Kind: Send, Session: "a", ID: "a5", Topic: "t", Partition: 0},
		Event{Kind: Ack, ID: "a5", Partition: 0, Offset: 0},
	)
	failedLate := append(append(with(), Event{Kind: Send, Session: "a", ID: "a4", Topic: "t"}), final(1, 0, "a1", "n1", "n2", "a3", "a4")...)
	failedLate = append(failedLate, Event{Kind: Delete, Topic: "t"}, Event{Kind: Deleted, Topic: "t"}, Event{Kind: Fail, ID: "a4"})
	trimmed := final(1, 1, "", "late")
	trimmed[0].Offset, trimmed[2].Start = 1, 1

	twice := append(append(weak(clean()), Event{Kind: Send, Session: "a", ID: "w", Topic: "t", Partition: 1},
		Event{Kind: Ack, ID: "w", Partition: 1, Offset: 0}), final(1, 1, "", "w")...)
	twice[len(twice)-3].Offset, twice[len(twice)-1].Start = 1, 1
	for name, h := range map[string][]Event{
		"empty":                    nil,
		"two sessions":             with(),
		"deleted and re-made":      append(recreated, final(2, 0, "a5")...),
		"deleted before it failed": failedLate,
		"an open send is seen":     append(with(Event{Kind: Send, Session: "a", ID: "a4", Topic: "t", Partition: 0}), final(1, 0, "a1", "n1", "n2", "a3", "a4")...),
		"retention removed the first record": append(append(clean(),
			Event{Kind: Send, Session: "a", ID: "late", Topic: "t", Partition: 1},
			Event{Kind: Ack, ID: "late", Partition: 1, Offset: 1}), trimmed...),
		"retention removed one that is somewhere": append(append(clean(),
			Event{Kind: Send, Session: "a", ID: "gone", Topic: "t", Partition: 1}, Event{Kind: Stored, ID: "gone"},
			Event{Kind: Send, Session: "a", ID: "late", Topic: "t", Partition: 1}), trimmed...),
		"retention removed the first of two copies": twice,
		"a retry is answered alike":                 with(Event{Kind: Ack, ID: "a1", Partition: 0, Offset: 0}, Event{Kind: Unknown, ID: "a1"}),
		"stored without offset":                     replace(with(), is(Ack, "a3"), func(e *Event) { e.Kind = Stored }),
		"weak sessions may repeat":                  weak(append(clean(), final(1, 1, "a2", "a3")...)),
		"a pass from an open offset":                with(Event{Kind: Assign, Actor: "d", Topic: "t", Incarnation: 1, Offset: AnyOffset}, Event{Kind: Read, Actor: "d", ID: "n2", Topic: "t", Incarnation: 1, Offset: 2}),
	} {
		t.Run(name, func(t *testing.T) {
			if found := check(t, h); len(found) > 0 {
				t.Errorf("found %v", found)
			}
		})
	}
}

func TestCheck_FindsEachPlantedAnomaly(t *testing.T) {
	last := clean()[:len(clean())-6] // without the final read of partition 0
	end := final(1, 1, "a2")
	finish := func(ids ...string) []Event {
		h := append([]Event(nil), last...)
		return append(append(h, final(1, 0, ids...)...), end...)
	}
	read := func(actor, id string, offset int64) Event {
		return Event{Kind: Read, Actor: actor, ID: id, Topic: "t", Incarnation: 1, Offset: offset}
	}
	sent := func(id string) Event {
		return Event{Kind: Send, Session: "a", ID: id, Topic: "t", Partition: AnyPartition}
	}
	for _, test := range []struct {
		name string
		h    []Event
		want Class
	}{
		{"an acknowledged record in the middle is another one", append(append(append([]Event(nil), last...), sent("x")), append(final(1, 0, "a1", "n1", "x", "a3"), end...)...), Lost},
		{"a stored record is not there", replace(finish("a1", "n1", "n2"), is(Ack, "a3"), func(e *Event) { e.Kind = Stored }), Lost},
		{"a record read before is gone", with(final(1, 0, "a1", "n1", "n2")[4]), Lost},
		{"the last acknowledged record is not there", finish("a1", "n1", "n2"), Unseen},
		{"the final read stops early", append(finish("a1", "n1", "n2", ""), read("c", "n2", 2), read("c", "a3", 3)), Unseen},
		{"a record is there twice", finish("a1", "n1", "n2", "a3", "n1"), Duplicate},
		{"a record is in two partitions", replace(append(clean(), final(1, 1, "a2", "a3")...), is(Send, "a3"), func(e *Event) { e.Partition = AnyPartition }), Duplicate},
		{"two records of a session swapped", append(with(sent("x"), sent("y")), final(1, 0, "a1", "n1", "n2", "a3", "y", "x")...), Reordered},
		{"two readers differ", with(Event{Kind: Assign, Actor: "d", Topic: "t", Incarnation: 1, Offset: AnyOffset}, read("d", "a3", 1)), InconsistentOffset},
		{"an acknowledgement names another offset", replace(with(), is(Ack, "n2"), func(e *Event) { e.Offset = 1 }), InconsistentOffset},
		{"an acknowledgement names another partition", replace(with(), is(Ack, "a2"), func(e *Event) { e.Partition = 0 }), InconsistentOffset},
		{"two acknowledgements differ", with(Event{Kind: Ack, ID: "a1", Partition: 0, Offset: 3}), InconsistentOffset},
		{"an acknowledgement has no offset", replace(with(), is(Ack, "a2"), func(e *Event) { e.Offset = -1 }), InconsistentOffset},
		{"nobody sent it", finish("a1", "n1", "n2", "a3", "ghost"), Phantom},
		{"it was sent to another partition", append(finish("a1", "n1", "n2", "a3"), Event{Kind: Read, Actor: "d", ID: "n3", Topic: "t", Incarnation: 1, Partition: 1, Offset: 1}), Phantom},
		{"it was read before it was sent", append([]Event{read("c", "a1", 0)}, with()...), Phantom},
		{"a consumer left one out", with(read("c", "a3", 3)), PollSkip},
		{"a consumer went back", with(read("c", "a1", 0)), NonMonotonicPoll},
		{"a consumer read one twice", with(read("c", "n1", 1)), NonMonotonicPoll},
		{"nobody finds the offset", append(finish("a1", "n1", "n2", "a3"), sent("x"), read("c", "n2", 2), read("c", "a3", 3), read("c", "x", 5)), OffsetGap},
		{"the high watermark lies beyond a hole", append(finish("a1", "n1", "n2", "a3"), final(1, 0, "a1", "n1", "n2", "a3", "")...), OffsetGap},
		{"bounds miss an acknowledged record", with(Event{Kind: Look, Actor: "c", Topic: "t", Incarnation: 1}, Event{Kind: Bounds, Actor: "c", Topic: "t", Incarnation: 1, High: 3}), StaleRead},
		{"a failed record is there", append(with(), final(1, 0, "a1", "n1", "n2", "a3", "n3")...), DefiniteVisible},
		{"a later send got an earlier offset", later(), RealTimeOrder},
		{"an old session wrote after the new one", append(with(Event{Kind: Send, Session: "n1", ID: "z", Topic: "t"}), final(1, 0, "a1", "n1", "n2", "a3", "z")...), Zombie},
		{"an old session's earlier send came behind the new one's", behind(), Zombie},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := check(t, test.h)
			for _, v := range found {
				if v.Class == test.want {
					return
				}
			}
			t.Errorf("want %q, found %v", test.want, found)
		})
	}
}

// weak takes idempotence from session a, which left a3's partition open.
func weak(h []Event) []Event {
	h = replace(h, func(e Event) bool { return e.Kind == Open && e.Session == "a" }, func(e *Event) { e.Weak = true })
	return replace(h, is(Send, "a3"), func(e *Event) { e.Partition = AnyPartition })
}

// later has a record that was sent after another was acknowledged, and got the
// lower offset.
func later() []Event {
	return append([]Event{
		{Kind: Create, Topic: "t", Incarnation: 1},
		{Kind: Open, Session: "a"},
		{Kind: Open, Session: "b"},
		{Kind: Send, Session: "a", ID: "a1", Topic: "t"},
		{Kind: Ack, ID: "a1", Offset: 1},
		{Kind: Send, Session: "b", ID: "b1", Topic: "t"},
		{Kind: Ack, ID: "b1", Offset: 0},
	}, final(1, 0, "b1", "a1")...)
}

// behind has a fenced session's record after one of the session that fenced it.
func behind() []Event {
	return append([]Event{
		{Kind: Create, Topic: "t", Incarnation: 1},
		{Kind: Open, Session: "n1", Name: "n"},
		{Kind: Send, Session: "n1", ID: "old", Topic: "t"},
		{Kind: Open, Session: "n2", Name: "n"},
		{Kind: Send, Session: "n2", ID: "new", Topic: "t"},
	}, final(1, 0, "new", "old")...)
}

func TestCheck_RefusesHistoriesThatMakeNoSense(t *testing.T) {
	for name, lines := range map[string]string{
		"not JSON":        "{",
		"unknown field":   `{"kind":"send","colour":"red"}`,
		"unknown kind":    `{"kind":"wish"}`,
		"session unknown": `{"kind":"send","session":"a","id":"1","topic":"t"}`,
		"id twice":        `{"kind":"open","session":"a"}{"kind":"send","session":"a","id":"1"}{"kind":"send","session":"a","id":"1"}`,
		"end of nothing":  `{"kind":"ack","id":"1"}`,
		"session twice":   `{"kind":"open","session":"a"}{"kind":"open","session":"a"}`,
	} {
		if _, err := Check(strings.NewReader(lines)); err == nil || !strings.Contains(err.Error(), "history line") {
			t.Errorf("%s: error is %v, want one that names the line", name, err)
		}
	}
}

func BenchmarkChecker(b *testing.B) {
	const n = 10_000
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		c := NewChecker()
		add := func(e Event) {
			if err := c.Add(e); err != nil {
				b.Fatal(err)
			}
		}
		add(Event{Kind: Open, Session: "a"})
		for i, id := range ids {
			add(Event{Kind: Send, Session: "a", ID: id, Topic: "t"})
			add(Event{Kind: Ack, ID: id, Topic: "t", Offset: int64(i)})
		}
		for _, e := range final(0, 0, ids...) {
			add(e)
		}
		if found := c.Finish(); len(found) > 0 {
			b.Fatal(found[0])
		}
	}
}
