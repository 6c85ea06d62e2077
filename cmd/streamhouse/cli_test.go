package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tool runs commands in one data folder.
type tool struct {
	t   *testing.T
	dir string
	env []string
}

func newTool(t *testing.T) *tool {
	t.Helper()
	return &tool{t: t, dir: filepath.Join(t.TempDir(), "data")}
}

// result is what one command left.
type result struct {
	code           int
	stdout, stderr string
}

func (c *tool) runWith(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) result {
	var out, errs bytes.Buffer
	if stdout == nil {
		stdout = &out
	}
	env := append([]string{"STREAMHOUSE_DATA=" + c.dir}, c.env...)
	code := run(ctx, invocation{args: args, environ: env, stdin: stdin, stdout: stdout, stderr: &errs})
	return result{code, out.String(), errs.String()}
}

func (c *tool) run(stdin string, args ...string) result {
	return c.runWith(context.Background(), strings.NewReader(stdin), nil, args...)
}

// ok runs a command that must succeed and returns its standard output.
func (c *tool) ok(stdin string, args ...string) string {
	c.t.Helper()
	r := c.run(stdin, args...)
	if r.code != exitOK {
		c.t.Fatalf("%q: exit code %d: %s", args, r.code, r.stderr)
	}
	return r.stdout
}

// fails runs a command that must end with the code, one line of error and no
// help text, and returns that line.
func (c *tool) fails(code int, stdin string, args ...string) string {
	c.t.Helper()
	r := c.run(stdin, args...)
	if r.code != code {
		c.t.Errorf("%q: exit code %d, want %d: %s%s", args, r.code, code, r.stdout, r.stderr)
	}
	var complaints []string
	for line := range strings.Lines(r.stderr) {
		if strings.HasPrefix(line, "streamhouse: ") {
			complaints = append(complaints, line)
		}
	}
	if len(complaints) != 1 || strings.Contains(r.stderr+r.stdout, "Usage:") {
		c.t.Errorf("%q says %q", args, r.stderr)
	}
	return strings.Join(complaints, "")
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

func TestRun_WrongUsageExitsWithTwoAndOneSentence(t *testing.T) {
	c := newTool(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"frobnicate"}, "unknown command"},
		{[]string{"topic"}, "needs a command: create, list"},
		{[]string{"topic", "frobnicate"}, "unknown command"},
		{[]string{"--nope"}, "unknown flag"},
		{[]string{"produce"}, "want one topic name"},
		{[]string{"produce", "a", "b"}, "want one topic name"},
		{[]string{"produce", "orders", "--nope"}, "unknown flag"},
		{[]string{"produce", "orders", "--format", "xml"}, "want lines or json"},
		{[]string{"produce", "orders", "--partition", "-1"}, "want 0 or more"},
		{[]string{"produce", "orders", "--partition", "x"}, "invalid argument"},
		{[]string{"produce", "orders", "--partitions", "3"}, "needs --create"},
		{[]string{"produce", "orders", "--create", "--partitions", "0"}, "1 to 100000"},
		{[]string{"produce", "orders", "--create", "--partitions", "1000000"}, "1 to 100000"},
		{[]string{"produce", "orders", "--key-separator", ""}, "at least one character"},
		{[]string{"produce", "orders", "--key-separator", `\q`}, "unknown escape"},
		{[]string{"produce", "orders", "--key-separator", ":", "--format", "json"}, "does not go with"},
		{[]string{"produce", "orders", "--producer-name", "a/b"}, "producer name"},
		{[]string{"consume", "orders", "--from", "-1"}, "want start, end"},
		{[]string{"consume", "orders", "--from", "yesterday"}, "want start, end"},
		{[]string{"consume", "orders", "--max", "0"}, "want 1 or more"},
		{[]string{"consume", "orders", "--max", "-5"}, "want 1 or more"},
		{[]string{"consume", "orders", "--partition", "-2"}, "want 0 or more"},
		{[]string{"consume", "orders", "--output", "xml"}, "want text or json"},
		{[]string{"consume", "orders", "--output", "json", "--key-separator", ":"}, "does not go with"},
		{[]string{"consume", "orders", "--metadata", "mysql:x"}, "sqlite:FILE"},
		{[]string{"topic", "create", "orders", "--partitions", "0"}, "1 to 100000"},
		{[]string{"topic", "widen", "orders"}, "--partitions is missing"},
		{[]string{"topic", "widen", "orders", "--partitions", "-1"}, "1 to 100000"},
		{[]string{"topic", "create", "orders", "--retention-age", "soon"}, "want one such as"},
		{[]string{"topic", "create", "orders", "--retention-age", "-1h"}, "zero"},
		{[]string{"topic", "create", "orders", "--retention-bytes", "1.5GiB"}, "not a size"},
		{[]string{"segment", "verify"}, "at least one file"},
		{[]string{"segment", "dump", "x", "--output", "xml"}, "want text or json"},
		{[]string{"bench", "produce", "--record-size", "5"}, "32 to 1048576"},
		{[]string{"version", "--output", "xml"}, "want text or json"},
		{[]string{"topic", "list", "--config", "/nonexistent.yaml"}, "/nonexistent.yaml: no such file"},
	} {
		if got := c.fails(exitUsage, "", test.args...); !strings.Contains(got, test.want) || !strings.Contains(got, "--help)") {
			t.Errorf("%q says %q, want %q", test.args, got, test.want)
		}
	}
	if _, err := os.Stat(c.dir); err == nil {
		t.Error("a command that was refused has made the data folder")
	}
	c.ok("", "topic", "create", "orders")
	if got := c.fails(exitUsage, "", "consume", "orders", "--segments", "ftp:x"); !strings.Contains(got, "file:DIR") {
		t.Errorf("of a segment store without a known scheme it says %q", got)
	}
}

