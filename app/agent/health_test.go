package agent_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/agent"
	"github.com/streamhouse/streamhouse/ports"
)

// store is looked at, and fails or hangs as it is told.
type store struct {
	down, hangs atomic.Bool
	looks       atomic.Int64
}

func (s *store) look(ctx context.Context) error {
	s.looks.Add(1)
	if s.hangs.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if s.down.Load() {
		return errDown
	}
	return ports.StorageError("stat", ports.Definite, ports.ErrObjectNotFound)
}

type patient struct {
	*agent.Health
	metadata, segments store
	told               []string // what changed was told; "" for ready
}

func inHealth(t *testing.T, check func(t *testing.T, p *patient)) {
	synctest.Test(t, func(t *testing.T) {
		p := new(patient)
		p.Health = agent.NewHealth(p.metadata.look, p.segments.look, func(reason error) {
			if reason == nil {
				p.told = append(p.told, "")
				return
			}
			p.told = append(p.told, reason.Error())
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.Run(ctx)
		}()
		check(t, p)
		cancel()
		<-done
	})
}

// fail tells of a failed call on the segment store and on the metadata store.
func (p *patient) fail() {
	p.Record(ports.Event{Err: ports.StorageError("put", ports.Ambiguous, errDown)})
	p.Record(ports.Event{Err: ports.MetadataError("commit", ports.Transient, errDown)})
}

func TestHealth_AFailedCallIsNoReasonIfTheStoreAnswers(t *testing.T) {
	inHealth(t, func(t *testing.T, p *patient) {
		for range 100 {
			p.fail()
			time.Sleep(100 * time.Millisecond)
		}
		if err := p.Reason(); err != nil || len(p.told) != 0 {
			t.Errorf("%v, told %q", err, p.told)
		}
		if n, m := p.segments.looks.Load(), p.metadata.looks.Load(); n < 5 || n > 11 || m < 5 || m > 11 {
			t.Errorf("%d and %d looks in ten seconds of failures, want one a second", n, m)
		}
	})
}

func TestHealth_AStoreThatIsAwayMakesNotReadyUntilItIsBack(t *testing.T) {
	for name, change := range map[string]func(*store, bool){
		"refuses": func(s *store, on bool) { s.down.Store(on) },
		"hangs":   func(s *store, on bool) { s.hangs.Store(on) },
	} {
		t.Run(name, func(t *testing.T) {
			inHealth(t, func(t *testing.T, p *patient) {
				change(&p.segments, true)
				p.fail() // once: the looks go on by themselves
				time.Sleep(2 * time.Second)
				if err := p.Reason(); err != nil {
					t.Errorf("too early: %v", err)
				}
				time.Sleep(5 * time.Second)
				if err := p.Reason(); err == nil || !strings.Contains(err.Error(), "segment store does not answer") || strings.Contains(err.Error(), "metadata") {
					t.Errorf("away for long: %v", err)
				}
				change(&p.segments, false)
				time.Sleep(5 * time.Second)
				if err := p.Reason(); err != nil {
					t.Errorf("back: %v", err)
				}
				if len(p.told) != 2 || p.told[0] == "" || p.told[1] != "" {
					t.Errorf("told %q", p.told)
				}
			})
		})
	}
}

func TestHealth_AsksNothingWhileNobodyDoes(t *testing.T) {
	inHealth(t, func(t *testing.T, p *patient) {
		time.Sleep(24 * time.Hour)
		if n := p.segments.looks.Load() + p.metadata.looks.Load(); n != 0 {
			t.Errorf("%d looks in a day of nothing", n)
		}
		p.segments.down.Store(true)
		_ = p.Reason() // looks, for the next one who asks
		time.Sleep(5 * time.Second)
		if err := p.Reason(); !errors.Is(err, errDown) {
			t.Errorf("asked twice: %v", err)
		}
	})
}

func TestHealth_HearsOfPutsAndHeartbeats(t *testing.T) {
	inHealth(t, func(t *testing.T, p *patient) {
		segments := p.Segments(memory.NewSegments())
		for range 10 {
			time.Sleep(ports.AgentTTL / 2)
			if err := segments.Put(t.Context(), "s/"+time.Now().Format("150405"), nil); err != nil {
				t.Fatal(err)
			}
			_ = p.Reason()
		}
		synctest.Wait()
		if n := p.segments.looks.Load(); n != 0 {
			t.Errorf("%d looks at a store that is in use", n)
		}
		p.metadata.down.Store(true)
		d := p.Discovery(down{})
		if err := d.Heartbeat(t.Context(), ports.AgentID{}, false); err == nil {
			t.Fatal("a heartbeat went through")
		}
		time.Sleep(5 * time.Second)
		if err := p.Reason(); err == nil || !strings.Contains(err.Error(), "metadata store does not answer") {
			t.Errorf("after a lost heartbeat: %v", err)
		}
	})
}

// down is a list of agents that cannot be reached.
type down struct{ ports.AgentDiscovery }

func (down) Heartbeat(context.Context, ports.AgentID, bool) error {
	return ports.MetadataError("heartbeat", ports.Transient, errDown)
}
