package settings

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/domain"
)

// Group says which commands have a setting as a flag. In the file and in the
// environment every setting is known to every command.
type Group uint8

// The groups of settings.
const (
	Stores Group = iota + 1
	Output
	Producing
	Consuming
	Upkeep
	Agency
	Serving
	Logging
)

// setting is one row of the table below.
type setting struct {
	name  string
	group Group
	// kind is the word for its value in help texts.
	kind  string
	usage string
	set   func(s *Settings, value string) error
}

const (
	maxDuration   = 24 * time.Hour
	maxBatchBytes = domain.MaxBatchBytes - 2*domain.MaxRecordBytes
)

var table = []setting{
	{"data", Stores, "DIR", "folder of the embedded log", setText(func(s *Settings) *string { return &s.Data })},
	{"metadata", Stores, "URL", "metadata store, such as sqlite:FILE or postgres://HOST/DB (default: in --data)", setURL(func(s *Settings) *string { return &s.Metadata })},
	{"segments", Stores, "URL", "segment store, such as file:DIR or s3://BUCKET/PREFIX (default: in --data)", setURL(func(s *Settings) *string { return &s.Segments })},
	{"output", Output, "FORMAT", "text or json", setChoice(map[string]func(*Settings){
		"text": func(s *Settings) { s.JSON = false },
		"json": func(s *Settings) { s.JSON = true },
	}, "text or json")},

	{"batch-size", Producing, "N", "records of one partition that are sent at once when they wait (default 100)",
		setInt(1, 1_000_000, func(s *Settings, n int64) { s.Producer.BatchSize = int(n) })},
	{"batch-bytes", Producing, "BYTES", "most bytes of one batch, before compression (default 1MiB)",
		setBytes(1, maxBatchBytes, func(s *Settings, n int64) { s.Producer.BatchBytes = int(n) })},
	{"batch-timeout", Producing, "TIME", "longest wait of a record for company; up to 1s while over 512 partitions wait (default 100ms)",
		setTime(func(s *Settings) *time.Duration { return &s.Producer.BatchTimeout })},
	{"buffer-bytes", Producing, "BYTES", "memory for records on their way; reading pauses when it is full (default 64MiB)",
		setBytes(1<<20, 1<<40, func(s *Settings, n int64) { s.Producer.BufferBytes = n })},
	{"compression", Producing, "CODEC", "lz4 or none (default lz4)", setChoice(map[string]func(*Settings){
		"lz4":  func(s *Settings) { s.Compress = true },
		"none": func(s *Settings) { s.Compress = false },
	}, "lz4 or none")},
	{"request-timeout", Producing, "TIME", "longest attempt to store a batch (default 30s)",
		setTime(func(s *Settings) *time.Duration { return &s.Producer.RequestTimeout })},
	{"delivery-timeout", Producing, "TIME", "all attempts of a record together (default 2m)",
		setTime(func(s *Settings) *time.Duration { return &s.Producer.DeliveryTimeout })},
	{"max-retries", Producing, "N", "most repeats of a batch, -1 for no bound but the delivery timeout (default -1)",
		setInt(producer.Unlimited, 1_000_000, func(s *Settings, n int64) { s.Producer.MaxRetries = int(n) })},
	{"retry-backoff", Producing, "TIME", "first wait before a repeat; doubles up to 5s (default 100ms)",
		setTime(func(s *Settings) *time.Duration { return &s.Producer.RetryBackoff })},
	{"idempotence", Producing, "BOOL", "no retry stores a record twice (default true)", setBool(func(s *Settings) *bool { return &s.Producer.Idempotence })},
	{"producer-name", Producing, "NAME", "durable identity: a later producer of the name fences the earlier", setProducerName},
	{"partitioner", Producing, "NAME", "siphash, murmur2 (as Kafka clients), round-robin or sticky (default siphash)", setChoice(map[string]func(*Settings){
		"siphash":     func(s *Settings) { s.Producer.Partitioner = domain.NewSipHashPartitioner() },
		"murmur2":     func(s *Settings) { s.Producer.Partitioner = domain.NewMurmur2Partitioner() },
		"round-robin": func(s *Settings) { s.Producer.Partitioner = domain.NewRoundRobinPartitioner() },
		"sticky":      func(s *Settings) { s.Producer.Partitioner = domain.NewStickyPartitioner(stickyRun) },
	}, "siphash, murmur2, round-robin or sticky")},

	{"fetch-bytes", Consuming, "BYTES", "stored bytes that one fetch reads (default 8MiB)",
		setBytes(1, 1<<30, func(s *Settings, n int64) { s.FetchBytes = n })},

	{"upkeep-interval", Upkeep, "TIME", "pause between two passes of retention, collection and compaction (default 10m)",
		setLongTime(time.Second, func(s *Settings) *time.Duration { return &s.Janitor.Interval })},
	{"sweep-interval", Upkeep, "TIME", "pause between two sweeps of the bucket (default 24h)",
		setLongTime(time.Minute, func(s *Settings) *time.Duration { return &s.Janitor.SweepInterval })},
	{"sweep-age", Upkeep, "TIME", "a sweep looks at objects that are older (default 24h)",
		setLongTime(0, func(s *Settings) *time.Duration { return &s.Janitor.SweepAge })},
	{"sweep-share", Upkeep, "SHARE", "a sweep that would remove a larger share of the objects removes nothing (default 0.05)", setShare},
	{"reservation-grace", Upkeep, "TIME", "an upload that is not committed for longer is given up (default 1h)",
		setLongTime(0, func(s *Settings) *time.Duration { return &s.Janitor.ReservationGrace })},
	{"delete-grace", Upkeep, "TIME", "garbage is deleted after this, so that readers come to their end (default 10m)",
		setLongTime(0, func(s *Settings) *time.Duration { return &s.Janitor.DeleteGrace })},
	{"forget-after", Upkeep, "TIME", "rows of deleted segments answer late replays for this long (default 3d)",
		setLongTime(0, func(s *Settings) *time.Duration { return &s.Janitor.ForgetAfter })},
	{"compact-extent-bytes", Upkeep, "BYTES", "put small extents together up to this size; 0 is off (default 8MiB)",
		setBytes(0, 1<<29, func(s *Settings, n int64) {
			s.Janitor.CompactExtentBytes = n
			s.Janitor.CompactSegmentBytes = max(s.Janitor.CompactSegmentBytes, n)
		})},
	{"compact-after", Upkeep, "TIME", "leave what is younger alone (default 1m)",
		setLongTime(0, func(s *Settings) *time.Duration { return &s.Janitor.CompactAfter })},
	{"compact-bandwidth", Upkeep, "BYTES", "read and write at most so much a second for compaction; 0 is no bound (default 64MiB)",
		setBytes(0, 1<<40, func(s *Settings, n int64) { s.Janitor.CompactBytesPerSecond = n })},

	{"agents", Agency, "ADDRESSES", "reach the log through agents, HOST:PORT with commas between, and not through its stores", setAddresses},
	{"agent-group", Agency, "NAME", "which agents to use (default default)", setName("agent group", func(s *Settings) *string { return &s.Agents.Group })},
	{"agent-zone", Agency, "NAME", "where this client is: agents of the same zone come first", setName("zone", func(s *Settings) *string { return &s.Agents.Zone })},
	{"agent-token", Agency, "TOKEN", "bearer token; better given as STREAMHOUSE_AGENT_TOKEN or in the file", setSecret(func(s *Settings) *string { return &s.Agents.Token })},
	{"agent-tls-ca", Agency, "FILE", "use TLS; certificates that agents must be signed by (\"system\": those of the system)", setFile(func(s *Settings) *string { return &s.Agents.TLS.CA })},
	{"agent-tls-cert", Agency, "FILE", "this client's certificate, for agents that ask for one", setFile(func(s *Settings) *string { return &s.Agents.TLS.Cert })},
	{"agent-tls-key", Agency, "FILE", "its key", setFile(func(s *Settings) *string { return &s.Agents.TLS.Key })},

	{"listen", Serving, "ADDRESS", "serve clients at HOST:PORT (default 127.0.0.1:7070)", setAddress(func(s *Settings) *string { return &s.Serve.Listen })},
	{"advertise", Serving, "ADDRESS", "be listed under HOST:PORT (default: where it listens)", setAddress(func(s *Settings) *string { return &s.Serve.Advertise })},
	{"admin", Serving, "ADDRESS", "health, metrics and status over HTTP at HOST:PORT, or none (default 127.0.0.1:7071)", setAdmin},
	{"admin-token", Serving, "TOKEN", "opens profiles at the admin address; better given as STREAMHOUSE_ADMIN_TOKEN", setSecret(func(s *Settings) *string { return &s.Serve.AdminToken })},
	{"group", Serving, "NAME", "group of agents to belong to (default default)", setName("agent group", func(s *Settings) *string { return &s.Serve.Group })},
	{"zone", Serving, "NAME", "where this agent is, for clients that prefer a near one", setName("zone", func(s *Settings) *string { return &s.Serve.Zone })},
	{"flush-interval", Serving, "TIME", "longest wait of batches for company; 0s stores at once (default 250ms in a bucket, 0s in a folder)",
		setLongTime(0, func(s *Settings) *time.Duration { return &s.Serve.FlushInterval })},
	{"flush-bytes", Serving, "BYTES", "size from which a segment takes no more batches (default 8MiB)",
		setBytes(64<<10, 256<<20, func(s *Settings, n int64) { s.Serve.FlushBytes = n })},
	{"cache-bytes", Serving, "BYTES", "memory for what consumers read, a third of it for what was just stored; 0 is off (default 192MiB, in a folder that third)",
		setBytes(0, 1<<40, func(s *Settings, n int64) { s.Serve.CacheBytes = n })},
	{"drain-timeout", Serving, "TIME", "longest time to finish what was accepted before the end (default 30s)",
		setLongTime(time.Second, func(s *Settings) *time.Duration { return &s.Serve.DrainTimeout })},
	{"tls-cert", Serving, "FILE", "serve clients over TLS with this certificate; it is read again when it changes", setFile(func(s *Settings) *string { return &s.Serve.TLS.Cert })},
	{"tls-key", Serving, "FILE", "its key", setFile(func(s *Settings) *string { return &s.Serve.TLS.Key })},
	{"tls-client-ca", Serving, "FILE", "demand a certificate of clients that one of these has signed", setFile(func(s *Settings) *string { return &s.Serve.TLS.CA })},
	{"tokens", Serving, "FILE", "YAML file of bearer tokens; with it nobody else may do anything", setFile(func(s *Settings) *string { return &s.Serve.Tokens })},
	{"reflection", Serving, "BOOL", "let callers ask for the protocol's description (default false)", setBool(func(s *Settings) *bool { return &s.Serve.Reflection })},

	{"log-format", Logging, "FORMAT", "lines on standard error as text or json (default text)", setChoice(map[string]func(*Settings){
		"text": func(s *Settings) { s.Log.JSON = false },
		"json": func(s *Settings) { s.Log.JSON = true },
	}, "text or json")},
	{"log-level", Logging, "LEVEL", "debug, info, warn or error: lines below it are left out (default info)", setChoice(map[string]func(*Settings){
		"debug": func(s *Settings) { s.Log.Level = slog.LevelDebug },
		"info":  func(s *Settings) { s.Log.Level = slog.LevelInfo },
		"warn":  func(s *Settings) { s.Log.Level = slog.LevelWarn },
		"error": func(s *Settings) { s.Log.Level = slog.LevelError },
	}, "debug, info, warn or error")},
}

