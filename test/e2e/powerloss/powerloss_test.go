// Package powerloss_test lets the machine lose its power, again and again, while
// the library writes, and checks that whatever was acknowledged is there afterwards. See
// package disk for what a loss of power does.
package powerloss_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/test/e2e/powerloss/disk"
)

var (
	crashes = flag.Int("crashes", 25, "how often TestPowerLoss lets the power go")
	seed    = flag.Uint64("seed", 1, "seed of the crashes")
)

func TestMain(m *testing.M) {
	if arg := os.Getenv(childVariable); arg != "" {
		os.Exit(childMain(arg))
	}
	goleak.VerifyTestMain(m)
}

// cyclesPerDisk is how many losses of power a disk lives through before the
// next begins empty.
const cyclesPerDisk = 12

// maxChange is the latest change at which the power goes: about 60 commits.
const maxChange = 700

// childTimeout ends a process that neither crashes nor ends.
const childTimeout = 60 * time.Second

// machine is a disk, the processes that use it, and what those were told.
type machine struct {
	*disk.Disk
	random *rand.Rand
	dir    string
	config childConfig
	// processes is how many use the disk at the same time.
	processes int

	mu      sync.Mutex
	history *history
	seen    tally
}

// tally counts what a machine went through.
type tally struct {
	crashes, acked, checked, crashedEarly int
}

func (s *tally) add(o tally) {
	s.crashes += o.crashes
	s.acked += o.acked
	s.checked += o.checked
	s.crashedEarly += o.crashedEarly
}

func newMachine(dir string, seed uint64, config childConfig) *machine {
	config.dir, config.seed = dir, seed
	if config.unsafe == "" {
		config.dir += []string{"", "/data", "/new/data"}[seed%3] // folders that Open makes
	}
	return &machine{
		Disk: disk.New(), history: newHistory(), random: rand.New(rand.NewPCG(seed, 3)), dir: dir, config: config,
		processes: 1 + int(seed/3%2),
	}
}

// live runs cycles of power and its loss, then reads everything once more. It
// returns the first broken promise.
func (m *machine) live(cycles int) error {
	for cycle := 1; cycle <= cycles; cycle++ {
		at := 1 + m.random.IntN(maxChange)
		if m.random.IntN(4) == 0 {
			at = 1 + m.random.IntN(60) // while it opens
		}
		m.config.cycle, m.config.records = cycle, 1_000_000
		if err := m.cycle(at); err != nil {
			return fmt.Errorf("cycle %d, power lost at change %d: %w", cycle, at, err)
		}
	}
	m.config.cycle, m.config.records = cycles+1, 0
	if err := m.cycle(0); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	m.seen.acked = m.history.counted
	return nil
}

// cycle mounts the disk, runs processes on it until the change at, or one until
// its end if at is 0, and recovers the disk.
func (m *machine) cycle(at int) error {
	unmount, err := m.Mount(m.dir)
	if err != nil {
		return fmt.Errorf("mount: %w (is /dev/fuse there, and may this user mount?)", err)
	}
	broken := m.runChildren(m.CrashAt(at), at > 0)
	m.PullThePlug()
	if err := unmount(); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	var luck *rand.Rand
	if m.random.IntN(2) == 0 {
		luck = m.random
	}
	m.Recover(luck)
	return broken
}

// runChildren runs the processes of a cycle until they end, or shortly after the
// power went, and returns the first broken promise.
func (m *machine) runChildren(crashed <-chan struct{}, wantCrash bool) error {
	results := make(chan error, m.processes)
	alone := m.processes == 1 || !wantCrash
	running := 1
	if wantCrash {
		running = m.processes
	}
	rounds := make([]*round, running)
	for i := range rounds {
		rounds[i] = m.history.begin(alone)
	}
	for writer, r := range rounds {
		config := m.config
		config.writer = writer
		go func() { results <- m.runChild(config, r, crashed, wantCrash) }()
	}
	var first error
	for range running {
		if err := <-results; first == nil {
			first = err
		}
	}
	if crashedBy(crashed) {
		m.seen.crashes++
	}
	return first
}

