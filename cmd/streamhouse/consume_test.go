package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
)

func TestConsume_BeginsWhereItIsTold(t *testing.T) {
	c := newTool(t)
	in := ""
	for i := range 5 {
		in += fmt.Sprintf(`{"value":"v%d","timestamp":"2026-01-0%dT00:00:00Z"}`+"\n", i, i+1)
	}
	c.ok(in, "produce", "events", "--create", "--format", "json")
	for _, test := range []struct{ from, want string }{
		{"start", "v0 v1 v2 v3 v4"}, {"end", ""}, {"0", "v0 v1 v2 v3 v4"}, {"3", "v3 v4"}, {"5", ""},
		{"2026-01-03T00:00:00Z", "v2 v3 v4"}, {"2026-01-03T00:00:00.001Z", "v3 v4"}, {"2026-01-03T01:00:00+01:00", "v2 v3 v4"},
		{"2027-01-01T00:00:00Z", ""}, {"1990-01-01T00:00:00Z", "v0 v1 v2 v3 v4"},
	} {
		if got := strings.Join(lines(c.ok("", "consume", "events", "--from", test.from)), " "); got != test.want {
			t.Errorf("from %s gives %q, want %q", test.from, got, test.want)
		}
	}
	if got := c.ok("", "consume", "events", "--from", "1", "--max", "2"); got != "v1\nv2\n" {
		t.Errorf("at most two from 1 are %q", got)
	}
	for _, from := range []string{"6", "9223372036854775807"} {
		if got := c.fails(exitFail, "", "consume", "events", "--from", from); !strings.Contains(got, "out of range: it holds 0 up to 5") {
			t.Errorf("from %s says %q", from, got)
		}
	}
}

func TestConsume_ReadsTheGivenPartitionsOnly(t *testing.T) {
	c := newTool(t)
	c.ok("", "topic", "create", "events", "--partitions", "4")
	for p := range 4 {
		c.ok(fmt.Sprintf("p%d\n", p), "produce", "events", "--partition", fmt.Sprint(p))
	}
	if got := c.ok("", "consume", "events", "--partition", "2"); got != "p2\n" {
		t.Errorf("partition 2 is %q", got)
	}
	if got := len(lines(c.ok("", "consume", "events", "--partition", "1", "--partition", "3"))); got != 2 {
		t.Errorf("partitions 1 and 3 give %d records", got)
	}
	if got := c.fails(exitFail, "", "consume", "events", "--partition", "4"); !strings.Contains(got, "it has 4, numbered from 0") {
		t.Errorf("partition 4 says %q", got)
	}
}

func TestConsume_PrintsKeysThatProduceSplits(t *testing.T) {
	c := newTool(t)
	in := "k\tv\n\tempty key\nno key\n"
	c.ok(in, "produce", "events", "--create", "--key-separator", `\t`)
	if got := c.ok("", "consume", "events", "--key-separator", `\t`); got != in {
		t.Errorf("came back as %q", got)
	}
}

func TestConsume_EscapesOnATerminalOnly(t *testing.T) {
	m := domain.Message{Key: []byte("k\x1b"), Value: []byte("v\x1b[2J\xff\ttab")}
	raw := consumeJob{separator: []byte("\t")}
	if got := string(raw.format(nil, &m)); got != "k\x1b\tv\x1b[2J\xff\ttab" {
		t.Errorf("elsewhere it is %q", got)
	}
	shown := consumeJob{separator: []byte("\t"), terminal: true}
	if got := string(shown.format(nil, &m)); got != `k\x1b`+"\t"+`v\x1b[2J\xff`+"\ttab" {
		t.Errorf("on a terminal it is %q", got)
	}
}

func TestConsume_FollowsTwoProducersInOrder(t *testing.T) {
	c := newTool(t)
	c.ok("", "topic", "create", "events", "--partitions", "3")
	ctx, interrupt := context.WithCancel(context.Background())
	outR, outW := io.Pipe()
	done := make(chan result)
	go func() {
		done <- c.runWith(ctx, strings.NewReader(""), outW, "consume", "events", "--follow", "--output", "json")
		outW.Close()
	}()
	const each = 3000
	var producers sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		producers.Go(func() {
			var in strings.Builder
			for i := range each {
				fmt.Fprintf(&in, "%s-%d|%s-%d\n", name, i%5, name, i)
			}
			if r := c.run(in.String(), "produce", "events", "--key-separator", "|"); r.code != 0 {
				t.Errorf("producer %s: %s", name, r.stderr)
			}
		})
	}
	next, last, seen := map[int]int64{}, map[string]int{}, map[string]bool{}
	out := bufio.NewScanner(outR)
	for len(seen) < 2*each && out.Scan() {
		m := decode[message](t, out.Text())
		if m.Offset != next[m.Partition] || seen[*m.Value] {
			t.Fatalf("%+v comes, offset %d is next, seen before: %v", m, next[m.Partition], seen[*m.Value])
		}
		next[m.Partition]++
		seen[*m.Value] = true
		var i int
		if _, err := fmt.Sscanf((*m.Value)[2:], "%d", &i); err != nil || i < last[*m.Key] {
			t.Fatalf("key %s gives %s after %d", *m.Key, *m.Value, last[*m.Key])
		}
		last[*m.Key] = i
	}
	producers.Wait()
	interrupt()
	if r := <-done; r.code != exitOK || r.stderr != "" {
		t.Errorf("interrupted: exit code %d, %q", r.code, r.stderr)
	}
	if len(seen) != 2*each {
		t.Errorf("%d records came", len(seen))
	}
}

func TestConsume_FollowEndsAtMax(t *testing.T) {
	c := newTool(t)
	c.ok("1\n2\n3\n", "produce", "events", "--create")
	if got := c.ok("", "consume", "events", "--follow", "--max", "2"); got != "1\n2\n" {
		t.Errorf("gave %q", got)
	}
}

func TestConsume_InterruptedBeforeTheEndFails(t *testing.T) {
	c := newTool(t)
	c.ok("1\n2\n3\n", "produce", "events", "--create")
	ctx, interrupt := context.WithCancel(context.Background())
	interrupt()
	if r := c.runWith(ctx, strings.NewReader(""), nil, "consume", "events"); r.code != exitFail {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
}
