//go:build mutants

package postgres

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

// sqlMutants are planted bugs of the function commit_segments: what is written
// in place of what.
var sqlMutants = map[string][2]string{
	"window of four":                {"ORDER BY c.age DESC, c.j DESC LIMIT 5", "ORDER BY c.age DESC, c.j DESC LIMIT 4"},
	"six batches remembered":        {"array_length(x.recent || excluded.recent, 1) - 4)", "array_length(x.recent || excluded.recent, 1) - 5)"},
	"repeats not looked up":         {"IF NOT fresh THEN\n", "IF false THEN\n"},
	"repeats in one call unknown":   {"WHERE a_b_stream[j] = s AND v_ext[j] > 0) c", "WHERE false) c"},
	"older epoch accepted":          {"IF a_b_epoch[i] = v_sess[s] AND f", "IF a_b_epoch[i] <= v_sess[s] AND f"},
	"older epoch unknown":           {"answer := -5;", "answer := -6;"},
	"gap accepted":                  {"ELSIF f = v_seq[s] THEN", "ELSIF f >= v_seq[s] THEN"},
	"forgotten taken for gap":       {"answer := -3;", "answer := -4;"},
	"circle gone round not noticed": {"m.total >= half OR m.seen AND", "false AND"},
	"session never expires":         {"CONTINUE WHEN v_active[i] > v_now - 86400000;", "CONTINUE;"},
	"expired name taken for gone":   {"IF fresh AND v_named[i] THEN", "IF false THEN"},
	"extent spans a refused batch":  {"IF p <> prev_p OR a_b_position[i] <> prev_end THEN", "IF p <> prev_p THEN"},
	"extent across segments":        {"prev_p := 0;", "prev_p := coalesce(prev_p, 0);"},
	"offset gap after a refusal":    {"v_out[i] := answer;", "v_out[i] := answer; v_next[p] := v_next[p] + 1;"},
	"replay decides again":          {"IF r.judged THEN", "IF false THEN"},
	"garbage committed":             {"ELSIF r.state = 1 THEN", "ELSIF r.state IN (1, 3) THEN"},
	"nothing live stays committed":  {"WHEN u.live > 0 THEN 2 ELSE 3 END", "ELSE 2 END"},
	"bytes not counted":             {"bytes = x.bytes + u.length", "bytes = x.bytes"},
}

func TestDifferential_KillsPlantedBugsOfTheFunction(t *testing.T) {
	script := string(must[[]byte](t)(migrations.ReadFile("migrations/00002_commit.sql")))
	_, rest, _ := strings.Cut(script, "-- +goose StatementBegin\n")
	function, _, _ := strings.Cut(rest, "-- +goose StatementEnd")
	function = strings.Replace(function, "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)
	stores := differing(t)[:1]
	commands := rapid.Custom(drawCommands)
	for name, change := range sqlMutants {
		t.Run(name, func(t *testing.T) {
			if strings.Count(function, change[0]) != 1 {
				t.Fatalf("%q is not once in the function", change[0])
			}
			stores[0].execute(t, strings.Replace(function, change[0], change[1], 1))
			defer stores[0].execute(t, function)
			for seed := range 600 {
				if found := difference(t, stores, commands.Example(seed)); found != "" {
					t.Logf("killed by run %d", seed)
					return
				}
				if stopped := stores[0].stopped.Load(); stopped != nil {
					stores[0].stopped.Store(nil)
					return
				}
			}
			t.Error("survived")
		})
	}
}

func TestDifferential_KillsThePlantedBugs(t *testing.T) {
	stores := differing(t)
	commands := rapid.Custom(drawCommands)
	for _, id := range []mutant.ID{mutantTrimKeepsSegment, "memory-replay-looked-up-not", "memory-live-count-not-lowered"} {
		t.Run(string(id), func(t *testing.T) {
			mutant.Set(id)
			defer mutant.Set("")
			for seed := range 500 {
				if found := difference(t, stores, commands.Example(seed)); found != "" {
					t.Logf("killed by run %d", seed)
					return
				}
			}
			t.Error("survived")
		})
	}
}
