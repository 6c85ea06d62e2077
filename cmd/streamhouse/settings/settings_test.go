package settings

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/logging"
	"github.com/streamhouse/streamhouse/domain"
)

// sources is what a test gives to Load.
type sources struct {
	file string // the text of the file; "" for none
	env  []string
	args []string
}

func (s sources) load(t *testing.T) (Settings, error) {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlags(flags, Stores, Output, Producing, Consuming, Upkeep, Agency, Serving, Logging)
	args := s.args
	if s.file != "" {
		path := filepath.Join(t.TempDir(), "sh.yaml")
		if err := os.WriteFile(path, []byte(s.file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config", path}, args...)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(flags, append([]string{"HOME=/nowhere", "STREAMHOUSE=x"}, s.env...))
}

func TestLoad_GivesTheDefaults(t *testing.T) {
	s, err := sources{}.load(t)
	if err != nil {
		t.Fatal(err)
	}
	if s.Data != "./data" || s.Metadata != "" || s.JSON || !s.Compress || s.Producer.BatchSize != 100 || s.Producer.BufferBytes != 64<<20 {
		t.Errorf("got %+v", s)
	}
}

func TestLoad_FlagsGoOverEnvironmentOverFile(t *testing.T) {
	file := "data: from-file\nmetadata: sqlite:from-file\nbatch-timeout: 1s\nmax-retries: -1\nidempotence: false\nbatch-bytes: 65536\n"
	s, err := sources{file: file, env: []string{"STREAMHOUSE_METADATA=sqlite:from-env", "STREAMHOUSE_BATCH_TIMEOUT=2s", "STREAMHOUSE_MAX_RETRIES=7"}, args: []string{"--batch-timeout=3s"}}.load(t)
	if err != nil {
		t.Fatal(err)
	}
	p := s.Producer
	if s.Data != "from-file" || s.Metadata != "sqlite:from-env" || p.BatchTimeout != 3*time.Second || p.MaxRetries != 7 || p.Idempotence || p.BatchBytes != 65536 {
		t.Errorf("got %+v", s)
	}
}

func TestLoad_ReadsEverySettingFromEverySource(t *testing.T) {
	values := map[string]string{
		"data": "d", "metadata": "sqlite:m", "segments": "file:s", "output": "json", "batch-size": "7", "batch-bytes": "2MiB",
		"batch-timeout": "50ms", "buffer-bytes": "32MiB", "compression": "none", "request-timeout": "3s", "delivery-timeout": "4s",
		"max-retries": "0", "retry-backoff": "5ms", "idempotence": "true", "producer-name": "p", "partitioner": "murmur2", "fetch-bytes": "1MiB",
		"upkeep-interval": "7m", "sweep-interval": "2d", "sweep-age": "3d", "sweep-share": "0.5", "reservation-grace": "4h",
		"delete-grace": "0s", "forget-after": "9d", "compact-extent-bytes": "64MiB", "compact-after": "5s", "compact-bandwidth": "0",
		"agents": "a:1,b:2", "agent-group": "g", "agent-zone": "z", "agent-token": "t", "agent-tls-ca": "ca", "agent-tls-cert": "c", "agent-tls-key": "k",
		"listen": "0.0.0.0:1", "advertise": "h:2", "admin": "none", "admin-token": "u", "group": "h", "zone": "y", "flush-interval": "0s", "flush-bytes": "1MiB", "cache-bytes": "3MiB",
		"drain-timeout": "9s", "tls-cert": "d", "tls-key": "l", "tls-client-ca": "cb", "tokens": "f", "reflection": "true",
		"log-format": "json", "log-level": "debug",
	}
	if len(values) != len(table) {
		t.Fatalf("the test knows %d settings, the table %d", len(values), len(table))
	}
	var inFile, inEnv, inFlags sources
	for name, value := range values {
		inFile.file += name + ": " + value + "\n"
		inEnv.env = append(inEnv.env, EnvPrefix+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"="+value)
		inFlags.args = append(inFlags.args, "--"+name, value)
	}
	for name, src := range map[string]sources{"file": inFile, "environment": inEnv, "flags": inFlags} {
		s, err := src.load(t)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p := s.Producer
		if s.Data != "d" || s.Metadata != "sqlite:m" || s.Segments != "file:s" || !s.JSON || s.Compress || s.FetchBytes != 1<<20 ||
			p.BatchSize != 7 || p.BatchBytes != 2<<20 || p.BatchTimeout != 50*time.Millisecond || p.BufferBytes != 32<<20 || p.MaxRetries != 0 ||
			p.RequestTimeout != 3*time.Second || p.DeliveryTimeout != 4*time.Second || p.RetryBackoff != 5*time.Millisecond || !p.Idempotence || p.Name != "p" {
			t.Errorf("%s: got %+v", name, s)
		}
		j := s.Janitor
		if j.Interval != 7*time.Minute || j.SweepInterval != 48*time.Hour || j.SweepAge != 72*time.Hour || j.SweepShare != 0.5 ||
			j.ReservationGrace != 4*time.Hour || j.DeleteGrace != 0 || j.ForgetAfter != 9*24*time.Hour ||
			j.CompactExtentBytes != 64<<20 || j.CompactSegmentBytes != 64<<20 || j.CompactAfter != 5*time.Second || j.CompactBytesPerSecond != 0 {
			t.Errorf("%s: the janitor's are %+v", name, j)
		}
		if want := (Agents{[]string{"a:1", "b:2"}, "g", "z", "t", TLSFiles{"ca", "c", "k"}}); !reflect.DeepEqual(s.Agents, want) {
			t.Errorf("%s: agents are %+v", name, s.Agents)
		}
		want := Serve{
			Listen: "0.0.0.0:1", Advertise: "h:2", AdminToken: "u", Group: "h", Zone: "y", FlushBytes: 1 << 20, CacheBytes: 3 << 20, DrainTimeout: 9 * time.Second,
			TLS: TLSFiles{"cb", "d", "l"}, Tokens: "f", Reflection: true,
		}
		if s.Serve != want {
			t.Errorf("%s: the agent is %+v", name, s.Serve)
		}
		if want := (logging.Config{JSON: true, Level: slog.LevelDebug}); s.Log != want {
			t.Errorf("%s: the log is %+v", name, s.Log)
		}
		if err := j.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoad_ReportsEveryFaultOfEverySource(t *testing.T) {
	_, err := sources{
		file: "batch-byts: 1\nbatch-size: 0\ndata: [a, b]\nbatch.size: 3\nretry-backoff:\n",
		env:  []string{"STREAMHOUSE_BUFFER_BYTES=1000000000000000000", "STREAMHOUSE_NOPE=1", "STREAMHOUSE_data=x"},
		args: []string{"--max-retries=-2", "--output", "xml", "--producer-name", "../x"},
	}.load(t)
	if !errors.Is(err, domain.ErrConfig) {
		t.Fatalf("error is %v", err)
	}
	for _, want := range []string{
		`sh.yaml: unknown key "batch-byts": did you mean batch-bytes?`,
		`sh.yaml: batch-size is "0": want a whole number from 1 to 1000000`,
		`sh.yaml: data is a list or a section: want a single value`,
		`sh.yaml: unknown key "batch.size"`,
		`sh.yaml: retry-backoff is empty: want a value`,
		`STREAMHOUSE_BUFFER_BYTES is "1000000000000000000": want 1MiB to 1TiB`,
		`environment: unknown key "STREAMHOUSE_NOPE"`,
		`environment: unknown key "STREAMHOUSE_data"`,
		`--max-retries is "-2": want a whole number from -1`,
		`--output is "xml": want text or json`,
		`--producer-name: producer name "../x" is not valid`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if lines := strings.Count(err.Error(), "\n") + 1; lines != 11 {
		t.Errorf("%d faults, want 11:\n%v", lines, err)
	}
}

func TestLoad_RefusesWrongValues(t *testing.T) {
	for _, c := range []struct{ name, value string }{
		{"data", ""}, {"batch-size", "many"}, {"batch-size", "-1"}, {"batch-size", "1.5"}, {"batch-size", "1000000000000000000"},
		{"batch-bytes", "0"}, {"batch-bytes", "1EiB"}, {"batch-bytes", "16MiB"}, {"batch-timeout", "0s"}, {"batch-timeout", "-1s"}, {"batch-timeout", "10"},
		{"delivery-timeout", "1000000000000000000"}, {"retry-backoff", "25h"}, {"idempotence", "yes"}, {"compression", "zstd"}, {"partitioner", ""},
		{"fetch-bytes", "-5"}, {"producer-name", ""}, {"producer-name", "a/b"},
	} {
		for _, src := range []sources{
			{args: []string{"--" + c.name, c.value}},
			{env: []string{envName(c.name) + "=" + c.value}},
			{file: c.name + ": \"" + c.value + "\"\n"},
		} {
			if s, err := src.load(t); err == nil || !strings.Contains(err.Error(), c.name) && !strings.Contains(err.Error(), envName(c.name)) {
				t.Errorf("%v is taken as %+v, %v", src, s, err)
			}
		}
	}
}

func TestLoad_RefusesAFileThatIsNotThereOrNotYAML(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlags(flags)
	path := filepath.Join(t.TempDir(), "missing.yaml")
	_, err := Load(flags, []string{"STREAMHOUSE_CONFIG=" + path})
	if !errors.Is(err, os.ErrNotExist) || !errors.Is(err, domain.ErrConfig) || strings.Count(err.Error(), path) != 1 {
		t.Errorf("missing file: %v", err)
	}
	for _, text := range []string{"data: [", "- a\n- b\n", "data: a\ndata: b\n", "just text"} {
		if _, err := (sources{file: text}).load(t); err == nil || !strings.Contains(err.Error(), "sh.yaml") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := (sources{file: "config: other.yaml\n"}).load(t); err == nil {
		t.Error("a file that names another file is taken")
	}
}

func TestLoad_RefusesANameWithoutIdempotence(t *testing.T) {
	if _, err := (sources{args: []string{"--producer-name", "p", "--idempotence", "false"}}).load(t); !errors.Is(err, domain.ErrConfig) {
		t.Errorf("error is %v", err)
	}
}

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "17": 17, "17B": 17, "1KiB": 1024, "2 MiB": 2 << 20, "3GiB": 3 << 30, "1TiB": 1 << 40, "5kB": 5000, "6MB": 6e6, "7GB": 7e9, "-1": -1} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("ParseBytes(%q) is %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "B", "MiB", "1.5MiB", "1m", "9999999TiB", "-9999999TiB", "99999999999999999999", "0x10", "1e6"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("ParseBytes(%q) is %d", in, got)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{"0s": 0, "250ms": 250 * time.Millisecond, "7d": 7 * 24 * time.Hour, "1h30m": 90 * time.Minute} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("ParseDuration(%q) is %s, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "d", "1.5d", "5", "1000000d", "-1000000d", "week"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) is %s", in, got)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"1KiB", "-5MB", "9223372036854775807", "8388608TiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseBytes(s)
		if err != nil {
			return
		}
		if again, err := ParseBytes(FormatBytes(n)); err != nil || again != n {
			t.Fatalf("%q is %d, and %q is %d, %v", s, n, FormatBytes(n), again, err)
		}
	})
}

func FuzzLoad_File(f *testing.F) {
	f.Add("data: x\n")
	f.Add("batch-bytes: 1MiB\nnope: {a: [1]}\n")
	f.Add("? [a]\n: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := sources{file: text + "\n"}.load(t)
		if err == nil && (s.Data == "" || s.Producer.Validate() != nil) {
			t.Fatalf("%q is taken as %+v", text, s)
		}
	})
}

func TestPrint_ShowsWhatWasGivenWithoutItsSecrets(t *testing.T) {
	s, err := sources{
		file: "admin-token: hunter2hunter2\nsegments: s3://bucket/x?endpoint=http://h&password=hunter2\n",
		args: []string{"--metadata", "postgres://user:hunter2@host/db?sslmode=disable", "--listen", "127.0.0.1:9"},
	}.load(t)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := s.Print(&out, Stores, Serving); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`listen: "127.0.0.1:9"`, `metadata: "postgres://user:(not shown)@host/db?sslmode=disable"`, "# flush-bytes: ", `admin-token: "(not shown)"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("a secret is shown:\n%s", &out)
	}
}

func TestLoadTokens_ReadsTheFileAndSaysWhatIsWrongWithoutATokensText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	load := func(text string) error {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadTokens(path)
		return err
	}
	const good = "tokens:\n  - name: billing\n    token: 0123456789abcdef\n    scopes: [read, write]\n    topics: [billing-]\n"
	if err := load(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		"", "tokens: 3", "other: []", "tokens:\n  - x", "- a", "{",
		strings.Replace(good, "name", "nam", 1), strings.Replace(good, "read", "rule", 1), strings.Replace(good, "[billing-]", "[]", 1),
		strings.Replace(good, "0123456789abcdef", "0123secret", 1), good + strings.TrimPrefix(good, "tokens:\n"),
		strings.Replace(good, "[read, write]", "3", 1),
	} {
		if err := load(bad); err == nil || strings.Contains(err.Error(), "0123") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := LoadTokens(path + ".none"); err == nil {
		t.Error("a missing file is read")
	}
}
