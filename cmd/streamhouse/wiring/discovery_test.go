package wiring

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/ports"
)

// flakyList is a list of agents that answers heartbeats with err.
type flakyList struct {
	ports.AgentDiscovery
	err error
}

func (f *flakyList) Heartbeat(ctx context.Context, id ports.AgentID, draining bool) error {
	if f.err != nil {
		return f.err
	}
	return f.AgentDiscovery.Heartbeat(ctx, id, draining)
}

func TestLoggedDiscovery_TellsTheBeginningAndTheEndOfAnOutage(t *testing.T) {
	var out bytes.Buffer
	list := &flakyList{AgentDiscovery: memory.NewAgents()}
	d := &loggedDiscovery{AgentDiscovery: list, log: slog.New(slog.NewTextHandler(&out, nil))}
	entry, err := d.Register(t.Context(), ports.AgentSpec{Group: "web", Address: "10.0.0.7:7070"})
	if err != nil {
		t.Fatal(err)
	}
	away := errors.New("away")
	for _, err := range []error{nil, away, away, context.Canceled, away, nil, nil} {
		list.err = err
		if got := d.Heartbeat(t.Context(), entry.ID, false); !errors.Is(got, err) {
			t.Errorf("heartbeat: %v, want %v", got, err)
		}
	}
	if err := d.Leave(t.Context(), entry.ID); err != nil {
		t.Fatal(err)
	}
	if err := d.Heartbeat(t.Context(), entry.ID, false); !errors.Is(err, ports.ErrAgentNotFound) {
		t.Errorf("heartbeat of one that left: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	wants := []string{"entered the list of agents", "heartbeat failed", "heartbeats go through again", "had forgotten this one"}
	if len(lines) != len(wants) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(wants), out.String())
	}
	for i, want := range wants {
		if !strings.Contains(lines[i], want) || !strings.Contains(lines[i], "agent="+entry.ID.String()) {
			t.Errorf("line %d is %s, want %q", i, lines[i], want)
		}
	}
	if !strings.Contains(lines[1], "error=away") {
		t.Errorf("the outage is told as %s", lines[1])
	}
}

func TestJoin_TellsEverybody(t *testing.T) {
	a, c := memory.NewTelemetry(), memory.NewTelemetry()
	b := &builder{told: []ports.Telemetry{a, c}}
	b.join()
	b.cfg.Telemetry.Record(ports.Event{Kind: ports.SegmentPut})
	if a.Count(ports.SegmentPut) != 1 || c.Count(ports.SegmentPut) != 1 {
		t.Errorf("%d and %d events, want one each", a.Count(ports.SegmentPut), c.Count(ports.SegmentPut))
	}
	b.told = b.told[:1]
	if b.join(); b.cfg.Telemetry != ports.Telemetry(a) {
		t.Errorf("one alone is told through %T", b.cfg.Telemetry)
	}
}