// stickyRun is how many records without a key the sticky partitioner sends to
// one partition before it moves on.
const stickyRun = 1000

var byName = index()

func index() map[string]setting {
	m := make(map[string]setting, len(table))
	for _, s := range table {
		m[s.name] = s
	}
	return m
}

// AddFlags adds the flags of the groups, and --config.
func AddFlags(flags *pflag.FlagSet, groups ...Group) {
	flags.Var(&textFlag{kind: "FILE"}, ConfigFlag, "YAML file of settings; keys are named like the flags")
	for _, g := range groups {
		for _, s := range table {
			if s.group == g {
				flags.Var(&textFlag{kind: s.kind, text: defaultText[s.name]}, s.name, s.usage)
			}
		}
	}
}

// defaultText is shown as a flag's default where its usage does not say it.
var defaultText = map[string]string{"data": "./data", "output": "text"}

// textFlag keeps a flag's text; Load parses it, so that its faults are reported
// with all others.
type textFlag struct{ text, kind string }

func (f *textFlag) String() string     { return f.text }
func (f *textFlag) Set(s string) error { f.text = s; return nil }
func (f *textFlag) Type() string       { return f.kind }

// apply sets the value as a layer gives it: a string, or what YAML makes of a
// scalar.
func (s setting) apply(to *Settings, value any) error {
	switch v := value.(type) {
	case string:
		return s.set(to, v)
	case bool, int, int64, uint64, float64:
		return s.set(to, fmt.Sprint(v))
	case nil:
		return &domain.ConfigError{Value: "empty", Want: "a value, or no such key"}
	default:
		return &domain.ConfigError{Value: "a list or a section", Want: "a single value"}
	}
}

