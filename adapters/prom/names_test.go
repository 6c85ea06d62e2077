package prom_test

import (
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/adapters/prom"
	"github.com/streamhouse/streamhouse/ports"
)

func TestMetricsPage_NamesEveryMetric(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	tel := prom.New(registry)
	for k := ports.EventKind(1); int(k) < ports.EventKinds; k++ {
		tel.Record(ports.Event{Kind: k})
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if !strings.Contains(string(page), "`"+f.GetName()+"`") {
			t.Errorf("docs/metrics.md does not name %s", f.GetName())
		}
	}
}
