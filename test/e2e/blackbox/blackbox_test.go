// Package blackbox_test runs the built command as its users do: processes that
// are killed, interrupted, run beside each other and out of disk space. It knows the
// command by its flags and its output only.
package blackbox_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	kills = flag.Int("kills", 10, "how many processes TestKill kills")
	lines = flag.Int("lines", 50_000, "how many lines TestFile sends")
	seed  = flag.Uint64("seed", 1, "seed of what is random")
)

// binary is the command, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	folder, err := os.MkdirTemp("", "blackbox")
	if err == nil {
		binary = filepath.Join(folder, "streamhouse")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, "../../../cmd/streamhouse").CombinedOutput(); err != nil {
			err = fmt.Errorf("build the command: %w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(folder)
		os.Exit(code)
	}))
}

// patience ends a process that hangs, so that its test fails and says so.
const patience = 5 * time.Minute

// command makes a process of the command whose working folder is dir. It is
// killed when the test ends or takes too long.
func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = dir
	cmd.Env = environment()
	return cmd
}

// environment is the test's own without settings of the command.
func environment() []string {
	var kept []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "STREAMHOUSE_") {
			kept = append(kept, v)
		}
	}
	return kept
}

// output is what a process left.
type output struct {
	stdout, stderr string
	exit           int
	maxRSS         int64 // bytes, nearly: what a look every 10 ms has seen
}

// run runs the command to its end.
func run(t *testing.T, dir, stdin string, args ...string) output {
	t.Helper()
	cmd := command(t, dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	used := runWatched(t, cmd)
	return output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), used}
}

// runWatched runs cmd to its end, whatever that is, and returns the most memory
// it held. (What the kernel tells at a child's end is no use: it counts the
// moment between fork and exec, when the child has its parent's memory.)
func runWatched(t *testing.T, cmd *exec.Cmd) (maxRSS int64) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		look := time.NewTicker(10 * time.Millisecond)
		defer look.Stop()
		for {
			select {
			case <-ended:
				return
			case <-look.C:
				maxRSS = max(maxRSS, highWaterMark(cmd.Process.Pid))
			}
		}
	}()
	_ = cmd.Wait() // the callers look at the exit code
	close(ended)
	<-watched
	return maxRSS
}

// highWaterMark is the most memory that a process has held, 0 if it is gone.
func highWaterMark(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
		return 0
	}
	return kib << 10
}

// must runs the command and fails the test unless it succeeds.
func must(t *testing.T, dir, stdin string, args ...string) output {
	t.Helper()
	out := run(t, dir, stdin, args...)
	if out.exit != 0 {
		t.Fatalf("streamhouse %s: exit code %d\n%s", strings.Join(args, " "), out.exit, out.stderr)
	}
	return out
}
