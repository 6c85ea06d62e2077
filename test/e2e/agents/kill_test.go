package agents_test

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// TestAgents_KilledAndStoppedUnderLoadLoseNothing kills one, two or all of three
// agents with SIGKILL, or stops them for a while and lets them go on.
func TestAgents_KilledAndStoppedUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	f := fleetOf(t, 3)
	run := f.run(20 * time.Second)
	random := rand.New(rand.NewPCG(*seed, 7))
	kills, stops := 0, 0
	for end := time.Now().Add(*duration / 4); time.Now().Before(end); {
		rest(500*time.Millisecond + time.Duration(random.Int64N(int64(time.Second))))
		hit := random.Perm(3)[:1+random.IntN(3)]
		if random.IntN(2) == 0 {
			for _, i := range hit {
				f.agents[i].kill()
				kills++
			}
			rest(time.Duration(random.Int64N(int64(500 * time.Millisecond))))
			for _, i := range hit {
				f.agents[i].start()
			}
			continue
		}
		for _, i := range hit {
			f.agents[i].signal(syscall.SIGSTOP)
			stops++
		}
		rest(time.Duration(random.Int64N(int64(3 * time.Second))))
		for _, i := range hit {
			f.agents[i].signal(syscall.SIGCONT)
		}
	}
	drained := run.Finish(t)
	t.Logf("%s; killed %d, stopped %d; drained in %s", &run.Counts, kills, stops, drained.Round(time.Millisecond))
	if run.Acked.Load() < 100 || kills+stops == 0 {
		t.Error("hardly anything happened")
	}
	f.end()
}

// TestAgents_RollingRestartFailsNoSend drains one agent after the other, as an
// upgrade does: no record fails, and none is in doubt.
func TestAgents_RollingRestartFailsNoSend(t *testing.T) {
	t.Parallel()
	f := fleetOf(t, 3)
	run := f.run(20 * time.Second)
	restarts := 0
	for end := time.Now().Add(*duration / 4); time.Now().Before(end); restarts++ {
		rest(300 * time.Millisecond)
		a := f.agents[restarts%len(f.agents)]
		a.drain()
		a.start()
	}
	run.Finish(t)
	t.Logf("%s; restarted %d", &run.Counts, restarts)
	if n := run.Failed.Load() + run.Unknown.Load() + run.Stored.Load(); n != 0 || run.Acked.Load() != run.Sent.Load() {
		t.Errorf("%d of %d records were not acknowledged", n, run.Sent.Load())
	}
	f.end()
}
