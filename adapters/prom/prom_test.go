package prom_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/streamhouse/streamhouse/adapters/prom"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

func TestTelemetry_KeepsTheContract(t *testing.T) {
	portstest.TestTelemetry(t, func(testing.TB) ports.Telemetry { return prom.New(prometheus.NewRegistry()) })
}

func TestTelemetry_CountsEveryKindByOutcome(t *testing.T) {
	registry := prometheus.NewRegistry()
	tel := prom.New(registry)
	for k := ports.EventKind(1); int(k) < ports.EventKinds; k++ {
		tel.Record(ports.Event{Kind: k, Count: 3, Bytes: 100, Duration: time.Second})
		tel.Record(ports.Event{Kind: k, Count: 7, Bytes: 1000, Err: errors.New("down")})
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	outcomes := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) == 1 && m.GetLabel()[0].GetName() == "outcome" {
				outcomes++
				if m.GetCounter().GetValue() != 1 {
					t.Errorf("%s %v is %v, want 1", f.GetName(), m.GetLabel(), m.GetCounter().GetValue())
				}
			}
		}
	}
	if want := 2 * (ports.EventKinds - 1); outcomes != want {
		t.Errorf("%d outcomes are counted, want two of each of the %d kinds", outcomes, want/2)
	}
	want := `
# HELP streamhouse_segment_put_bytes_total Uploads of segments that ended: bytes of those that went well
# TYPE streamhouse_segment_put_bytes_total counter
streamhouse_segment_put_bytes_total 100
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "streamhouse_segment_put_bytes_total"); err != nil {
		t.Error(err)
	}
}

func TestTelemetry_NamesAndHelpsPassTheLinter(t *testing.T) {
	registry := prometheus.NewRegistry()
	prom.New(registry)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func TestRecord_AllocatesNothing(t *testing.T) {
	tel := prom.New(prometheus.NewRegistry())
	e := ports.Event{Kind: ports.BatchSettled, Count: 3, Bytes: 100, Duration: time.Second}
	if n := testing.AllocsPerRun(1000, func() { tel.Record(e) }); n != 0 {
		t.Errorf("an event costs %v allocations", n)
	}
}

// An unknown kind is from a newer port.
func TestRecord_IgnoresKindsItDoesNotKnow(t *testing.T) {
	tel := prom.New(prometheus.NewRegistry())
	tel.Record(ports.Event{Kind: 0})
	tel.Record(ports.Event{Kind: 255})
}