func setText(field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if value == "" {
			return &domain.ConfigError{Value: `""`, Want: "a folder"}
		}
		*field(s) = value
		return nil
	}
}

// setURL leaves it to the stores which schemes there are.
func setURL(field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		*field(s) = value
		return nil
	}
}

func setChoice(choices map[string]func(*Settings), want string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		choose, ok := choices[value]
		if !ok {
			return &domain.ConfigError{Value: quote(value), Want: want}
		}
		choose(s)
		return nil
	}
}

func setInt(least, most int64, set func(*Settings, int64)) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < least || n > most {
			return &domain.ConfigError{Value: quote(value), Want: fmt.Sprintf("a whole number from %d to %d", least, most)}
		}
		set(s, n)
		return nil
	}
}

func setBytes(least, most int64, set func(*Settings, int64)) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		n, err := ParseBytes(value)
		if err != nil || n < least || n > most {
			return &domain.ConfigError{Value: quote(value), Want: fmt.Sprintf("%s to %s, such as 65536 or 1MiB", FormatBytes(least), FormatBytes(most))}
		}
		set(s, n)
		return nil
	}
}

func setTime(field func(*Settings) *time.Duration) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		d, err := ParseDuration(value)
		if err != nil || d < time.Millisecond || d > maxDuration {
			return &domain.ConfigError{Value: quote(value), Want: "1ms to 24h, such as 250ms or 2m"}
		}
		*field(s) = d
		return nil
	}
}

