package faultproxy_test

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Main(m)) }

// patience is how long what must happen may take.
const patience = 30 * time.Second

// pause is how long what must not happen is waited for.
const pause = 50 * time.Millisecond

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// within waits until what holds, but not for ever.
func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	limit := time.After(patience)
	for !holds() {
		select {
		case <-poll.C:
		case <-limit:
			t.Fatalf("not so after %v: %s", patience, what)
		}
	}
}
