// Package powerloss_test lets the machine lose its power, again and again, while
// the library writes, and checks that whatever was acknowledged is there afterwards. See
// package disk for what a loss of power does.
package powerloss_test

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
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

// machine is a disk, the process that uses it, and what that was told.
type machine struct {
	*disk.Disk
	history *history
	random  *rand.Rand
	dir     string
	config  childConfig
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
	return &machine{Disk: disk.New(), history: newHistory(), random: rand.New(rand.NewPCG(seed, 3)), dir: dir, config: config}
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

// cycle mounts the disk, runs a process on it until the change at, or its end
// if at is 0, and recovers the disk.
func (m *machine) cycle(at int) error {
	unmount, err := m.Mount(m.dir)
	if err != nil {
		return fmt.Errorf("mount: %w (is /dev/fuse there, and may this user mount?)", err)
	}
	crashed := m.CrashAt(at)
	broken := m.runChild(crashed, at > 0)
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

// runChild runs the process until it ends, or shortly after the power went, and
// holds what it says against the history.
func (m *machine) runChild(crashed <-chan struct{}, wantCrash bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"="+m.config.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	killed := make(chan bool, 1)
	go func() {
		timeout := time.NewTimer(childTimeout)
		defer timeout.Stop()
		select {
		case <-crashed:
			killed <- true
		case <-ended:
			killed <- false
			return
		case <-timeout.C:
			killed <- false
		}
		_ = cmd.Process.Kill()
	}()
	last, broken := m.listen(bufio.NewScanner(out))
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	close(ended)
	switch lostPower := <-killed; {
	case broken != nil:
		return broken
	case !lostPower && !crashedBy(crashed) && (wantCrash || last != "done"):
		return fmt.Errorf("the process ended by itself: %s", last)
	case lostPower:
		m.seen.crashes++
	}
	return nil
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
func (m *machine) listen(lines *bufio.Scanner) (last string, broken error) {
	lines.Buffer(nil, 1<<20)
	r := &round{read: make(map[place]string), ends: make(map[int]int)}
	for broken == nil && lines.Scan() {
		last = lines.Text()
		broken = m.history.take(r, last)
	}
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
