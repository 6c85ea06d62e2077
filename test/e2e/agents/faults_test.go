package agents_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/test/e2e/chaos"
	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

// TestAgents_FaultsOnEveryEdgeLoseNothing lets three agents work while, one after the
// other and in any order, agents are killed and stopped, their clients cut off from them, Postgres is
// killed and restarted, its connections are cut, and the bucket is away; all the while statements lose
// their answers and the bucket's requests fail before or after their effect, and the agents' janitors
// compact. Before all that nothing fails, and after it all heals.
func TestAgents_FaultsOnEveryEdgeLoseNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t, servers.Postgres(t))
	f.flags = []string{"--upkeep-interval", "1s", "--compact-after", "1s", "--delete-grace", "1m"}
	for range 3 {
		f.add().start()
	}
	run := f.run(3 * time.Second)
	f.someRecords(run, 200)
	if n := run.Failed.Load() + run.Unknown.Load() + run.Stored.Load(); n != 0 {
		t.Errorf("while all was well %d records failed: %s", n, &run.Counts)
	}
	s := &storm{fleet: f, random: rand.New(rand.NewPCG(*seed, 99)), happened: make(map[string]int)}
	s.rage(*duration)
	drained := run.Finish(t)
	t.Logf("%s; drained in %s", &run.Counts, drained.Round(time.Millisecond))
	t.Logf("%s", s)
	f.end()
}

// storm is what happens to a fleet.
type storm struct {
	*fleet
	random   *rand.Rand
	happened map[string]int
	postgres faultproxy.Counts
	s3       map[string]int
}

func (s *storm) String() string {
	cut := 0
	for _, a := range s.agents {
		cut += a.edge.Counts().Cut
	}
	return fmt.Sprintf("faults: %v; %d statements cut off before they ran, %d answers lost after; S3: %v; %d connections of clients cut",
		s.happened, s.postgres.CutBefore, s.postgres.Lost, s.s3, cut)
}

// rage lets each kind of fault happen, in any order, and again until d is over. Then all
// heals.
func (s *storm) rage(d time.Duration) {
	s.Helper()
	// Three agents ask less than the clients that they serve would.
	chaos.Spoil(s.toServer, s.toBucket, chaos.Chances{Request: 0.02, Statement: 0.02}, rand.New(rand.NewPCG(*seed, 98)))
	end := time.Now().Add(d)
	for all := s.kinds(); ; {
		for _, i := range s.random.Perm(len(all)) {
			s.moment(300 * time.Millisecond)
			all[i]()
		}
		if !time.Now().Before(end) {
			break
		}
	}
	s.toBucket.Clear()
	s.toServer.Intercept(nil)
	s.postgres, s.s3 = s.toServer.Counts(), s.toBucket.Faults()
}

func (s *storm) moment(most time.Duration) { rest(time.Duration(s.random.Int64N(int64(most)))) }

func (s *storm) count(what string, n int) { s.happened[what] += n }

// some are one, two or all of the agents.
func (s *storm) some() (hit []*agent) {
	for _, i := range s.random.Perm(len(s.agents))[:1+s.random.IntN(len(s.agents))] {
		hit = append(hit, s.agents[i])
	}
	return hit
}

func (s *storm) kinds() []func() {
	return []func(){s.killAgents, s.stopAgents, s.cutClients, s.silenceClients, s.cutStores, s.killPostgres, s.restartPostgres, s.loseBucket}
}

func (s *storm) killAgents() {
	s.Helper()
	hit := s.some()
	for _, a := range hit {
		a.kill()
	}
	s.count("agents killed", len(hit))
	s.moment(500 * time.Millisecond)
	for _, a := range hit {
		a.startSomehow()
	}
}

func (s *storm) stopAgents() {
	hit := s.some()
	for _, a := range hit {
		a.signal(syscall.SIGSTOP)
	}
	s.count("agents stopped", len(hit))
	s.moment(3 * time.Second)
	for _, a := range hit {
		a.signal(syscall.SIGCONT)
	}
}

// cutClients cuts the connections between clients and agents, and lets none
// come for a moment.
func (s *storm) cutClients() {
	s.Helper()
	hit := s.some()
	for _, a := range hit {
		a.edge.Down()
	}
	s.count("edges to agents cut", len(hit))
	s.moment(500 * time.Millisecond)
	for _, a := range hit {
		must(s.T, a.edge.Up())
	}
}

// silenceClients keeps what agents answer, and then cuts or delivers it.
func (s *storm) silenceClients() {
	hit := s.some()
	for _, a := range hit {
		a.edge.Freeze(faultproxy.ToClient)
	}
	s.count("edges to agents silent", len(hit))
	s.moment(3 * time.Second)
	for _, a := range hit {
		if s.random.IntN(2) == 0 {
			a.edge.Cut()
		}
		a.edge.Thaw()
	}
}

func (s *storm) cutStores() {
	s.toServer.Cut()
	s.count("all connections to Postgres cut", 1)
}

func (s *storm) killPostgres() {
	s.Helper()
	must(s.T, s.server.Kill9())
	s.count("Postgres killed", 1)
	s.moment(500 * time.Millisecond)
	must(s.T, s.server.Start())
}

func (s *storm) restartPostgres() {
	s.Helper()
	must(s.T, s.server.Restart())
	s.count("Postgres restarted", 1)
}

func (s *storm) loseBucket() {
	s.Helper()
	s.toBucket.Down()
	s.count("bucket away", 1)
	s.moment(time.Second)
	must(s.T, s.toBucket.Up())
}
