package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// serving runs an agent until the test ends and returns where clients reach it.
// Its lines on standard error go on to the given function.
func (c *tool) serving(line func(string), args ...string) (address string) {
	c.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	read, write := io.Pipe()
	ended, reading := make(chan int, 1), make(chan struct{})
	go func() {
		code := run(ctx, invocation{
			args:    append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "none"}, args...),
			environ: append([]string{"STREAMHOUSE_DATA=" + c.dir}, c.env...),
			stdin:   strings.NewReader(""), stdout: io.Discard, stderr: write,
		})
		_ = write.Close() // always nil
		ended <- code
	}()
	found := make(chan string, 1)
	go func() {
		defer close(reading)
		defer close(found)
		for lines := bufio.NewScanner(read); lines.Scan(); {
			if at, ok := addressOf(lines.Text()); ok {
				found <- at
			}
			if line != nil {
				line(lines.Text())
			}
		}
	}()
	c.t.Cleanup(func() {
		stop()
		if code := <-ended; code != exitOK {
			c.t.Errorf("serve ended with %d", code)
		}
		<-reading
	})
	address, ok := <-found
	if !ok {
		c.t.Fatal("serve has ended")
	}
	return address
}

func TestStatus_ShowsAgentsLoopsAndTopics(t *testing.T) {
	c := newTool(t)
	address := c.serving(nil, "--zone", "eu-1")
	long := strings.Repeat("long-", 40)
	c.ok("", "topic", "create", long, "--agents", address)
	c.ok("a\nb\nc\n", "produce", "orders", "--create", "--agents", address)
	for _, way := range [][]string{{"--agents", address}, {}} { // through the agent, and beside it
		var got statusJSON
		out := c.ok("", append([]string{"status", "--interval", "10ms", "--output", "json"}, way...)...)
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if len(got.Agents) != 1 || got.Agents[0].Address != address || got.Agents[0].Zone != "eu-1" || got.Agents[0].Error != "" {
			t.Fatalf("agents %+v", got.Agents)
		}
		answer := got.Agents[0].Status
		if answer.Batches < 1 || answer.BatchBytes < 1 || answer.ByteRate == nil || answer.Connections < 1 {
			t.Errorf("the agent says %+v", answer)
		}
		var loops []string
		for _, l := range answer.Loops {
			loops = append(loops, l.Loop)
		}
		if !slices.Equal(loops, loopColumns) {
			t.Errorf("loops %v, want %v: each has a column", loops, loopColumns)
		}
		if i := slices.IndexFunc(got.Topics, func(t topicJSON) bool { return t.Topic == "orders" }); i < 0 || got.Topics[i].Records != 3 || got.Topics[i].RecordRate == nil || *got.Topics[i].RecordRate != 0 {
			t.Errorf("topics %+v", got.Topics)
		}
	}
	text := c.ok("", "status", "--interval", "0s")
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > statusWidth {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
	for _, want := range []string{"1 agent\n", address, "serving", "LAST PASS OF", "orders", "long-long-", "…"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

func TestStatus_RefusesAnIntervalThatItCannotWaitFor(t *testing.T) {
	c := newTool(t)
	for _, interval := range []string{"x", "-1s", "2h", ""} {
		c.fails(exitUsage, "", "status", "--interval", interval)
	}
}

// sample is a look at one agent and one topic.
func sample(at time.Time, batchBytes, high, start, stored int64) *look {
	return &look{
		agents:  []ports.Agent{{ID: ports.AgentID{1}}},
		answers: []answer{{AgentStatus: ports.AgentStatus{BatchBytes: batchBytes}, at: at}},
		topics: []topicLook{{at: at, Description: topics.Description{
			Topic:  domain.Topic{ID: domain.TopicID{1}, Name: "orders", Partitions: 1},
			States: []domain.PartitionState{{LogStart: domain.Offset(start), HighWatermark: domain.Offset(high), Bytes: stored}},
		}}},
	}
}

func TestStatus_GivesRatesOnlyWhereTheyAreKnown(t *testing.T) {
	begin := time.Unix(1000, 0)
	before, number := sample(begin, 100, 10, 0, 1000), func(r *float64) float64 {
		if r == nil {
			return -1
		}
		return *r
	}
	reborn := sample(begin.Add(2*time.Second), 300, 3, 0, 50)
	reborn.topics[0].ID, reborn.agents[0].ID = domain.TopicID{2}, ports.AgentID{2}
	for name, c := range map[string]struct {
		before, now            *look
		records, bytes, agents float64
	}{
		"two looks":                {before, sample(begin.Add(2*time.Second), 300, 30, 0, 1400), 10, 200, 100},
		"one look":                 {nil, before, -1, -1, -1},
		"something was removed":    {before, sample(begin.Add(2*time.Second), 300, 30, 5, 1400), 10, -1, 100},
		"compacted to fewer bytes": {before, sample(begin.Add(2*time.Second), 300, 30, 0, 900), 10, -1, 100},
		"another agent and topic":  {before, reborn, -1, -1, -1},
		"no time between":          {before, before, -1, -1, -1},
	} {
		s := newStatus(c.before, c.now, 2*time.Second)
		if r, b, a := number(s.Topics[0].RecordRate), number(s.Topics[0].ByteRate), number(s.Agents[0].Status.ByteRate); r != c.records || b != c.bytes || a != c.agents {
			t.Errorf("%s: %v records/s, %v and %v bytes/s; want %v, %v, %v", name, r, b, a, c.records, c.bytes, c.agents)
		}
	}
}

func TestStatus_SaysWhatIsWrongWithinEightyColumns(t *testing.T) {
	now := sample(time.Unix(1000, 0), 0, 0, 0, 0)
	now.agents = make([]ports.Agent, 3)
	for i := range now.agents {
		now.agents[i] = ports.Agent{ID: ports.AgentID{byte(i)}, AgentSpec: ports.AgentSpec{Address: "agent-" + strings.Repeat("x", 60) + ":7070", Group: strings.Repeat("g", 50)}}
	}
	now.answers = []answer{
		{err: errors.New("connection refused " + strings.Repeat("again and ", 20))},
		{AgentStatus: ports.AgentStatus{NotReady: "the store is away", Uptime: 90 * time.Minute}},
		{AgentStatus: ports.AgentStatus{Loops: []ports.AgentLoop{
			{Name: "retention", Passed: true, SinceSuccess: 59 * time.Minute, Failure: "bucket\x1b[2J"}, {Name: "sweep"},
		}}},
	}
	var out strings.Builder
	a := &app{invocation: invocation{stdout: &out}}
	if err := a.printStatus(newStatus(nil, now, 0)); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > statusWidth {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
	for _, want := range []string{"3 agents, 1 silent", "unready", "the store is away", "59m ago !", "retention: bucket"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if strings.ContainsRune(text, '\x1b') {
		t.Errorf("a control character got through:\n%q", text)
	}
}
