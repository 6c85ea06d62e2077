package fault

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// refuse fails every call without making it, and notes them.
func refuse(calls *[]Call) Interceptor {
	return func(_ context.Context, i *Invocation) error {
		*calls = append(*calls, i.Call)
		return i.Error(ports.Transient)
	}
}

// TestEveryMethodIsIntercepted calls each method that takes a context on a
// wrapper around nothing: one that is not intercepted panics.
func TestEveryMethodIsIntercepted(t *testing.T) {
	var calls []Call
	for port, wrapper := range map[string]any{
		Metadata:  NewMetadata(nil, refuse(&calls)),
		Segments:  NewSegments(nil, refuse(&calls)),
		Transport: struct{ appender }{NewTransport(nil, refuse(&calls))},
		Fetcher:   NewFetcher(nil, refuse(&calls)),
		Agents:    NewAgents(nil, refuse(&calls)),
	} {
		v := reflect.ValueOf(wrapper)
		for i := range v.NumMethod() {
			name, method := v.Type().Method(i).Name, v.Method(i)
			if method.Type().NumIn() == 0 || method.Type().In(0) != reflect.TypeFor[context.Context]() {
				continue
			}
			calls = nil
			args := []reflect.Value{reflect.ValueOf(t.Context())}
			for j := 1; j < method.Type().NumIn(); j++ {
				args = append(args, reflect.Zero(method.Type().In(j)))
			}
			out := method.Call(args)
			err, _ := out[len(out)-1].Interface().(error)
			if !errors.Is(err, ErrInjected) || ports.KindOf(err) != ports.Transient {
				t.Errorf("%s.%s returned %v, want the injected error", port, name, err)
			}
			if len(calls) != 1 || calls[0].Port != port || calls[0].Method != name {
				t.Errorf("%s.%s was seen as %v", port, name, calls)
			}
		}
	}
}

// appender leaves out Close, which is not intercepted.
type appender interface {
	Append(context.Context, []ports.Batch, func(int, ports.AppendResult)) error
}

func TestCallError_HasTheClassOfItsPort(t *testing.T) {
	for port, class := range map[string]error{
		Metadata: domain.ErrMetadata, Segments: domain.ErrStorage, Transport: domain.ErrAgent, Fetcher: domain.ErrAgent,
	} {
		err := Call{Port: port, Method: "X", Subject: "y"}.Error(ports.Fatal)
		if !errors.Is(err, class) || !errors.Is(err, ErrInjected) || ports.KindOf(err) != ports.Fatal {
			t.Errorf("%s: %v", port, err)
		}
	}
}

func decided(d Decision) Interceptor { return Decide(func(Call) Decision { return d }) }

func TestDecide_FailBeforeHasNoEffect(t *testing.T) {
	store := memory.NewSegments()
	lost := errors.New("refused")
	if err := NewSegments(store, decided(Decision{Fail: lost})).Put(t.Context(), "segments/a", []byte("x")); !errors.Is(err, lost) {
		t.Fatalf("Put returned %v", err)
	}
	if _, err := store.Stat(t.Context(), "segments/a"); !errors.Is(err, ports.ErrObjectNotFound) {
		t.Fatalf("the object is there: %v", err)
	}
}

func TestDecide_LoseAppliesTheCallAndHidesItsAnswer(t *testing.T) {
	store := memory.NewSegments()
	lost := errors.New("connection reset")
	if err := NewSegments(store, decided(Decision{Lose: lost})).Put(t.Context(), "segments/a", []byte("x")); !errors.Is(err, lost) {
		t.Fatalf("Put returned %v", err)
	}
	got, err := NewSegments(store, decided(Decision{Lose: lost})).ReadRange(t.Context(), "segments/a", 0, 1)
	if !errors.Is(err, lost) || got != nil {
		t.Fatalf("ReadRange returned %q, %v: want no answer", got, err)
	}
	if _, err := store.Stat(t.Context(), "segments/a"); err != nil {
		t.Fatal(err)
	}
}

func TestDecide_RepeatMakesTheCallTwiceAndGivesTheSecondAnswer(t *testing.T) {
	err := NewSegments(memory.NewSegments(), decided(Decision{Repeat: true})).Put(t.Context(), "segments/a", []byte("x"))
	if !errors.Is(err, ports.ErrObjectExists) {
		t.Fatalf("Put returned %v, want the second call's answer", err)
	}
}

