package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/app/verify"
)

func TestVerify_FindsDamageAndChangesNothing(t *testing.T) {
	c := newTool(t)
	for range 3 {
		// One line: more may go in one object or in several.
		c.ok("one\n", "produce", "orders", "--create", "--partitions", "2")
	}
	if got := c.ok("", "verify", "--records"); !strings.Contains(got, "no damage") || !strings.Contains(got, "3 of 3 objects") {
		t.Errorf("a whole log: %s", got)
	}
	files, err := filepath.Glob(filepath.Join(c.dir, "segments", "*", "*"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), whole...)
	damaged[60] ^= 4
	if err := os.WriteFile(files[0], damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(files[1]); err != nil {
		t.Fatal(err)
	}
	r := c.run("", "verify", "--output", "json")
	var report verify.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	kinds := make(map[verify.Kind]int)
	for _, p := range report.Problems {
		kinds[p.Kind]++
	}
	if r.code != exitFail || kinds[verify.MissingObject] != 1 || kinds[verify.CorruptObject] != 1 || report.ProblemCount != 2 {
		t.Errorf("exit code %d, %+v", r.code, report)
	}
	if r := c.run("", "verify"); r.code != exitFail || !strings.Contains(r.stdout, "topic orders partition") || !strings.Contains(r.stderr, "damaged") {
		t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if now, err := os.ReadFile(files[0]); err != nil || string(now) != string(damaged) {
		t.Errorf("verify changed the damaged file: %v", err)
	}
	r = c.run("", "verify", "--data", filepath.Join(c.dir, "nowhere"))
	if r.code != exitFail || !strings.Contains(r.stderr, "does not exist") {
		t.Errorf("of a folder that is not there: exit code %d, %s", r.code, r.stderr)
	}
}
