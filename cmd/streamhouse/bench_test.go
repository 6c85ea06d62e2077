package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBench_ConsumeReadsWhatProduceLeft(t *testing.T) {
	c := newTool(t)
	load := []string{"--record-size", "100", "--partitions", "3"}
	quick := append([]string{"--records", "3000", "--limit-time", "2ms"}, load...)
	produced := decode[map[string]any](t, c.ok("", append([]string{"bench", "produce", "--output", "json"}, quick...)...))
	for _, figure := range []string{"records_per_second", "mb_per_second", "cpu_seconds_per_million", "allocs_per_record", "peak_rss_mb",
		"objects_per_second", "commits_per_second", "ack_p50_ms", "ack_p99_ms", "ratio_to_lz4_limit"} {
		if v, ok := produced[figure].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v", figure, produced[figure])
		}
	}
	limits, _ := produced["limits"].(map[string]any)
	for _, figure := range []string{"lz4_mb_per_second", "append_fsync_mb_per_second", "object_commits_per_second", "metadata_commits_per_second"} {
		if v, ok := limits[figure].(float64); !ok || v <= 0 {
			t.Errorf("limit %s is %v", figure, limits[figure])
		}
	}
	consumed := decode[map[string]any](t, c.ok("", append([]string{"bench", "consume", "--output", "json"}, load...)...))
	if consumed["records"] != 3000.0 || consumed["topic"] != "bench-3-100" {
		t.Errorf("consumed %v", consumed)
	}
	// A second run begins anew.
	if got := c.ok("", append([]string{"bench", "produce"}, quick...)...); !strings.Contains(got, "produced 3000 records of 100 bytes to bench-3-100") {
		t.Errorf("the table is %s", got)
	}
	if got := c.ok("", append([]string{"bench", "consume"}, load...)...); !strings.Contains(got, "consumed 3000 records") {
		t.Errorf("the table is %s", got)
	}
	// Without sizes it reads what was produced last.
	c.ok("", "bench", "produce", "--records", "50", "--limit-time", "2ms", "--record-size", "200", "--partitions", "2")
	for _, test := range []struct{ flags, want string }{
		{"", "consumed 50 records of 200 bytes from bench-2-200"},
		{"--partitions 2", "consumed 50 records of 200 bytes from bench-2-200"},
		{"--record-size 100", "consumed 3000 records of 100 bytes from bench-3-100"},
	} {
		if got := c.ok("", append([]string{"bench", "consume"}, strings.Fields(test.flags)...)...); !strings.Contains(got, test.want) {
			t.Errorf("with %q the table is %s", test.flags, got)
		}
	}
	if got := c.fails(exitFail, "", "bench", "consume", "--record-size", "64"); !strings.Contains(got, "run bench produce") {
		t.Errorf("nothing to consume: %s", got)
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "bench-limits") {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestBench_LatencyComparesWithTheTwoCommits(t *testing.T) {
	c := newTool(t)
	r := decode[map[string]any](t, c.ok("", "bench", "latency", "--records", "20", "--output", "json"))
	p50, object, metadata := r["p50_ms"].(float64), r["object_commit_p50_ms"].(float64), r["metadata_commit_p50_ms"].(float64)
	if ratio := r["ratio_to_limit"].(float64); p50 <= 0 || r["p99_ms"].(float64) < p50 || ratio < 0.99*p50/(object+metadata)-0.01 || ratio > 1.01*p50/(object+metadata)+0.01 {
		t.Errorf("result is %v", r)
	}
	if got := c.ok("", "bench", "latency", "--records", "3"); !strings.Contains(got, "send p50") {
		t.Errorf("the table is %s", got)
	}
}

func TestBench_ThroughAgentsStandsBesideTheSameLoadWithoutThem(t *testing.T) {
	c := newTool(t)
	adminAt := make(chan string, 1) // holds the one line that says it
	agent := c.serving(func(line string) {
		if _, rest, ok := strings.Cut(line, " admin="); ok && strings.Contains(line, `msg="agent serves"`) {
			at, _, _ := strings.Cut(rest, " ")
			adminAt <- at
		}
	}, "--admin", "127.0.0.1:0")
	through := []string{"--agents", agent, "--data", filepath.Join(t.TempDir(), "beside"), "--output", "json"}
	admin := <-adminAt
	r := decode[map[string]any](t, c.ok("", append([]string{"bench", "produce", "--records", "3000", "--limit-time", "2ms", "--producers", "3", "--agent-metrics", admin}, through...)...))
	direct, used := r["direct"].(map[string]any), r["agents"].(map[string]any)
	figure := func(of map[string]any, name string, least float64) {
		if v, ok := of[name].(float64); !ok || v < least {
			t.Errorf("%s is %v, want at least %g", name, of[name], least)
		}
	}
	figure(direct, "records", 3000)
	figure(r, "ratio_to_direct", 0.0001)
	figure(r, "objects_per_second", 0.0001)
	figure(used, "objects", 1)
	figure(used, "commits", 1)
	figure(used, "stored_bytes", 100_000)
	figure(used, "cpu_seconds", 0)
	consumed := decode[map[string]any](t, c.ok("", append([]string{"bench", "consume"}, through...)...))
	if consumed["records"] != 3000.0 {
		t.Errorf("consumed %v", consumed)
	}
	l := decode[map[string]float64](t, c.ok("", append([]string{"bench", "latency", "--records", "20"}, through...)...))
	if l["direct_p50_ms"] <= 0 || l["ratio_to_direct"] <= 0 || l["tail_p99_ms"] < l["tail_p50_ms"] {
		t.Errorf("latencies are %v", l)
	}
	if got := c.fails(exitUsage, "", "bench", "produce", "--producers", "0"); !strings.Contains(got, "1 to 1000") {
		t.Errorf("no producers: %s", got)
	}
}
