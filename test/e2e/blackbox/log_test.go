package blackbox_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

// ack is a line of produce --acks.
type ack struct {
	N         int64
	Partition int
	Offset    int64
}

// readAcks reads acknowledgements until the end. A last line that was cut off
// by a kill does not count: its reader never got it.
func readAcks(r io.Reader) (acks []ack, err error) {
	lines := bufio.NewReader(r)
	for {
		line, readErr := lines.ReadBytes('\n')
		if readErr != nil {
			return acks, err
		}
		a := ack{N: -1, Partition: -1, Offset: -1}
		if jsonErr := json.Unmarshal(line, &a); jsonErr != nil || a.N < 1 || a.Partition < 0 || a.Offset < 0 {
			err = fmt.Errorf("not an acknowledgement: %q", line)
			continue
		}
		acks = append(acks, a)
	}
}

// message is a line of consume --output json.
type message struct {
	Topic     string
	Partition int
	Offset    int64
	Timestamp string
	Key       *string
	Value     string
}

func readMessages(t *testing.T, stdout string) (messages []message) {
	t.Helper()
	for line := range strings.Lines(stdout) {
		m := message{Partition: -1, Offset: -1}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("consume printed %q: %v", line, err)
		}
		messages = append(messages, m)
	}
	return messages
}

// partitionLogs are the values of each partition by offset, as readers saw
// them.
type partitionLogs [][]string

// catchUp reads what is new in each partition, and fails the test unless its
// offsets go on where the last reading ended.
func (l partitionLogs) catchUp(t *testing.T, dir, topic string) {
	t.Helper()
	for p := range l {
		out := must(t, dir, "", "consume", topic, "--output", "json",
			"--partition", strconv.Itoa(p), "--from", strconv.Itoa(len(l[p])))
		for _, m := range readMessages(t, out.stdout) {
			if m.Partition != p || m.Offset != int64(len(l[p])) || m.Topic != topic {
				t.Fatalf("read %+v where offset %d of partition %d of %s was due", m, len(l[p]), p, topic)
			}
			l[p] = append(l[p], m.Value)
		}
	}
}

// wantAcked fails the test unless each acknowledged line is where its
// acknowledgement says.
func (l partitionLogs) wantAcked(t *testing.T, acks []ack, value func(n int64) string) {
	t.Helper()
	seen := make(map[int64]bool, len(acks))
	for _, a := range acks {
		if seen[a.N] {
			t.Errorf("line %d was acknowledged twice", a.N)
		}
		seen[a.N] = true
		switch want := value(a.N); {
		case a.Partition >= len(l) || a.Offset >= int64(len(l[a.Partition])):
			t.Errorf("line %d was acknowledged at offset %d of partition %d, which is not there", a.N, a.Offset, a.Partition)
		case l[a.Partition][a.Offset] != want:
			t.Errorf("line %d was acknowledged at offset %d of partition %d, where %.60q is instead of %.60q",
				a.N, a.Offset, a.Partition, l[a.Partition][a.Offset], want)
		}
	}
}

// wantSessionsInOrder fails the test if a line of a session is there twice, or
// before an earlier one of the same session. Values are "session/line/...".
func (l partitionLogs) wantSessionsInOrder(t *testing.T) (perSession map[string]int) {
	t.Helper()
	perSession = map[string]int{}
	seen := map[string]bool{}
	for p, values := range l {
		last := map[string]int64{}
		for offset, value := range values {
			session, rest, _ := strings.Cut(value, "/")
			text, _, _ := strings.Cut(rest, "/")
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				t.Fatalf("partition %d offset %d holds %q, which nobody sent", p, offset, value)
			}
			if id := session + "/" + text; seen[id] {
				t.Errorf("line %d of session %s is there twice, here at offset %d of partition %d", n, session, offset, p)
			} else {
				seen[id] = true
			}
			if n <= last[session] {
				t.Errorf("partition %d offset %d: line %d of session %s comes after its line %d", p, offset, n, session, last[session])
			}
			last[session] = n
			perSession[session]++
		}
	}
	return perSession
}
