package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// counts are tests, benchmarks and packages that could not be run at all. A
// test counts whether or not it is part of another.
type counts struct{ passed, failed int }

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, ImportPath, Test, Output, FailedBuild string
	Elapsed                                                float64
}

// reader follows the events of many packages at once.
type reader struct {
	counts
	out     io.Writer
	output  map[string][]string // of each test that runs, and of each package
	failing map[string]bool     // packages with a failed test
}

// read counts what the events tell, and prints what is worth reading. A skipped
// test counts as failed: one that cannot run must say so.
func read(in io.Reader, out io.Writer) (counts, error) {
	r := &reader{out: out, output: map[string][]string{}, failing: map[string]bool{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(out, lines.Text()) // not of a test: the go command itself speaks
			continue
		}
		r.take(e)
	}
	return r.counts, lines.Err()
}

func (r *reader) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.hear(key, e)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip", "bench":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(key, e)
		}
		delete(r.output, key)
	}
}

func (r *reader) hear(key string, e event) {
	r.output[key] = append(r.output[key], e.Output)
	// That a benchmark has ended is told by its result only.
	if strings.HasPrefix(e.Test, "Benchmark") && strings.Contains(e.Output, " ns/op") {
		r.passed++
		fmt.Fprintf(r.out, "%s%s\n", e.Test, strings.TrimRight(strings.TrimPrefix(e.Output, e.Test), "\n"))
	}
}

func (r *reader) endTest(key string, e event) {
	switch {
	case e.Action == "bench" || e.Action == "pass" && strings.HasPrefix(e.Test, "Benchmark"):
		return
	case e.Action == "pass":
		r.passed++
		return
	}
	r.failed++
	r.failing[e.Package] = true
	fmt.Fprintf(r.out, "%s %s %s\n", strings.ToUpper(e.Action), e.Package, e.Test)
	for _, line := range r.output[key] {
		if strings.HasPrefix(strings.TrimLeft(line, " "), "--- ") {
			r.repeat(r.output[key])
		}
		fmt.Fprint(r.out, line)
	}
}

// said is the first line of what a test has logged, or failed with.
var said = regexp.MustCompile(`^ +[\w.-]+\.go:\d+: .`)

const (
	saidLines  = 30
	saidLength = 400
)

// repeat prints once more the last lines that a test has said itself, for those who see the end of
// its output only: the log of a server may stand between the reason and the end.
func (r *reader) repeat(output []string) {
	var lines []string
	for _, line := range output {
		if said.MatchString(line) {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	if len(lines) == 0 || len(output) < saidLines {
		return
	}
	fmt.Fprintln(r.out, "said, in short:")
	for _, line := range lines[max(0, len(lines)-saidLines):] {
		fmt.Fprintln(r.out, line[:min(len(line), saidLength)])
	}
}

func (r *reader) endPackage(e event) {
	switch {
	case e.Action == "skip": // no test files
		return
	case e.Action == "fail" && !r.failing[e.Package]:
		// It was not built, panicked, or ran out of time.
		r.failed++
		for _, line := range r.output[e.Package+" "] {
			fmt.Fprint(r.out, line)
		}
	}
	fmt.Fprintf(r.out, "%-4s %-70s %6.1fs\n", map[string]string{"pass": "ok", "fail": "FAIL"}[e.Action], e.Package, e.Elapsed)
}

func appendTally(file, name string, c counts) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d %d %s\n", c.passed, c.failed, name)
	return errors.Join(err, f.Close())
}

// printSum prints the sums of the file's counts as its last line.
func printSum(file string, stdout, stderr io.Writer) int {
	text, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintf(stderr, "report: %v\n", err)
		return 1
	}
	var sum counts
	for line := range strings.Lines(string(text)) {
		var c counts
		var name string
		if _, err := fmt.Sscanf(line, "%d %d %s\n", &c.passed, &c.failed, &name); err != nil {
			fmt.Fprintf(stderr, "report: %s: %q: %v\n", file, line, err)
			return 1
		}
		fmt.Fprintf(stdout, "%-24s %8d passed %4d failed\n", name, c.passed, c.failed)
		sum.passed += c.passed
		sum.failed += c.failed
	}
	fmt.Fprintf(stdout, "%d passed, %d failed\n", sum.passed, sum.failed)
	if sum.failed > 0 || sum.passed == 0 {
		return 1
	}
	return 0
}
