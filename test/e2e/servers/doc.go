// Package servers runs real servers for tests: PostgreSQL from the machine's
// own binaries, and the S3 gateway versitygw, which it builds on first use.
//
// A test that needs a server for itself, to kill it or to give it settings,
// asks for [Postgres], [Standby] or [S3]. All others share one server in each test binary and
// get a new database from [Database], or a new bucket from [Bucket]; their TestMain runs [Main]:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Main(m)) }
//
// Servers listen on loopback only, keep their files below the system's
// temporary folder, and end with the test, or the test binary, that started them, however it
// ends. This package has no goroutine that outlives a call.
//
// A server that cannot be had fails the test, and the failure says what to install.
package servers

import (
	"testing"
	"time"
)

const (
	// startLimit is how long a server may take until it answers, and how often
	// it is looked at meanwhile.
	startLimit = time.Minute
	startPoll  = 5 * time.Millisecond
	// stopLimit is how long a server may take to end after it was asked to.
	stopLimit = 30 * time.Second
	// startTries is how many ports a server is tried on.
	startTries = 10
	// logTail is how much of a server's log a failed test shows, in bytes.
	logTail = 4 << 10
)

// failing runs a function whose error fails the test, with the words of what was done.
func failing(tb testing.TB, what string, f func() error) {
	tb.Helper()
	if err := f(); err != nil {
		tb.Errorf("%s: %v", what, err)
	}
}
