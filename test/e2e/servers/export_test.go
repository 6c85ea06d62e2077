package servers

import "testing"

// WithSettings is the same server, run with other settings.
func WithSettings(s *PostgresServer, settings ...string) *PostgresServer {
	other := *s
	other.settings = settings
	return &other
}

// StartOn starts a server that is down as a new one is started, but tries the
// ports given first.
func StartOn[S interface{ *PostgresServer | *S3Server }](server S, ports ...int) error {
	var start func() error
	var moveTo func(int)
	var log, taken string
	switch s := any(server).(type) {
	case *PostgresServer:
		start, moveTo, log, taken = s.Start, s.moveTo, s.log(), postgresTaken
	case *S3Server:
		start, moveTo, log, taken = s.Start, s.moveTo, s.log(), gatewayTaken
	}
	return startFirst(start, func(port int) {
		if len(ports) > 0 {
			port, ports = ports[0], ports[1:]
		}
		moveTo(port)
	}, log, taken)
}

// WithoutMain runs f as if TestMain did not run Main.
func WithoutMain(t *testing.T, f func()) {
	t.Helper()
	allow := func(yes bool) {
		shared.Lock()
		defer shared.Unlock()
		shared.allowed = yes
	}
	allow(false)
	defer allow(true)
	f()
}
