package agents_test

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
)

// usage is what a process uses, by its metrics.
type usage struct{ goroutines, files, heap float64 }

// usage asks an agent's metrics. Heap is the bytes of live and dead objects.
func (a *agent) usage() (u usage, err error) {
	status, text, err := a.get("/metrics")
	if err != nil || status != 200 {
		return u, errors.Join(err, fmt.Errorf("metrics: status %d", status))
	}
	found := 0
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		to := map[string]*float64{
			"go_goroutines": &u.goroutines, "process_open_fds": &u.files, "go_memstats_heap_alloc_bytes": &u.heap,
		}[name]
		if to == nil {
			continue
		}
		if *to, err = strconv.ParseFloat(value, 64); err != nil {
			return u, err
		}
		found++
	}
	if found != 3 {
		return u, fmt.Errorf("%d of 3 metrics in %q", found, text)
	}
	return u, nil
}

// What an agent may use more after a load than before it: connections to its
// stores that it keeps.
const (
	moreGoroutines = 24
	moreFiles      = 24
	moreHeap       = 64 << 20
)

// TestAgents_UseNoMoreAfterALoadThanBefore has clients come, send, read and go, in
// two parts of which the second one is three times as long. What agents use is the same after
// each, and while the second one lasts it does not grow.
func TestAgents_UseNoMoreAfterALoadThanBefore(t *testing.T) {
	t.Parallel()
	f := fleetOf(t, 2)
	before := f.load("warm", *duration/4)
	after := f.load("steady", *duration*3/4)
	for i, a := range f.agents {
		// What the last clients held goes with them, and a moment later.
		eventually(t, "at rest an agent uses what it used before", func() error {
			u, err := a.usage()
			if err != nil {
				return err
			}
			if u.goroutines > before[i].goroutines+moreGoroutines || u.files > before[i].files+moreFiles {
				return fmt.Errorf("%+v at rest, before it was %+v", u, before[i])
			}
			after[i].goroutines, after[i].files = u.goroutines, u.files
			return nil
		})
		t.Logf("agent %d: at rest after the first load %s, after the second %s", i, before[i], after[i])
		if after[i].heap > 2*before[i].heap+moreHeap {
			t.Errorf("agent %d: the heap has grown: %s, before it was %s", i, after[i], before[i])
		}
	}
	f.end()
}

func (u usage) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f files, %.1f MiB of heap", u.goroutines, u.files, u.heap/(1<<20))
}

// load lets clients of a topic come and go for d and at least some, and returns what each
// agent uses when they have gone: what it comes to rest at, and the smallest heap of the second half
// of the time, because the largest depends on when the collector runs.
func (f *fleet) load(topic string, d time.Duration) []usage {
	f.Helper()
	_, err := f.store.Metadata.CreateTopic(f.Context(), domain.TopicSpec{Name: topic, Partitions: partitions})
	must(f.T, err)
	run := f.runOn(topic, 500*time.Millisecond)
	began := time.Now()
	rest(d / 2)
	f.someRecords(run, 200)
	used := make([]usage, len(f.agents))
	for half := time.Now(); ; {
		for i, a := range f.agents {
			u, err := a.usage()
			must(f.T, err)
			if used[i].heap == 0 || u.heap < used[i].heap {
				used[i].heap = u.heap
			}
		}
		rest(100 * time.Millisecond)
		if time.Since(began) >= d && time.Since(half) >= d/2 {
			break
		}
	}
	run.Finish(f.T)
	f.Logf("%s", &run.Counts)
	for i, a := range f.agents {
		eventually(f.T, "the clients' connections end", func() error {
			if n := a.status().Connections; n != 0 {
				return fmt.Errorf("there are %d", n)
			}
			return nil
		})
		u, err := a.usage()
		must(f.T, err)
		used[i].goroutines, used[i].files = u.goroutines, u.files
	}
	return used
}