func TestDecide_DelayObeysTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewSegments()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := NewSegments(store, decided(Decision{Delay: time.Minute})).Put(ctx, "segments/a", []byte("x"))
		if !errors.Is(err, context.DeadlineExceeded) || ports.KindOf(err) != ports.Transient {
			t.Errorf("a call that never arrived returned %v", err)
		}
		err = NewSegments(store, decided(Decision{Linger: time.Minute})).Put(t.Context(), "segments/a", []byte("x"))
		if err != nil {
			t.Errorf("a slow answer became %v", err)
		}
		late, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = NewSegments(store, decided(Decision{Linger: time.Minute})).Put(late, "segments/b", []byte("x"))
		if !errors.Is(err, context.DeadlineExceeded) || ports.KindOf(err) != ports.Ambiguous {
			t.Errorf("an answer that came too late became %v", err)
		}
	})
}

func TestDetach_LetsACallArriveAfterItsCallerChangedTheBytes(t *testing.T) {
	store := memory.NewSegments()
	var late *Invocation
	s := NewSegments(store, func(_ context.Context, i *Invocation) error {
		late = i
		i.Detach()
		return i.Error(ports.Ambiguous)
	})
	body := []byte("first")
	if err := s.Put(t.Context(), "segments/a", body); ports.KindOf(err) != ports.Ambiguous {
		t.Fatal(err)
	}
	copy(body, "other")
	if err := late.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := store.ReadRange(t.Context(), "segments/a", 0, 5)
	if err != nil || string(got) != "first" {
		t.Fatalf("the late call stored %q, %v", got, err)
	}
}

func TestRandom_GivesEachSeedItsDecisions(t *testing.T) {
	list := func(seed uint64) (kinds []byte) {
		f := Random(seed, Rates{Fail: 0.3, Lose: 0.3, Repeat: 0.3})
		for range 200 {
			runs := byte('0')
			err := f(t.Context(), &Invocation{run: func(context.Context) error { runs++; return nil }})
			kinds = append(kinds, runs)
			if err != nil {
				kinds = append(kinds, '!')
			}
		}
		return kinds
	}
	a, b, c := list(1), list(1), list(2)
	if !bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Fatalf("seed 1 twice and seed 2:\n%s\n%s\n%s", a, b, c)
	}
	for _, part := range []string{"0!", "1!", "2!", "11", "22"} {
		if !bytes.Contains(a, []byte(part)) {
			t.Errorf("200 calls never went %q: %s", part, a)
		}
	}
}

func TestRandom_DelaysCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f := Random(1, Rates{Delay: 1, MaxDelay: time.Second})
		for range 20 {
			if err := f(t.Context(), &Invocation{run: func(context.Context) error { return nil }}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took < time.Second || took > 40*time.Second {
			t.Errorf("20 calls took %v", took)
		}
	})
}

// paths is a Transport that settles batch i at offset i, at once or when told.
type paths struct {
	ports.Transport
	appends int
	later   []func()
	hold    bool
	seen    []ports.Batch
}

func (a *paths) Append(_ context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	a.appends++
	a.seen = batches
	for i := range batches {
		answer := func() { settle(i, ports.AppendResult{Base: domain.Offset(i)}) }
		if a.hold {
			a.later = append(a.later, answer)
		} else {
			answer()
		}
	}
	return nil
}

func appendTwo(t *testing.T, a *paths, d Decision) map[int]ports.AppendResult {
	t.Helper()
	got := map[int]ports.AppendResult{}
	batches := []ports.Batch{{Bytes: []byte("a")}, {Bytes: []byte("b")}}
	err := NewTransport(a, decided(d)).Append(t.Context(), batches, func(i int, r ports.AppendResult) {
		if _, twice := got[i]; twice {
			t.Errorf("batch %d was settled twice", i)
		}
		got[i] = r
	})
	if err != nil {
		t.Fatalf("Append returned %v", err)
	}
	for _, answer := range a.later {
		answer()
	}
	if len(got) != 2 {
		t.Fatalf("settled %v, want both batches", got)
	}
	return got
}

func TestTransport_SettlesEachBatchOnce(t *testing.T) {
	lost := errors.New("lost")
	for _, hold := range []bool{false, true} {
		for name, d := range map[string]Decision{"through": {}, "repeated": {Repeat: true}, "lost": {Lose: lost}} {
			a := &paths{hold: hold}
			got := appendTwo(t, a, d)
			for i, r := range got {
				if r.Err != d.Lose || d.Lose == nil && r.Base != domain.Offset(i) {
					t.Errorf("%s, hold %v: batch %d got %+v", name, hold, i, r)
				}
			}
			if want := map[bool]int{false: 1, true: 2}[d.Repeat]; a.appends != want {
				t.Errorf("%s: appended %d times", name, a.appends)
			}
		}
	}
}

