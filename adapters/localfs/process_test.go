package localfs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/ports"
)

const childVariable = "STREAMHOUSE_LOCALFS_CHILD"

// TestMain turns the test binary into one of several processes that use one
// folder, when a test asks for it.
func TestMain(m *testing.M) {
	switch role, args, _ := strings.Cut(os.Getenv(childVariable), ":"); role {
	case "race":
		childRace(args)
	case "hold":
		childHold(args)
	default:
		goleak.VerifyTestMain(m)
	}
}

// startChild starts this binary in a role and returns its ends. It is killed at
// the end of t.
func startChild(t *testing.T, role, args string) (stdin io.WriteCloser, stdout *bufio.Scanner, kill func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"="+role+":"+args)
	cmd.Stderr = os.Stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	ended := false
	kill = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	return in, bufio.NewScanner(out), kill
}

func childStore(dir string) *Store {
	s, err := Open(dir, Options{})
	if err != nil {
		panic(err)
	}
	return s
}

const raceKeys = 60

func raceBody(writer string, i int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%s %d;", writer, i)), 300+i)
}

// childRace puts all keys with bytes of its own, and prints those it has won.
func childRace(args string) {
	writer, dir, _ := strings.Cut(args, "@")
	s := childStore(dir)
	s.named.Store(writer == "w1") // both ways at once
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	for i := range raceKeys {
		switch err := s.Put(context.Background(), fmt.Sprintf("segments/%02x/%d", i%16, i), raceBody(writer, i)); {
		case err == nil:
			fmt.Println(i)
		case !errors.Is(err, ports.ErrObjectExists):
			panic(err)
		}
	}
	fmt.Println("done")
}

func TestPut_OfOneKeyByManyProcessesHasOneWinner(t *testing.T) {
	dir := t.TempDir()
	const writers = 4
	var (
		starts []io.Writer
		outs   []*bufio.Scanner
	)
	for w := range writers {
		in, out, _ := startChild(t, "race", fmt.Sprintf("w%d@%s", w, dir))
		if !out.Scan() || out.Text() != "ready" {
			t.Fatalf("child %d said %q", w, out.Text())
		}
		starts, outs = append(starts, in), append(outs, out)
	}
	for _, in := range starts {
		fmt.Fprintln(in, "go")
	}
	winners := map[int]string{}
	for w, out := range outs {
		for out.Scan() && out.Text() != "done" {
			var i int
			if _, err := fmt.Sscan(out.Text(), &i); err != nil {
				t.Fatal(err)
			}
			if other, won := winners[i]; won {
				t.Errorf("key %d was won by %s and w%d", i, other, w)
			}
			winners[i] = fmt.Sprintf("w%d", w)
		}
	}
	if len(winners) != raceKeys {
		t.Fatalf("%d of %d keys were won", len(winners), raceKeys)
	}
	s := openIn(t, dir)
	for i, writer := range winners {
		want := raceBody(writer, i)
		got, err := s.ReadRange(t.Context(), fmt.Sprintf("segments/%02x/%d", i%16, i), 0, int64(len(want)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("key %d does not hold what its winner %s put: %v", i, writer, err)
		}
	}
}

// childHold has a Put under way, until it is killed.
func childHold(dir string) {
	s := childStore(dir)
	f, err := s.createNamed()
	if err != nil {
		panic(err)
	}
	fmt.Println(f.temporary)
	_, _ = io.Copy(io.Discard, os.Stdin)
	_, _ = f.WriteString("still here") // keeps f, and its lock, until now
}

func TestOpen_RemovesUnfinishedPutsOfDeadProcessesOnly(t *testing.T) {
	dir := t.TempDir()
	_, out, kill := startChild(t, "hold", dir)
	if !out.Scan() {
		t.Fatal("the child has no temporary")
	}
	temporary := out.Text()
	if filepath.Dir(temporary) != filepath.Join(dir, temporaries) {
		t.Fatalf("the child said %q", temporary)
	}
	openIn(t, dir)
	if _, err := os.Stat(temporary); err != nil {
		t.Fatalf("the temporary of a living process: %v", err)
	}
	kill()
	openIn(t, dir)
	if _, err := os.Stat(temporary); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary of a dead process is still there: %v", err)
	}
}

func TestCreate_StartsAgainIfASweepTakesItsTemporary(t *testing.T) {
	s := openNamed(t)
	f, err := s.createNamed()
	if err != nil {
		t.Fatal(err)
	}
	defer f.discard()
	if err := os.Remove(f.temporary); err != nil {
		t.Fatal(err)
	}
	if ours, err := lock(f.File); ours || err != nil {
		t.Errorf("a file whose name is gone was locked as ours: %v", err)
	}
}
