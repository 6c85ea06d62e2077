package blackbox_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

const killPartitions = 4

// TestKill_LeavesEveryAcknowledgedLineAtItsOffset kills produce -9 at random
// times, from its first instruction on, and reads the log after each death. Sessions
// are in turn without a name and with one.
func TestKill_LeavesEveryAcknowledgedLineAtItsOffset(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, "", "topic", "create", "kills", "--partitions", fmt.Sprint(killPartitions))
	logs := make(partitionLogs, killPartitions)
	random := rand.New(rand.NewPCG(*seed, 7))
	acked, withAcks := 0, 0
	for session := range *kills {
		acks := killedSession(t, dir, session, random)
		logs.catchUp(t, dir, "kills")
		logs.wantAcked(t, acks, func(n int64) string { return killValue(session, n) })
		acked += len(acks)
		if len(acks) > 0 {
			withAcks++
		}
		if t.Failed() {
			t.Fatalf("after session %d of seed %d", session, *seed)
		}
	}
	if withAcks < *kills/2 {
		t.Errorf("only %d of %d sessions got as far as an acknowledgement: the kills come too early to mean something", withAcks, *kills)
	}
	stored := 0
	for _, n := range logs.wantSessionsInOrder(t) {
		stored += n
	}
	again := make(partitionLogs, killPartitions)
	again.catchUp(t, dir, "kills")
	if !slices.EqualFunc(logs, again, slices.Equal[[]string]) {
		t.Error("a second reading of everything differs from the readings after each kill")
	}
	t.Logf("%d kills: %d lines acknowledged, %d stored", *kills, acked, stored)
}

func killValue(session int, n int64) string {
	return fmt.Sprintf("%d/%d/%s", session, n, strings.Repeat("x", int(n%90)))
}

// killedSession starts produce, feeds it without end, kills it and returns what
// it acknowledged.
func killedSession(t *testing.T, dir string, session int, random *rand.Rand) []ack {
	t.Helper()
	args := []string{"produce", "kills", "--acks", "--key-separator", `\t`}
	if session%2 == 1 {
		args = append(args, "--producer-name", "worker")
	}
	cmd := command(t, dir, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, stdout := pipes(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		feed(stdin, session)
	}()
	first := make(chan struct{})
	type result struct {
		acks []ack
		err  error
	}
	results := make(chan result, 1)
	go func() {
		out := bufio.NewReader(stdout)
		_, _ = out.Peek(1)
		close(first)
		acks, err := readAcks(out)
		results <- result{acks, err}
	}()
	if random.IntN(5) > 0 {
		<-first // else it may die while it opens
	}
	<-time.After(time.Duration(random.IntN(60_000)) * time.Microsecond)
	_ = cmd.Process.Kill()
	r := <-results
	err := cmd.Wait()
	<-fed
	if r.err != nil {
		t.Error(r.err)
	}
	if err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("produce ended before it was killed: %v\n%s", err, &stderr)
	}
	return r.acks
}

func pipes(t *testing.T, cmd *exec.Cmd) (io.WriteCloser, io.ReadCloser) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return stdin, stdout
}

// feedLimit bounds what one session sends, so that many kills stay readable.
// The input stays open after it: the process waits for more until it is killed.
const feedLimit = 40_000

func feed(stdin io.Writer, session int) {
	var buf []byte
	for n := int64(1); n <= feedLimit; n++ {
		buf = fmt.Appendf(buf, "key-%d\t%s\n", n%37, killValue(session, n))
		if n%100 != 0 {
			continue
		}
		if _, err := stdin.Write(buf); err != nil {
			return // it is dead
		}
		buf = buf[:0]
		<-time.After(100 * time.Microsecond) // so that kills meet it at work
	}
}
