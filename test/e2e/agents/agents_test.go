// Package agents_test runs the built binary as a group of agents on Postgres and
// S3, kills, stops and restarts them under load, and checks what their clients saw.
package agents_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/adapters/postgres"
	"github.com/streamhouse/streamhouse/adapters/s3"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/test/e2e/chaos"
	"github.com/streamhouse/streamhouse/test/e2e/loopback"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

var (
	duration = flag.Duration("duration", 10*time.Second, "how long the agents fail")
	seed     = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what the writers do and when what fails")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Main(m)) }

// build makes the binary, once.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "streamhouse-agents-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "streamhouse")
	if out, err := exec.Command("go", "build", "-o", binary, "../../../cmd/streamhouse").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

// fleet is a group of agents on one pair of stores.
type fleet struct {
	*testing.T
	binary   string
	metadata string // URL
	segments string
	agents   []*agent
	store    *chaos.Reach // for what the tests do themselves
}

// agent is one process, and the next ones at its address.
type agent struct {
	fleet   *fleet
	address string
	cmd     *exec.Cmd
	said    strings.Builder
	done    chan struct{} // closed when the process has ended and all was read
	err     error         // of Wait, after done
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	gateway, bucket := servers.Bucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", gateway.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", gateway.SecretKey)
	f := &fleet{
		T: t, binary: binary, metadata: servers.Database(t),
		segments: fmt.Sprintf("s3://%s/log?endpoint=%s&path_style=true&region=%s", bucket, gateway.Endpoint, gateway.Region),
	}
	cfg, err := s3.ParseURL(f.segments)
	if err != nil {
		t.Fatal(err)
	}
	segments, err := s3.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	metadata, err := postgres.Open(t.Context(), f.metadata, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f.store = &chaos.Reach{Metadata: metadata, Segments: segments}
	t.Cleanup(func() {
		if err := f.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := metadata.CreateTopic(t.Context(), domain.TopicSpec{Name: "orders", Partitions: 6}); err != nil {
		t.Fatal(err)
	}
	for range n {
		port, err := loopback.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		a := &agent{fleet: f, address: loopback.Addr(port)}
		f.agents = append(f.agents, a)
		a.start()
	}
	t.Cleanup(func() {
		for _, a := range f.agents {
			a.kill()
		}
	})
	return f
}

// start starts the agent's next process, and waits until it serves.
func (a *agent) start() {
	f := a.fleet
	f.Helper()
	a.cmd = exec.Command(f.binary, "serve", "--listen", a.address, "--admin", "none", "--metadata", f.metadata,
		"--segments", f.segments, "--flush-interval", "20ms", "--drain-timeout", "20s")
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := a.cmd.StderrPipe()
	if err != nil {
		f.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		f.Fatal(err)
	}
	serves, done := make(chan struct{}), make(chan struct{})
	a.done = done
	go func() {
		defer close(done)
		lines, told := bufio.NewScanner(pipe), false
		for lines.Scan() {
			a.said.WriteString(lines.Text() + "\n")
			if !told && strings.Contains(lines.Text(), "agent serves") {
				told = true
				close(serves)
			}
		}
		a.err = a.cmd.Wait()
	}()
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-serves:
	case <-done:
		f.Fatalf("the agent at %s ended: %v\n%s", a.address, a.err, a.said.String())
	case <-timer.C:
		f.Fatalf("the agent at %s does not serve", a.address)
	}
}

func (a *agent) signal(s syscall.Signal) { _ = a.cmd.Process.Signal(s) } // it may have ended

func (a *agent) kill() {
	a.signal(syscall.SIGKILL)
	<-a.done
}

// drain ends the process in order, and demands that it went well.
func (a *agent) drain() {
	a.fleet.Helper()
	a.signal(syscall.SIGTERM)
	<-a.done
	if a.err != nil {
		a.fleet.Errorf("the agent at %s did not end well: %v\n%s", a.address, a.err, a.said.String())
	}
}

// reach is what a client of its own has: the addresses.
func (f *fleet) reach(ctx context.Context) (*chaos.Reach, error) {
	cfg := grpc.DefaultClientConfig()
	for _, a := range f.agents {
		cfg.Addresses = append(cfg.Addresses, a.address)
	}
	c, err := grpc.Dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &chaos.Reach{Agents: c}, nil
}

func (f *fleet) run(t *testing.T) *chaos.Run {
	t.Helper()
	t.Logf("seed %d, %s", *seed, *duration)
	return chaos.Start(t, chaos.Config{
		Open: f.reach, Topic: "orders", Partitions: 6, Writers: 6, Readers: 2,
		Pace: 10 * time.Millisecond, Burst: 20, Lives: 20 * time.Second, Seed: *seed,
	})
}

// rest lets time pass: what happens to the agents comes at moments.
func rest(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// TestAgents_KilledAndStoppedUnderLoadLoseNothing kills one, two or all of three
// agents with SIGKILL, or stops them for a while and lets them go on.
func TestAgents_KilledAndStoppedUnderLoadLoseNothing(t *testing.T) {
	f := newFleet(t, 3)
	run := f.run(t)
	random := rand.New(rand.NewPCG(*seed, 7))
	kills, stops := 0, 0
	for end := time.Now().Add(*duration); time.Now().Before(end); {
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
	if run.Acked.Load() < 1000 || kills+stops == 0 {
		t.Error("hardly anything happened")
	}
	chaos.Inspect(t, f.store.Metadata, f.store.Segments)
}

// TestAgents_RollingRestartFailsNoSend drains one agent after the other, as an
// upgrade does: no record fails, and none is in doubt.
func TestAgents_RollingRestartFailsNoSend(t *testing.T) {
	f := newFleet(t, 3)
	run := f.run(t)
	restarts := 0
	for end := time.Now().Add(*duration); time.Now().Before(end); restarts++ {
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
	chaos.Inspect(t, f.store.Metadata, f.store.Segments)
	for _, a := range f.agents {
		a.drain()
	}
}
