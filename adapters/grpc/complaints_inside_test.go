package grpc

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// complaining runs f in virtual time and returns the lines that it has logged.
func complaining(t *testing.T, f func(c *complaints)) []string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(*testing.T) {
		f(&complaints{log: slog.New(slog.NewTextHandler(&out, nil)), every: time.Second})
	})
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

var errBad = invalid("a bad one")

func TestComplaints_LogOneOfAPeerInAnInterval(t *testing.T) {
	lines := complaining(t, func(c *complaints) {
		for i := range 25 { // a peer that connects anew each time, ten a second
			c.add(fmt.Sprintf("10.0.0.9:%d", 4000+i), "/log/Fetch", errBad)
			if i == 0 {
				c.add("10.0.0.8:1", "/log/Fetch", errBad)
			}
			<-time.After(100 * time.Millisecond)
		}
		if n := c.bad.Load(); n != 26 {
			t.Errorf("%d were counted, want 26", n)
		}
	})
	if len(lines) != 4 {
		t.Fatalf("%d lines, want 4:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	for i, want := range []string{"peer=10.0.0.9:4000 ", "peer=10.0.0.8:1 ", "peer=10.0.0.9:4010 ", "peer=10.0.0.9:4020 "} {
		if !strings.Contains(lines[i], want) || !strings.Contains(lines[i], "method=/log/Fetch") || !strings.Contains(lines[i], "a bad one") {
			t.Errorf("line %d is %s, want %s", i, lines[i], want)
		}
	}
	if !strings.Contains(lines[2], "suppressed=9") || !strings.Contains(lines[0], "suppressed=0") {
		t.Errorf("suppressed in %s and %s, want 9 and 0", lines[2], lines[0])
	}
}

func TestComplaints_KeepFewPeersHoweverManyThereAre(t *testing.T) {
	lines := complaining(t, func(c *complaints) {
		for i := range 10 * maxComplained {
			for range 2 {
				c.add(fmt.Sprintf("[fd00::%x]:1", i), "/log/Fetch", errBad)
			}
			if n := len(c.peers); n > maxComplained {
				t.Fatalf("%d peers are kept", n)
			}
		}
		<-time.After(time.Second)
		c.add("10.0.0.9:1", "/log/Fetch", errBad) // takes the place of those that were quiet
		if n := len(c.peers); n != 1 {
			t.Errorf("%d peers are kept, want 1", n)
		}
	})
	var first, left int
	for _, l := range lines {
		switch {
		case strings.Contains(l, "bad requests were not logged"):
			left++
		case strings.Contains(l, "bad request"):
			first++
		}
	}
	// One of each peer that is known, one of the crowd, and the last; each known one had another.
	if first != maxComplained+2 || left != maxComplained {
		t.Errorf("%d and %d lines, want %d and %d", first, left, maxComplained+2, maxComplained)
	}
}

func TestIsBad_IsTheRequestsFaultAndNotBadLuck(t *testing.T) {
	for _, err := range []error{errBad, statusOf(agentError("x", 0, ErrUnauthenticated)), statusOf(agentError("x", 0, ErrPermissionDenied))} {
		if !isBad(err) {
			t.Errorf("not bad: %v", err)
		}
	}
	for _, err := range []error{nil, statusOf(notReady("away")), statusOf(errors.New("x")), statusOf(agentError("x", 0, errors.New("away")))} {
		if isBad(err) {
			t.Errorf("bad: %v", err)
		}
	}
}
