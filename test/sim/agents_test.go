package sim

import (
	"flag"
	"testing"
	"time"
)

var (
	agentSeeds = flag.Int("agentseeds", 28, "how many seeds to run with agents")
	agentSeed  = flag.Int64("agentseed", -1, "run this seed only, with agents, and print its trace")
)

// TestSimulation_KeepsEveryPromiseThroughAgents has writers and followers go
// through two to five agents that crash, drain, are stopped, cut off and silent.
func TestSimulation_KeepsEveryPromiseThroughAgents(t *testing.T) {
	from, to := *first, *first+uint64(*agentSeeds)
	if *agentSeed >= 0 {
		from, to = uint64(*agentSeed), uint64(*agentSeed)+1
	}
	begin, steps, acked, reads, met := time.Now(), 0, 0, 0, map[string]int{}
	for s := from; s < to; s++ {
		r := Run(t, PlanWithAgents(s))
		steps, acked, reads = steps+r.Steps, acked+r.Acked, reads+r.Reads
		for _, e := range r.trace.entries {
			if _, ok := harms[e.did]; ok && e.actor[0] == 'a' {
				met[e.did]++
			}
		}
		if *agentSeed >= 0 {
			t.Log("\n" + r.Trace(-1))
		}
		if report(t, r, tailLines) {
			t.Logf("with agents: go test ./test/sim -run ThroughAgents -agentseed %d -v", s)
			return
		}
	}
	for did := range harms {
		if *agentSeeds >= 28 && *agentSeed < 0 && met[did] == 0 {
			t.Errorf("no agent %s in these runs", did)
		}
	}
	took := time.Since(begin)
	t.Logf("%d seeds in %v, %.0f a second: %d steps, %d records acknowledged, %d reads, agents %v", to-from, took.Round(time.Millisecond), float64(to-from)/took.Seconds(), steps, acked, reads, met)
}

// harms are what happens to agents, as a trace says it.
var harms = map[string]struct{}{"dies": {}, "is cut off": {}, "is stopped": {}, "is silent": {}, "is told to end": {}}