// runChild runs one process and holds what it says against the history.
func (m *machine) runChild(config childConfig, r *round, crashed <-chan struct{}, wantCrash bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"="+config.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		return err
	}
	ended := make(chan struct{})
	killer := make(chan struct{})
	go func() {
		defer close(killer)
		timeout := time.NewTimer(childTimeout)
		defer timeout.Stop()
		select {
		case <-crashed:
		case <-ended:
		case <-timeout.C:
		}
		_ = cmd.Process.Kill()
	}()
	last, broken := m.listen(bufio.NewScanner(out), r)
	close(ended)
	<-killer
	_ = cmd.Wait()
	if broken == nil && !crashedBy(crashed) && (wantCrash || last != "done") {
		broken = fmt.Errorf("the process ended by itself: %s", last)
	}
	return broken
}

func crashedBy(crashed <-chan struct{}) bool {
	select {
	case <-crashed:
		return true
	default:
		return false
	}
}

// listen takes the process's lines until it ends or breaks a promise.
func (m *machine) listen(lines *bufio.Scanner, r *round) (last string, broken error) {
	lines.Buffer(nil, 1<<20)
	for broken == nil && lines.Scan() {
		last = lines.Text()
		m.mu.Lock()
		broken = m.history.take(r, last)
		m.mu.Unlock()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.checked {
		m.seen.checked++
	} else {
		m.seen.crashedEarly++
	}
	return last, broken
}

// survive runs machines until n losses of power are done, two at a time.
func survive(t *testing.T, n int, config childConfig) (tally, error) {
	t.Helper()
	type result struct {
		tally
		err error
	}
	var disks []int
	for ; n > 0; n -= cyclesPerDisk {
		disks = append(disks, min(n, cyclesPerDisk))
	}
	results := make(chan result, len(disks))
	slots := make(chan struct{}, 2)
	for i, cycles := range disks {
		dir := t.TempDir()
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			m := newMachine(dir, *seed*1000+uint64(i), config)
			err := m.live(cycles)
			if err != nil {
				err = fmt.Errorf("disk %d of -seed %d: %w", i, *seed, err)
			}
			results <- result{m.seen, err}
		}()
	}
	var (
		all   tally
		first error
	)
	for range disks {
		r := <-results
		all.add(r.tally)
		if first == nil {
			first = r.err
		}
	}
	return all, first
}

func TestPowerLoss_KeepsEveryAcknowledgedRecord(t *testing.T) {
	seen, err := survive(t, *crashes, childConfig{})
	t.Logf("%d losses of power, %d records acknowledged, %d complete reads, %d crashes before one", seen.crashes, seen.acked, seen.checked, seen.crashedEarly)
	if err != nil {
		t.Fatal(err)
	}
	if seen.crashes < *crashes*9/10 || seen.acked == 0 || seen.checked == 0 {
		t.Errorf("the test did not do its work")
	}
}

// The test of the test: without its syncs the library must be caught.
func TestPowerLoss_IsNoticedWithoutSyncs(t *testing.T) {
	for _, unsafe := range []string{"synchronous=NORMAL", "no_fsync"} {
		t.Run(unsafe, func(t *testing.T) {
			_, err := survive(t, cyclesPerDisk, childConfig{unsafe: unsafe})
			if err == nil {
				t.Fatalf("%d losses of power with %s lost nothing: the test is blind", cyclesPerDisk, unsafe)
			}
			if !strings.Contains(err.Error(), "lost") && !strings.Contains(err.Error(), "object not found") && !strings.Contains(err.Error(), "corrupt") {
				t.Errorf("it failed for another reason: %v", err)
			}
			t.Log(err)
		})
	}
}