func setName(what string, field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if err := domain.ValidateName(what, value); err != nil {
			return err
		}
		*field(s) = value
		return nil
	}
}

// setSecret takes what is never quoted.
func setSecret(field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if value == "" {
			return &domain.ConfigError{Value: `""`, Want: "a token"}
		}
		*field(s) = value
		return nil
	}
}

func setFile(field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if value == "" {
			return &domain.ConfigError{Value: `""`, Want: "a file"}
		}
		*field(s) = value
		return nil
	}
}

func checkAddress(value string) error {
	if _, port, err := net.SplitHostPort(value); err != nil || port == "" {
		return &domain.ConfigError{Value: quote(value), Want: "HOST:PORT, such as 127.0.0.1:7070"}
	}
	return nil
}

func setAddress(field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		*field(s) = value
		return checkAddress(value)
	}
}

func setAdmin(s *Settings, value string) error {
	if value == "none" {
		s.Serve.Admin = ""
		return nil
	}
	s.Serve.Admin = value
	return checkAddress(value)
}

func setAddresses(s *Settings, value string) error {
	s.Agents.Addresses = strings.Split(value, ",")
	for _, a := range s.Agents.Addresses {
		if err := checkAddress(a); err != nil {
			return err
		}
	}
	return nil
}

const maxLongTime = 10 * 365 * 24 * time.Hour

// setLongTime is for times of which days and years make sense.
func setLongTime(least time.Duration, field func(*Settings) *time.Duration) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		d, err := ParseDuration(value)
		if err != nil || d < least || d > maxLongTime {
			return &domain.ConfigError{Value: quote(value), Want: least.String() + " to 3650d, such as 5m, 12h or 7d"}
		}
		*field(s) = d
		return nil
	}
}

func setShare(s *Settings, value string) error {
	share, err := strconv.ParseFloat(value, 64)
	if err != nil || !(share >= 0 && share <= 1) {
		return &domain.ConfigError{Value: quote(value), Want: "0 to 1, such as 0.05"}
	}
	s.Janitor.SweepShare = share
	return nil
}

func setBool(field func(*Settings) *bool) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		switch value {
		case "true":
			*field(s) = true
		case "false":
			*field(s) = false
		default:
			return &domain.ConfigError{Value: quote(value), Want: "true or false"}
		}
		return nil
	}
}

func setProducerName(s *Settings, value string) error {
	if err := domain.ValidateName("producer", value); err != nil {
		return err
	}
	s.Producer.Name = value
	return nil
}

// quote shows a value from outside: escaped, and cut if it is long.
func quote(value string) string { return fmt.Sprintf("%.60q", value) }
