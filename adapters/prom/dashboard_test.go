package prom_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamhouse/streamhouse/adapters/prom"
	"github.com/streamhouse/streamhouse/ports"
)

// Every metric that the dashboard asks for is one that there is.
func TestDashboard_ShowsMetricsThatExist(t *testing.T) {
	b, err := os.ReadFile("../../deploy/grafana/streamhouse.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
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
	known := make(map[string]bool)
	for _, f := range families {
		known[f.GetName()], known[f.GetName()+"_bucket"] = true, true
	}
	name := regexp.MustCompile(`streamhouse_[a-z0-9_]+`)
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			for _, metric := range name.FindAllString(target.Expr, -1) {
				if !known[metric] {
					t.Errorf("panel %q shows %s, which is no metric", p.Title, metric)
				}
			}
			if strings.Count(target.Expr, "(") != strings.Count(target.Expr, ")") {
				t.Errorf("panel %q: %s", p.Title, target.Expr)
			}
		}
	}
}
