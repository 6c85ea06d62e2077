//go:build mutants

package sim

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

var planted = flag.String("mutant", "", "the planted bug to hunt (used by TestMutants for its children)")

const (
	// killWithin is how many seeds a planted bug may survive.
	killWithin = 1000
	// childTimeout ends a hunt whose bug makes the run hang. That is a kill.
	childTimeout = 3 * time.Minute
)

// elsewhere are the packages whose planted bugs other tests kill: they are not
// part of a simulated run.
var elsewhere = []string{"adapters/cache", "adapters/localfs", "adapters/postgres", "adapters/sqlite", "ports/wake"}

// TestMutants plants one bug after the other in the code that the simulator
// runs, and demands that it is found. Each hunt is a process of its own, since some bugs
// end in a panic.
func TestMutants(t *testing.T) {
	ids := plantedBugs(t)
	if len(ids) < 20 {
		t.Errorf("only %d planted bugs are there: %v", len(ids), ids)
	}
	var (
		mu    sync.Mutex
		lines []string
		slots = make(chan struct{}, 2)
		hunts sync.WaitGroup
	)
	for _, id := range ids {
		hunts.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			how, killed := hunt(t, id)
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, fmt.Sprintf("%-40s %s", id, how))
			if !killed {
				t.Errorf("%s survived %d seeds: %s", id, killWithin, how)
			}
		})
	}
	hunts.Wait()
	slices.Sort(lines)
	t.Logf("%d planted bugs:\n%s", len(ids), strings.Join(lines, "\n"))
}

// TestMutants_WithoutOneAllSeedsPass makes sure that it is the bugs that the
// hunts find.
func TestMutants_WithoutOneAllSeedsPass(t *testing.T) {
	if how, killed := hunt(t, ""); killed {
		t.Error(how)
	}
}

// hunt runs seeds with the bug id planted, in another process.
func hunt(t *testing.T, id mutant.ID) (how string, killed bool) {
	ctx, cancel := context.WithTimeout(t.Context(), childTimeout)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestMutantChild$", "-test.v", "-mutant="+string(id))
	child.Env = append(os.Environ(), childMark+"=1")
	out, err := child.CombinedOutput()
	seed := lastSeed(out)
	switch {
	case err == nil:
		return fmt.Sprintf("not found in %s seeds", seed), false
	case ctx.Err() != nil:
		return "seed " + seed + ": the run hangs", true
	}
	for _, line := range strings.Split(string(out), "\n") {
		if at := strings.Index(line, killMark); at >= 0 {
			return "seed " + seed + ": " + line[at+len(killMark):], true
		}
	}
	for _, line := range strings.Split(string(out), "\n") {
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			return "seed " + seed + ": " + line, true
		}
	}
	return fmt.Sprintf("seed %s: %v", seed, err), !errors.Is(err, exec.ErrNotFound)
}

const (
	childMark = "STREAMHOUSE_SIM_HUNT"
	seedMark  = "@seed "
	killMark  = "killed by "
)

func lastSeed(out []byte) string {
	_, after, found := bytes.Cut(out[max(0, bytes.LastIndex(out, []byte(seedMark))):], []byte(seedMark))
	if !found {
		return "none"
	}
	seed, _, _ := bytes.Cut(after, []byte("\n"))
	return string(seed)
}

// TestMutantChild is one hunt; it does something in TestMutants' children only.
func TestMutantChild(t *testing.T) {
	if os.Getenv(childMark) == "" {
		return
	}
	mutant.Set(mutant.ID(*planted))
	draw := PlanOf
	if strings.HasPrefix(*planted, "grpc-") {
		draw = PlanWithAgents
	}
	for seed := range uint64(killWithin) {
		fmt.Printf("%s%d\n", seedMark, seed)
		if r := Run(t, draw(seed)); len(r.Violations) > 0 {
			fmt.Printf("%s%s\n", killMark, strings.Split(r.Violations[0], "\n")[0])
			t.FailNow()
		}
	}
}

// plantedBugs reads the ids of all planted bugs from the source: those declared as
// `name mutant.ID = "id"`. One declared as `name = mutant.ID("id")` is too rare in a
// simulated run, and the tests of its package kill it.
func plantedBugs(t *testing.T) []mutant.ID {
	declared := regexp.MustCompile(`mutant\.ID\s*=\s*"([^"]+)"`)
	var ids []mutant.ID
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || slices.Contains(elsewhere, filepath.ToSlash(filepath.Dir(rel))) {
			return nil
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(source, -1) {
			ids = append(ids, mutant.ID(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