func TestRun_RefusesTopicNamesThatAreNotNames(t *testing.T) {
	c := newTool(t)
	for _, name := range []string{"", ".", "..", strings.Repeat("x", 250), "/", "../x", "%2e%2e", "a\x00b", "a\nb", "\xff", "é"} {
		for _, command := range [][]string{{"produce"}, {"consume"}, {"topic", "create"}, {"topic", "describe"}, {"topic", "delete"}} {
			got := c.fails(exitUsage, "", append(command, "--", name)...)
			if !strings.Contains(got, "is not valid") {
				t.Errorf("%q %q says %q", command, name, got)
			}
		}
	}
}

func TestRun_ReportsEveryConfigurationFaultOnItsOwnLine(t *testing.T) {
	c := newTool(t)
	path := filepath.Join(t.TempDir(), "sh.yaml")
	if err := os.WriteFile(path, []byte("batch-byts: 1\nbatch-size: -1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.env = []string{"STREAMHOUSE_BUFFER_BYTES=1e18", "STREAMHOUSE_UNHEARD_OF=1", "STREAMHOUSE_CONFIG=" + path}
	r := c.run("", "topic", "list", "--output", "xml")
	for _, want := range []string{path + `: unknown key "batch-byts"`, path + ": batch-size", "STREAMHOUSE_BUFFER_BYTES", "STREAMHOUSE_UNHEARD_OF", "--output"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("no %q in %s", want, r.stderr)
		}
	}
	if n := strings.Count(r.stderr, "\n"); r.code != exitUsage || n != 5 {
		t.Errorf("exit code %d, %d lines: %s", r.code, n, r.stderr)
	}
	if _, err := os.Stat(c.dir); err == nil {
		t.Error("the data folder was made though the configuration is wrong")
	}
}

func TestRun_RefusesToReadAFolderThatDoesNotExist(t *testing.T) {
	c := newTool(t)
	for _, args := range [][]string{{"topic", "list"}, {"topic", "describe", "x"}, {"topic", "delete", "x"}, {"topic", "widen", "x", "--partitions", "2"}, {"consume", "x"}, {"produce", "x"}, {"bench", "consume"}} {
		if got := c.fails(exitFail, "", args...); !strings.Contains(got, "data folder "+c.dir+": it does not exist") {
			t.Errorf("%q says %q", args, got)
		}
		if _, err := os.Stat(c.dir); err == nil {
			t.Fatalf("%q made the folder", args)
		}
	}
}

func TestRun_SaysThatItWasInterrupted(t *testing.T) {
	c := newTool(t)
	ctx, interrupt := context.WithCancel(context.Background())
	interrupt()
	for _, args := range [][]string{{"topic", "create", "x"}, {"bench", "produce"}} {
		if r := c.runWith(ctx, strings.NewReader(""), nil, args...); r.code != exitFail || r.stderr != "streamhouse: interrupted\n" {
			t.Errorf("%q: exit code %d, %q", args, r.code, r.stderr)
		}
	}
}

func TestRun_HelpIsShortAndHasExamples(t *testing.T) {
	c := newTool(t)
	for _, command := range [][]string{{}, {"topic"}, {"topic", "create"}, {"produce"}, {"consume"}, {"segment", "dump"}, {"bench", "produce"}} {
		help := c.ok("", append(command, "--help")...)
		for i, line := range lines(help) {
			if len(line) > 170 {
				t.Errorf("%q: line %d of the help has %d characters", command, i+1, len(line))
			}
		}
		if len(command) != 1 || command[0] == "produce" || command[0] == "consume" {
			if !strings.Contains(help, "Examples:") {
				t.Errorf("%q: help without examples", command)
			}
		}
	}
	if c.ok("") != c.ok("", "--help") {
		t.Error("without a command there is no help")
	}
}

func TestRun_GivesVersionAndCompletion(t *testing.T) {
	c := newTool(t)
	if got := c.ok("", "version"); !strings.HasPrefix(got, "streamhouse ") || !strings.Contains(got, "go1.") {
		t.Errorf("version is %q", got)
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(c.ok("", "version", "--output", "json")), &v); err != nil || v["go"] == "" {
		t.Errorf("version is %v, %v", v, err)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := c.ok("", "completion", shell); !strings.Contains(got, "streamhouse") {
			t.Errorf("%s completion is %.60q", shell, got)
		}
	}
}

func TestRun_EscapesWhatErrorsQuote(t *testing.T) {
	c := newTool(t)
	for _, args := range [][]string{{"segment", "verify", "\x1b[31mno"}, {"segment", "dump", "\x1b[31mno"}, {"consume", "x\x1b[31m"}, {"\x1b[2J"}} {
		if r := c.run("", args...); r.code == 0 || strings.Contains(r.stderr+r.stdout, "\x1b") {
			t.Errorf("%q: exit code %d, %q", args, r.code, r.stderr)
		}
	}
}

func TestTopic_LivesItsLife(t *testing.T) {
	c := newTool(t)
	if got := c.ok("", "topic", "create", "orders", "--partitions", "3", "--retention-age", "7d", "--retention-bytes", "10GiB"); got != "created orders with 3 partitions\n" {
		t.Errorf("create says %q", got)
	}
	if got := c.fails(exitFail, "", "topic", "create", "orders"); !strings.Contains(got, "exists already") {
		t.Errorf("create again says %q", got)
	}
	if got := c.ok("", "topic", "list"); !strings.Contains(got, "orders  3           168h0m0s, 10GiB") {
		t.Errorf("list says %q", got)
	}
	c.ok("a\nb\nc\n", "produce", "orders")
	if got := c.ok("", "topic", "widen", "orders", "--partitions", "5"); got != "orders has 5 partitions\n" {
		t.Errorf("widen says %q", got)
	}
	if got := c.fails(exitFail, "", "topic", "widen", "orders", "--partitions", "2"); !strings.Contains(got, "partitions is 2: want 5") {
		t.Errorf("narrow says %q", got)
	}
	type description struct {
		Topic          string
		ID             string `json:"id"`
		Partitions     int
		RetentionMS    int64  `json:"retention_ms"`
		RetentionBytes int64  `json:"retention_bytes"`
		CreatedAt      string `json:"created_at"`
		States         []struct {
			Partition     int
			LogStart      int64 `json:"log_start"`
			HighWatermark int64 `json:"high_watermark"`
			Bytes         int64
		} `json:"partition_states"`
	}
	d := decode[description](t, c.ok("", "topic", "describe", "orders", "--output", "json"))
	if d.Partitions != 5 || len(d.States) != 5 || d.States[0].HighWatermark != 1 || d.States[0].Bytes == 0 || d.States[4].HighWatermark != 0 || d.RetentionMS != 7*24*3600*1000 || d.RetentionBytes != 10<<30 {
		t.Errorf("describe says %+v", d)
	}
	if got := c.ok("", "topic", "describe", "orders"); !strings.Contains(got, "HIGH WATERMARK") {
		t.Errorf("describe says %q", got)
	}
	if list := decode[[]description](t, c.ok("", "topic", "list", "--output", "json")); len(list) != 1 || list[0].ID != d.ID {
		t.Errorf("list says %+v", list)
	}
	if got := c.ok("", "topic", "delete", "orders", "--output", "json"); got != "{\"deleted\":\"orders\"}\n" {
		t.Errorf("delete says %q", got)
	}
	for _, command := range [][]string{{"topic", "describe"}, {"topic", "delete"}, {"consume"}, {"produce"}} {
		if got := c.fails(exitFail, "x\n", append(command, "orders")...); !strings.Contains(got, "not found") {
			t.Errorf("%q says %q", command, got)
		}
	}
	if got := c.ok("", "topic", "list", "--output", "json"); got != "[]\n" {
		t.Errorf("list says %q", got)
	}
}

// failingWriter fails every write after the first so many bytes.
type failingWriter struct {
	left int
	err  error
	buf  bytes.Buffer
}

func (w *failingWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.buf.Write(p[:n])
	w.left -= n
	if n < len(p) {
		return n, w.err
	}
	return n, nil
}

func TestRun_EndsQuietlyWhenItsReaderHasGone(t *testing.T) {
	c := newTool(t)
	c.ok(strings.Repeat("some line\n", 5000), "produce", "orders", "--create")
	for _, args := range [][]string{{"consume", "orders"}, {"consume", "orders", "--follow"}, {"topic", "list"}, {"topic", "describe", "orders"}} {
		r := c.runWith(context.Background(), strings.NewReader(""), &failingWriter{left: 5, err: syscall.EPIPE}, args...)
		if r.code != exitOK || r.stderr != "" {
			t.Errorf("%q: exit code %d, says %q", args, r.code, r.stderr)
		}
	}
	full := c.runWith(context.Background(), strings.NewReader(""), &failingWriter{left: 5, err: errors.New("no space left on device")}, "consume", "orders")
	if full.code != exitFail || !strings.Contains(full.stderr, "no space left") {
		t.Errorf("a full disk: exit code %d, says %q", full.code, full.stderr)
	}
}

func TestSegment_FindsEveryKindOfDamage(t *testing.T) {
	c := newTool(t)
	c.ok("k\tone\n", "produce", "orders", "--create", "--partitions", "2", "--key-separator", "\t")
	files, err := filepath.Glob(filepath.Join(c.dir, "segments", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	if got := c.ok("", "segment", "verify", files[0]); !strings.Contains(got, ": ok, segment "+filepath.Base(files[0])) {
		t.Errorf("verify says %q", got)
	}
	text := c.ok("", "segment", "dump", files[0], "--records")
	if !strings.Contains(text, filepath.Base(files[0])) || !strings.Contains(text, `"key":"k","value":"one"`) {
		t.Errorf("dump says %q", text)
	}
	type dumped struct {
		Segment, Cluster, CRC32C string
		Version, Bytes           int64
		Extents                  []struct {
			Topic                                string
			Partition, Position, Length, Records int64
			Batches                              []map[string]any
		}
	}
	d := decode[dumped](t, c.ok("", "segment", "dump", files[0], "--output", "json"))
	if len(d.Extents) != 1 || d.Extents[0].Records != 1 || len(d.Extents[0].Batches) != 1 || d.Segment != filepath.Base(files[0]) {
		t.Errorf("dump says %+v", d)
	}

	object, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged")
	write := func(path string, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range object {
		changed := bytes.Clone(object)
		changed[i] ^= 1
		write(damaged, changed)
		if r := c.run("", "segment", "verify", damaged); r.code != exitFail {
			t.Fatalf("a changed byte %d passes: %s", i, r.stdout)
		}
	}
	for _, b := range [][]byte{nil, object[:len(object)-1], append(bytes.Clone(object), 0), []byte("a text file\n")} {
		write(damaged, b)
		got := c.run("", "segment", "verify", damaged, files[0])
		if got.code != exitFail || !strings.Contains(got.stdout, damaged+": corrupt") || !strings.Contains(got.stdout, ": ok") || !strings.Contains(got.stderr, "1 of 2 files") {
			t.Errorf("%d bytes: exit code %d, %q, %q", len(b), got.code, got.stdout, got.stderr)
		}
		c.fails(exitFail, "", "segment", "dump", damaged)
	}
	misnamed := filepath.Join(t.TempDir(), "01900000-0000-7000-8000-000000000000")
	write(misnamed, object)
	if r := c.run("", "segment", "verify", misnamed); r.code != exitFail || !strings.Contains(r.stdout, "the file holds segment") {
		t.Errorf("a misnamed file: %d, %q", r.code, r.stdout)
	}
	if got := c.fails(exitFail, "", "segment", "dump", filepath.Join(c.dir, "none")); !strings.Contains(got, "no such file") {
		t.Errorf("a missing file: %q", got)
	}
	c.fails(exitFail, "", "segment", "dump", c.dir)
}
