package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun_CountsTestsAndWhatCouldNotRun(t *testing.T) {
	for _, c := range []struct {
		name, events string
		passed       string
		exit         int
		shown        string
	}{
		{"all pass", `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA/one"}
{"Action":"pass","Package":"p","Elapsed":1}`, "2 passed, 0 failed", 0, "ok"},
		{"one fails and shows its output", `{"Action":"output","Package":"p","Test":"TestA","Output":"the reason\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p"}`, "1 passed, 1 failed", 1, "the reason"},
		{"a package that was not built is a failure", `{"ImportPath":"p","Action":"build-output","Output":"undefined: x\n"}
{"Action":"pass","Package":"q","Test":"TestB"}
{"Action":"fail","Package":"p","FailedBuild":"p"}`, "1 passed, 1 failed", 1, "undefined: x"},
		{"a package that panicked is a failure", `{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"panic: boom\n"}
{"Action":"fail","Package":"p"}`, "1 passed, 1 failed", 1, "panic: boom"},
		{"a skipped test is a failure", `{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}`, "0 passed, 1 failed", 1, "SKIP p TestA"},
		{"a package without tests is neither", `{"Action":"skip","Package":"p"}
{"Action":"pass","Package":"q","Test":"TestB"}`, "1 passed, 0 failed", 0, ""},
		{"a benchmark counts", `{"Action":"output","Package":"p","Test":"BenchmarkX","Output":"BenchmarkX-2 "}
{"Action":"output","Package":"p","Test":"BenchmarkX","Output":"1   12 ns/op\n"}
{"Action":"pass","Package":"p","Test":"BenchmarkX"}
{"Action":"pass","Package":"p"}`, "1 passed, 0 failed", 0, "BenchmarkX1   12 ns/op"},
		{"nothing at all is no success", ``, "0 passed, 0 failed", 1, ""},
		{"words of the go command are shown", "go: no such module\n", "0 passed, 0 failed", 1, "no such module"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tally := filepath.Join(t.TempDir(), "tally")
			var out, errs bytes.Buffer
			exit := run([]string{"-name", "x", "-tally", tally}, strings.NewReader(c.events), &out, &errs)
			if exit != c.exit || !strings.HasSuffix(out.String(), "x: "+c.passed+"\n") || !strings.Contains(out.String(), c.shown) {
				t.Fatalf("exit %d, want %d; printed\n%s%s", exit, c.exit, &out, &errs)
			}
			var sum bytes.Buffer
			if exit := run([]string{"-sum", "-tally", tally}, nil, &sum, &errs); exit != c.exit || !strings.HasSuffix(sum.String(), "\n"+c.passed+"\n") {
				t.Fatalf("the sum exits %d, want %d, and prints\n%s%s", exit, c.exit, &sum, &errs)
			}
		})
	}
}

func TestRun_SumsWhatManyRunsLeft(t *testing.T) {
	tally := filepath.Join(t.TempDir(), "tally")
	for range 3 {
		run([]string{"-tally", tally}, strings.NewReader(`{"Action":"pass","Package":"p","Test":"TestA"}`), new(bytes.Buffer), new(bytes.Buffer))
	}
	var sum bytes.Buffer
	if exit := run([]string{"-sum", "-tally", tally}, nil, &sum, new(bytes.Buffer)); exit != 0 || !strings.HasSuffix(sum.String(), "\n3 passed, 0 failed\n") {
		t.Fatalf("exit %d, printed\n%s", exit, &sum)
	}
}

func TestRun_RepeatsTheReasonBehindALongLog(t *testing.T) {
	var events strings.Builder
	say := func(line string) {
		b, err := json.Marshal(event{Action: "output", Package: "p", Test: "TestA", Output: line})
		if err != nil {
			t.Fatal(err)
		}
		events.Write(append(b, '\n'))
	}
	say("    a_test.go:7: the reason\n")
	say("    a_test.go:9: the log of a server:\n")
	for range saidLines {
		say("        a line of it\n")
	}
	say("--- FAIL: TestA (1.00s)\n")
	events.WriteString(`{"Action":"fail","Package":"p","Test":"TestA"}` + "\n")
	var out, errs bytes.Buffer
	run([]string{"-name", "x"}, strings.NewReader(events.String()), &out, &errs)
	_, after, _ := strings.Cut(out.String(), "a line of it\nsaid, in short:\n")
	if !strings.HasPrefix(after, "    a_test.go:7: the reason\n    a_test.go:9: the log of a server:\n--- FAIL: TestA (1.00s)\n") {
		t.Fatalf("printed\n%s%s", &out, &errs)
	}
}