// TestTransport_RepeatedAppendIsInDoubtIfOneOfThemIs: a copy that is certainly
// not stored says nothing about the other.
func TestTransport_RepeatedAppendIsInDoubtIfOneOfThemIs(t *testing.T) {
	unclear := ports.MetadataError("commit", ports.Ambiguous, errors.New("connection lost"))
	refused := ports.MetadataError("commit", ports.Transient, errors.New("busy"))
	for _, test := range []struct {
		results []ports.AppendResult
		want    ports.AppendResult
	}{
		{[]ports.AppendResult{{Err: unclear}, {Err: refused}}, ports.AppendResult{Err: unclear}},
		{[]ports.AppendResult{{Err: refused}, {Err: unclear}}, ports.AppendResult{Err: unclear}},
		{[]ports.AppendResult{{Err: refused}, {Base: 7}}, ports.AppendResult{Base: 7}},
		{[]ports.AppendResult{{Base: 7}, {Err: unclear}}, ports.AppendResult{Base: 7}},
	} {
		var got []ports.AppendResult
		err := NewTransport(&script{results: test.results}, decided(Decision{Repeat: true})).Append(t.Context(), make([]ports.Batch, 1),
			func(_ int, r ports.AppendResult) { got = append(got, r) })
		if err != nil || len(got) != 1 || got[0] != test.want {
			t.Errorf("%v: settled %v, %v, want %v", test.results, got, err, test.want)
		}
	}
}

// script is a Transport that gives each Append the next result.
type script struct {
	ports.Transport
	results []ports.AppendResult
}

func (s *script) Append(_ context.Context, _ []ports.Batch, settle func(int, ports.AppendResult)) error {
	r := s.results[0]
	s.results = s.results[1:]
	settle(0, r)
	return nil
}

func TestTransport_RefusedAppendTakesNothingOver(t *testing.T) {
	a := new(paths)
	refused := errors.New("refused")
	err := NewTransport(a, decided(Decision{Fail: refused})).Append(t.Context(), make([]ports.Batch, 1), func(int, ports.AppendResult) {
		t.Error("settled a batch that was not taken over")
	})
	if !errors.Is(err, refused) || a.appends != 0 {
		t.Errorf("Append returned %v after %d appends", err, a.appends)
	}
}

func TestTransport_AppendThatArrivesLateSettlesNothing(t *testing.T) {
	var late *Invocation
	a := new(paths)
	f := func(_ context.Context, i *Invocation) error {
		late = i
		i.Detach()
		return i.Error(ports.Ambiguous)
	}
	err := NewTransport(a, f).Append(t.Context(), make([]ports.Batch, 1), func(int, ports.AppendResult) {
		t.Error("settled a batch whose Append had failed")
	})
	if err == nil {
		t.Fatal("the Append succeeded")
	}
	if err := late.Run(t.Context()); err != nil || a.appends != 1 {
		t.Errorf("the late Append returned %v, %d arrived", err, a.appends)
	}
}

func TestTransport_OwnsTheBytesOfALostAppend(t *testing.T) {
	a := &paths{hold: true}
	batches := []ports.Batch{{Bytes: []byte("a")}}
	err := NewTransport(a, decided(Decision{Lose: errors.New("lost")})).Append(t.Context(), batches, func(int, ports.AppendResult) {})
	if err != nil {
		t.Fatal(err)
	}
	batches[0].Bytes[0] = 'x' // its owner may: it is settled
	if string(a.seen[0].Bytes) != "a" {
		t.Error("the transport saw its bytes change")
	}
}

// log counts commits and keeps what came with them.
type log struct {
	ports.MetadataStore
	commits [][]commit.Segment
}

func (l *log) Commit(_ context.Context, s []commit.Segment) ([]ports.CommitResult, error) {
	l.commits = append(l.commits, s)
	return make([]ports.CommitResult, len(s)), nil
}

func TestMetadata_LateCommitKeepsItsBatches(t *testing.T) {
	store, late := new(log), (*Invocation)(nil)
	m := NewMetadata(store, func(_ context.Context, i *Invocation) error {
		late = i
		i.Detach()
		return i.Error(ports.Ambiguous)
	})
	segments := []commit.Segment{{Size: 1, Batches: []commit.Batch{{Records: 7}}}}
	if _, err := m.Commit(t.Context(), segments); err == nil {
		t.Fatal("the commit was answered")
	}
	segments[0].Batches[0].Records = 8
	if err := late.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := store.commits[0][0].Batches[0].Records; got != 7 {
		t.Errorf("the late commit has %d records, want the 7 it was called with", got)
	}
}
