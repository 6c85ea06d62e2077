package sim

import (
	"flag"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	seeds    = flag.Int("seeds", 200, "how many seeds to run")
	first    = flag.Uint64("first", 0, "the first seed")
	repeated = flag.Int("repeated", 40, "how many seeds to run twice, to compare their traces")
	seed     = flag.Int64("seed", -1, "run this seed only and print its trace")
)

func TestMain(m *testing.M) {
	flag.Parse()
	// One processor, so that goroutines take turns in the same order every time.
	runtime.GOMAXPROCS(1)
	m.Run()
}

// tailLines is how much of a trace a failure prints.
const tailLines = 60

func TestSimulation_KeepsEveryPromise(t *testing.T) {
	if *seed >= 0 {
		r := Run(t, PlanOf(uint64(*seed)))
		t.Log("\n" + r.Trace(-1))
		report(t, r, 0)
		return
	}
	begin, steps, acked, reads, kept := time.Now(), 0, 0, 0, Kept{}
	for s := *first; s < *first+uint64(*seeds); s++ {
		r := Run(t, PlanOf(s))
		steps, acked, reads = steps+r.Steps, acked+r.Acked, reads+r.Reads
		kept.add(r.Kept)
		if report(t, r, tailLines) {
			return
		}
	}
	if *seeds >= 200 && min(kept.Retained, kept.Purged, kept.Deleted, kept.Swept, kept.Compacted) == 0 {
		t.Errorf("some work of janitors is not in these runs: %+v", kept)
	}
	took := time.Since(begin)
	t.Logf("%d seeds in %v, %.0f a second: %d steps, %d records acknowledged, %d reads, janitors %+v", *seeds, took.Round(time.Millisecond), float64(*seeds)/took.Seconds(), steps, acked, reads, kept)
}

// report fails t with what r has found, if anything.
func report(t *testing.T, r *Result, lines int) bool {
	t.Helper()
	if len(r.Violations) == 0 {
		return false
	}
	if lines > 0 {
		t.Logf("the end of the trace:\n%s", r.Trace(lines))
	}
	for _, v := range r.Violations {
		t.Errorf("seed %d (%s): %s", r.Plan.Seed, r.Plan.Mode, v)
	}
	t.Logf("replay: go test ./test/sim -run TestSimulation -seed %d -v", r.Plan.Seed)
	return true
}

// TestSimulation_SameSeedSameTrace runs seeds until two traces of each agree.
// Nearly always the first two do; but the runtime may interrupt a goroutine after 10 ms
// of a busy machine's time, and fires timers of one instant in any order.
func TestSimulation_SameSeedSameTrace(t *testing.T) {
	again := 0
	for s := range uint64(*repeated) {
		first := Run(t, PlanOf(s)).trace.canonical()
		for tries := 1; ; tries++ {
			next := Run(t, PlanOf(s)).trace.canonical()
			if slices.Equal(first, next) {
				break
			}
			if again++; tries == 4 && shuffled {
				break
			} else if tries == 4 {
				t.Fatalf("seed %d: five runs differ, the last ones here:\n%s", s, difference(first, next))
			}
			first = next
		}
	}
	if again > 2+*repeated/20 && !shuffled {
		t.Errorf("%d of %d runs had to be repeated: something in the run is not decided by the seed", again, *repeated)
	}
}

// difference shows where two traces part.
func difference(a, b []string) string {
	at := 0
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	around := func(lines []string) string {
		return strings.Join(lines[max(0, at-10):min(len(lines), at+10)], "\n")
	}
	return "--- first\n" + around(a) + "\n--- second\n" + around(b)
}
