// Package agents_test runs the built binary as a group of agents on Postgres and
// S3, with proxies that fail on every edge; it kills, stops, cuts off and restarts them under load,
// and checks what their clients saw.
package agents_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

var (
	duration = flag.Duration("duration", 3*time.Second, "how long everything fails; other tests take a part of it")
	lines    = flag.Int("lines", 40_000, "how many lines produce sends while agents are killed")
	pause    = flag.Duration("pause", 2*time.Second, "how long an agent is stopped whose entry in the list has ended")
	older    = flag.String("older", "", "the binary of an earlier release, `FILE`, to run beside this one (default: this one under another version)")
	seed     = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what the writers do and when what fails")
)

// together is how many of the tests run at the same time: they wait more than
// they work.
const together = "4"

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", together); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(servers.Main(m), goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(built.folder); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}))
}

// built are the binaries that were made, by their versions.
var built struct {
	sync.Mutex
	folder string
	paths  map[string]string
}

// binary builds the command of a version, once. The empty version is what Go
// makes of it.
func binary(t *testing.T, version string) string {
	t.Helper()
	path, err := build(version)
	must(t, err)
	return path
}

func build(version string) (path string, err error) {
	built.Lock()
	defer built.Unlock()
	if path := built.paths[version]; path != "" {
		return path, nil
	}
	if built.folder == "" {
		if built.folder, err = os.MkdirTemp("", "streamhouse-agents-"); err != nil {
			return "", err
		}
		built.paths = make(map[string]string)
	}
	path = filepath.Join(built.folder, "streamhouse"+version)
	args := []string{"build", "-buildvcs=false", "-o", path}
	if version != "" {
		args = append(args, "-ldflags", "-X main.stampedVersion="+version+" -X main.stampedRevision=0000000000000000000000000000000000000000")
	}
	if out, err := exec.Command("go", append(args, "../../../cmd/streamhouse")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the command: %w\n%s", err, out)
	}
	built.paths[version] = path
	return path, nil
}

// environment is the test's own without settings of the command, and with the
// keys of the bucket.
func environment(more ...string) []string {
	var kept []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "STREAMHOUSE_") {
			kept = append(kept, v)
		}
	}
	return append(kept, more...) // the last one of a name counts
}

// rest lets time pass: what happens to the agents comes at moments.
func rest(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// patience is longer than anything takes on a machine that has much else to do.
const patience = 2 * time.Minute

// eventually asks what is so until it is as the test wants it, and fails the
// test if that takes too long.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	err := errors.New("not asked")
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
		if err = ask(); err != nil {
			rest(50 * time.Millisecond)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v after %s", what, err, patience)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
