package blackbox_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestInterrupt_StoresWhatWasAccepted sends SIGTERM in the middle. The summary,
// the acknowledgements and the log then tell of the same lines, and the exit
// code says that it was not all.
func TestInterrupt_StoresWhatWasAccepted(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			dir := t.TempDir()
			cmd := command(t, dir, "produce", "ends", "--create", "--partitions", "3", "--acks", "--output", "json")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			acks, summary := interrupted(t, cmd, signal)
			if cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("exit code %d, want 1", cmd.ProcessState.ExitCode())
			}
			last := int64(0)
			for _, a := range acks {
				last = max(last, a.N)
			}
			if int64(len(acks)) != last || summary.Sent != last || summary.Failed != 0 {
				t.Errorf("%d acknowledgements, the last of line %d, and a summary of %+v", len(acks), last, summary)
			}
			want := fmt.Sprintf("streamhouse: interrupted after line %d; what was accepted before is stored\n", last)
			if stderr.String() != want {
				t.Errorf("said %q, want %q", &stderr, want)
			}
			logs := make(partitionLogs, 3)
			logs.catchUp(t, dir, "ends")
			logs.wantAcked(t, acks, func(n int64) string { return "line " + strconv.FormatInt(n, 10) })
			if stored := len(logs[0]) + len(logs[1]) + len(logs[2]); stored != len(acks) {
				t.Errorf("%d lines are stored, %d were acknowledged", stored, len(acks))
			}
		})
	}
}

type summary struct{ Sent, Failed int64 }

// interrupted feeds the process lines without end, sends it the signal once it
// has acknowledged a thousand of them, and returns all it said.
func interrupted(t *testing.T, cmd *exec.Cmd, signal syscall.Signal) (acks []ack, s summary) {
	t.Helper()
	stdin, stdout := pipes(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for n := 1; ; n++ {
			if _, err := fmt.Fprintf(stdin, "line %d\n", n); err != nil {
				return
			}
		}
	}()
	for out := bufio.NewReader(stdout); ; {
		line, err := out.ReadBytes('\n')
		if err != nil {
			break
		}
		if bytes.HasPrefix(line, []byte(`{"sent"`)) {
			if err := json.Unmarshal(line, &s); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			continue
		}
		var a ack
		if err := json.Unmarshal(line, &a); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if acks = append(acks, a); len(acks) == 1000 {
			if err := cmd.Process.Signal(signal); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait() // its exit code is looked at by the caller
	<-fed
	return acks, s
}

// TestClosedPipe_EndsQuietly is what `consume | head -1` does.
func TestClosedPipe_EndsQuietly(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, strings.Repeat("some line of some length\n", 200_000), "produce", "pipe", "--create")
	for _, args := range [][]string{{"consume", "pipe"}, {"consume", "pipe", "--output", "json"}, {"consume", "pipe", "--follow"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			cmd := command(t, dir, args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReaderSize(stdout, 16).ReadSlice('\n')
			if len(line) == 0 {
				t.Errorf("nothing came: %v", err)
			}
			if err := stdout.Close(); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
				t.Errorf("ended with %v and said %q, want a quiet end", err, &stderr)
			}
		})
	}
}

// TestClosedPipe_ProduceStoresWhatItAccepted closes the pipe of the
// acknowledgements: nobody can be told any more, which is a failure, but no record is lost
// that was accepted.
func TestClosedPipe_ProduceStoresWhatItAccepted(t *testing.T) {
	dir := t.TempDir()
	cmd := command(t, dir, "produce", "pipe", "--create", "--acks")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, stdout := pipes(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for n := 1; ; n++ {
			if _, err := fmt.Fprintf(stdin, "line %d\n", n); err != nil {
				return
			}
		}
	}()
	first, err := bufio.NewReaderSize(stdout, 64).ReadString('\n')
	if err != nil || first != "{\"n\":1,\"partition\":0,\"offset\":0}\n" {
		t.Errorf("the first acknowledgement is %q, %v", first, err)
	}
	if err := stdout.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	<-fed
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "the acknowledgements could not be written") {
		t.Errorf("exit code %d, said %q", cmd.ProcessState.ExitCode(), &stderr)
	}
	if got := must(t, dir, "", "consume", "pipe", "--max", "1").stdout; got != "line 1\n" {
		t.Errorf("the log begins with %q", got)
	}
}
