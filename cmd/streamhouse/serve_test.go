package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"
)

// addressOf returns what a line of the log says of the address at which the agent
// serves, if it says that it does.
func addressOf(line string) (address string, ok bool) {
	if _, rest, text := strings.Cut(line, `msg="agent serves" address=`); text {
		address, _, _ = strings.Cut(rest, " ")
		return address, true
	}
	if _, rest, isJSON := strings.Cut(line, `"msg":"agent serves","address":"`); isJSON {
		address, _, _ = strings.Cut(rest, `"`)
		return address, true
	}
	return "", false
}

func TestServe_LogsWithTheSubjectInAttributes(t *testing.T) {
	var mu sync.Mutex
	var said []map[string]any
	c := newTool(t)
	t.Run("agent", func(t *testing.T) {
		one := &tool{t: t, dir: c.dir}
		address := one.serving(func(line string) {
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Errorf("%s: %v", line, err)
			}
			mu.Lock()
			defer mu.Unlock()
			said = append(said, m)
		}, "--log-format", "json", "--group", "web", "--zone", "eu-1")
		c.ok("v\n", "produce", "orders", "--create", "--agents", address, "--agent-group", "web")
	}) // it has ended
	byMessage := map[string]map[string]any{}
	for _, m := range said {
		byMessage[m["msg"].(string)] = m
	}
	for message, want := range map[string]map[string]any{
		"entered the list of agents": {"level": "INFO", "group": "web", "zone": "eu-1"},
		"agent serves":               {"level": "INFO", "group": "web", "tls": false, "tokens": false},
		"agent drains":               {"level": "INFO"},
	} {
		got := byMessage[message]
		if got == nil || got["address"] == "" || got["address"] == nil {
			t.Errorf("%q is told as %v", message, got)
		}
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%q has %s %v, want %v", message, key, got[key], value)
			}
		}
	}
}

// until is a stream that calls stop at the first line with the text.
type until struct {
	text string
	stop context.CancelFunc
	said strings.Builder
}

func (u *until) Write(b []byte) (int, error) {
	if strings.Contains(string(b), u.text) {
		u.stop()
	}
	return u.said.Write(b)
}

func TestJanitor_LogsAsItIsToldTo(t *testing.T) {
	c := newTool(t)
	c.ok("v\n", "produce", "orders", "--create")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	stderr := &until{text: `"msg":"janitor works until it is interrupted"`, stop: stop}
	code := run(ctx, invocation{
		args: []string{"janitor", "--log-format", "json", "--data", c.dir}, stdin: strings.NewReader(""), stdout: io.Discard, stderr: stderr,
	})
	if said := stderr.said.String(); code != exitOK || !strings.Contains(said, `"sweep_interval":`) {
		t.Errorf("exit code %d: %s", code, said)
	}
	c.fails(exitUsage, "", "janitor", "--log-level", "loud")
	c.fails(exitUsage, "", "serve", "--log-format", "xml")
}
