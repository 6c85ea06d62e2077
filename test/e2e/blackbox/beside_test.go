package blackbox_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestBeside_TwoProducersAndAFollower runs two produces on one folder at once,
// and a consume --follow in a third process that began before them.
func TestBeside_TwoProducersAndAFollower(t *testing.T) {
	const partitions = 5
	each := *lines / 4
	dir := t.TempDir()
	must(t, dir, "", "topic", "create", "beside", "--partitions", strconv.Itoa(partitions))
	follower := follow(t, dir, "beside")

	acks := make([][]ack, 2)
	var producers sync.WaitGroup
	for who := range acks {
		producers.Go(func() {
			var input strings.Builder
			for n := 1; n <= each; n++ {
				fmt.Fprintf(&input, "key-%d\t%s\n", n%101, besideValue(who, int64(n)))
			}
			out := must(t, dir, input.String(), "produce", "beside", "--acks", "--key-separator", `\t`)
			var err error
			if acks[who], err = readAcks(strings.NewReader(out.stdout)); err != nil {
				t.Error(err)
			}
		})
	}
	seen := follower.take(t, partitions, 2*each)
	producers.Wait()
	follower.stop(t)

	for who := range acks {
		if len(acks[who]) != each {
			t.Errorf("producer %d sent %d lines and was told of %d", who, each, len(acks[who]))
		}
		seen.wantAcked(t, acks[who], func(n int64) string { return besideValue(who, n) })
	}
	for session, n := range seen.wantSessionsInOrder(t) {
		if n != each {
			t.Errorf("the follower saw %d lines of producer %s, want %d", n, session, each)
		}
	}
	stored := make(partitionLogs, partitions)
	stored.catchUp(t, dir, "beside")
	for p := range stored {
		if len(stored[p]) != len(seen[p]) {
			t.Errorf("partition %d holds %d records, the follower saw %d", p, len(stored[p]), len(seen[p]))
		}
	}
}

func besideValue(who int, n int64) string { return fmt.Sprintf("%d/%d/some words", who, n) }

// follower is a running consume --follow.
type follower struct {
	out    *bufio.Reader
	end    func() error
	signal func() error
	stderr *bytes.Buffer
}

func follow(t *testing.T, dir, topic string) *follower {
	t.Helper()
	cmd := command(t, dir, "consume", topic, "--follow", "--output", "json")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{out: bufio.NewReaderSize(stdout, 1<<20), end: cmd.Wait, stderr: new(bytes.Buffer)}
	cmd.Stderr = f.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.signal = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return f
}

// take reads n records, each at the offset that is due in its partition.
func (f *follower) take(t *testing.T, partitions, n int) partitionLogs {
	t.Helper()
	seen := make(partitionLogs, partitions)
	for range n {
		line, err := f.out.ReadBytes('\n')
		var m message
		if err == nil {
			err = json.Unmarshal(line, &m)
		}
		if err != nil {
			t.Fatalf("the follower said %q: %v\n%s", line, err, f.stderr)
		}
		if m.Offset != int64(len(seen[m.Partition])) {
			t.Fatalf("the follower saw offset %d of partition %d, where %d was due", m.Offset, m.Partition, len(seen[m.Partition]))
		}
		seen[m.Partition] = append(seen[m.Partition], m.Value)
	}
	return seen
}

// stop asks the follower to end. It has nothing more to say, and ends well.
func (f *follower) stop(t *testing.T) {
	t.Helper()
	if err := f.signal(); err != nil {
		t.Fatal(err)
	}
	rest, readErr := io.ReadAll(f.out)
	if err := f.end(); err != nil || readErr != nil || len(rest) > 0 || f.stderr.Len() > 0 {
		t.Errorf("a follower that was asked to end: %v, %v, printed %q and %q", err, readErr, rest, f.stderr)
	}
}
