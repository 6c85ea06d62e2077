package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// gate is a writer that lets each write wait for permission.
type gate struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	writes int
	open   chan struct{}
	err    error
}

func (g *gate) Write(p []byte) (int, error) {
	if g.open != nil {
		<-g.open
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes++
	if g.err != nil {
		return 0, g.err
	}
	return g.buf.Write(p)
}

func (g *gate) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.String()
}

func add(s string) func([]byte) []byte {
	return func(buf []byte) []byte { return append(buf, s...) }
}

func TestOutbox_WritesALoneLineAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &gate{}
		o := newOutbox(w, nil)
		began := time.Now()
		o.append(add("one\n"))
		synctest.Wait()
		if w.text() != "one\n" || time.Since(began) != 0 {
			t.Errorf("after %s: %q", time.Since(began), w.text())
		}
		if err := o.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestOutbox_KeepsOrderAndGathersWhileTheWriterIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &gate{open: make(chan struct{})}
		o := newOutbox(w, nil)
		var want strings.Builder
		for i := range 1000 {
			line := fmt.Sprintf("line %d\n", i)
			want.WriteString(line)
			o.append(add(line))
		}
		close(w.open)
		if err := o.close(); err != nil {
			t.Fatal(err)
		}
		if w.text() != want.String() || w.writes > 2 {
			t.Errorf("%d bytes in %d writes, want %d", len(w.text()), w.writes, want.Len())
		}
	})
}

func TestOutbox_MakesWaitWhoAsksForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &gate{open: make(chan struct{})}
		o := newOutbox(w, nil)
		o.append(add("x"))
		synctest.Wait() // the writer holds the x
		o.append(add(strings.Repeat("y", outboxLimit)))
		ctx, cancel := context.WithCancel(t.Context())
		waited := make(chan error)
		go func() { waited <- o.room(ctx) }()
		synctest.Wait()
		select {
		case err := <-waited:
			t.Fatalf("room returned %v though there is none", err)
		default:
		}
		cancel()
		if err := <-waited; err != nil {
			t.Errorf("room returned %v after its context ended", err)
		}
		close(w.open)
		if err := o.room(t.Context()); err != nil {
			t.Error(err)
		}
		if err := o.close(); err != nil || len(w.text()) != outboxLimit+1 {
			t.Errorf("%v, %d bytes", err, len(w.text()))
		}
	})
}

func TestOutbox_TellsOfAFailedWriteOnceAndTakesNoMore(t *testing.T) {
	broken := errors.New("no space")
	told := 0
	o := newOutbox(&gate{err: broken}, func(err error) {
		if !errors.Is(err, broken) {
			t.Error(err)
		}
		told++
	})
	o.append(add("x"))
	for o.room(t.Context()) == nil {
		o.append(add("x"))
	}
	if err := o.close(); !errors.Is(err, broken) || told != 1 {
		t.Errorf("%v, told %d times", err, told)
	}
}

func BenchmarkOutbox(b *testing.B) {
	o := newOutbox(io.Discard, nil)
	line := add(`{"n":1234567,"partition":12,"offset":1234567}` + "\n")
	b.ReportAllocs()
	for b.Loop() {
		o.append(line)
		if err := o.room(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if err := o.close(); err != nil {
		b.Fatal(err)
	}
}
