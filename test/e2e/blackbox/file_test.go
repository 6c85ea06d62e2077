package blackbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// memoryLimit is what produce may use at most: its buffer of 64 MiB and 128 MiB.
const memoryLimit = (64 + 128) << 20

// TestFile_ComesBackByteForByte sends a file with every kind of line, and
// finds each line of it where it was acknowledged, those of a key in order.
func TestFile_ComesBackByteForByte(t *testing.T) {
	const partitions = 16
	dir := t.TempDir()
	sent := fileLines(*lines)
	name := filepath.Join(dir, "lines")
	if err := os.WriteFile(name, []byte(strings.Join(sent, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	acks := produceFile(t, dir, name, "produce", "file", "--create", "--partitions", strconv.Itoa(partitions), "--key-separator", `\t`, "--acks")
	want := make([][]string, partitions) // the lines of each partition, as acknowledged
	acknowledged := make([]bool, len(sent)+1)
	for _, a := range acks {
		if a.N > int64(len(sent)) || acknowledged[a.N] || a.Partition >= partitions {
			t.Fatalf("acknowledgement %+v of a line that was not sent, or that has one already", a)
		}
		acknowledged[a.N] = true
		for int64(len(want[a.Partition])) <= a.Offset {
			want[a.Partition] = append(want[a.Partition], "\x00 no line was acknowledged here")
		}
		want[a.Partition][a.Offset] = sent[a.N-1]
	}
	if len(acks) != len(sent) {
		t.Fatalf("%d lines were sent and %d acknowledged", len(sent), len(acks))
	}
	consumed := 0
	for p, values := range want {
		out := must(t, dir, "", "consume", "file", "--key-separator", `\t`, "--partition", strconv.Itoa(p))
		wantSameLines(t, fmt.Sprintf("partition %d", p), out.stdout, strings.Join(append(values, ""), "\n"))
		consumed += strings.Count(out.stdout, "\n")
	}
	if consumed != len(sent) {
		t.Errorf("%d lines were sent and %d consumed", len(sent), consumed)
	}
	wantKeysInOrder(t, acks, sent)
}

// TestFile_OfOnePartitionIsTheSameFile is what `cmp` would say.
func TestFile_OfOnePartitionIsTheSameFile(t *testing.T) {
	dir := t.TempDir()
	text := strings.Join(fileLines(*lines), "\n") + "\n"
	out := must(t, dir, text, "produce", "file", "--create", "--output", "json")
	var summary struct {
		Sent, Failed int
		Partitions   map[string]struct {
			First int `json:"first_offset"`
			Last  int `json:"last_offset"`
			Count int
		}
	}
	if err := json.Unmarshal([]byte(out.stdout), &summary); err != nil {
		t.Fatalf("%v in %q", err, out.stdout)
	}
	only := summary.Partitions["0"]
	if summary.Sent != *lines || summary.Failed != 0 || only.First != 0 || only.Last != *lines-1 || only.Count != *lines {
		t.Errorf("the summary of %d lines is %s", *lines, out.stdout)
	}
	if out.maxRSS > memoryLimit {
		t.Errorf("produce used %d MiB, over %d", out.maxRSS>>20, memoryLimit>>20)
	}
	wantSameLines(t, "the file", must(t, dir, "", "consume", "file").stdout, text)
}

// produceFile sends a file and returns its acknowledgements.
func produceFile(t *testing.T, dir, file string, args ...string) []ack {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := command(t, dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &stdout, &stderr
	used := runWatched(t, cmd)
	if !cmd.ProcessState.Success() {
		t.Fatalf("%s: exit code %d\n%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), &stderr)
	}
	t.Logf("produce used %d MiB", used>>20)
	if used > memoryLimit {
		t.Errorf("produce used %d MiB, over %d", used>>20, memoryLimit>>20)
	}
	acks, err := readAcks(&stdout)
	if err != nil {
		t.Fatal(err)
	}
	return acks
}

// fileLines makes lines with keys and without, empty ones, long ones, and bytes
// that are no text.
func fileLines(n int) []string {
	random := rand.New(rand.NewPCG(*seed, 11))
	all := make([]string, n)
	for i := range all {
		value := strconv.FormatUint(random.Uint64(), 36) + strconv.FormatUint(random.Uint64(), 36)
		switch i % 50 {
		case 0:
			all[i] = ""
		case 1:
			all[i] = "\t" + value // an empty key
		case 2:
			all[i] = value // no key
		case 3:
			all[i] = fmt.Sprintf("user%d\t", random.IntN(1000)) // an empty value
		case 4:
			all[i] = fmt.Sprintf("user%d\t%s\r", random.IntN(1000), value)
		case 5:
			all[i] = fmt.Sprintf("user%d\ta\tb\x00\xff\xfe%s\x1b[31m", random.IntN(1000), value)
		case 6:
			all[i] = fmt.Sprintf("user%d\t%s", random.IntN(1000), strings.Repeat(value, 1+random.IntN(40)))
		default:
			all[i] = fmt.Sprintf("user%d\t{\"line\":%d,\"value\":%q}", random.IntN(1000), i+1, value)
		}
	}
	return all
}

func wantSameLines(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	gotLines, wantLines := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Fatalf("%s: line %d came back as %.80q, want %.80q", what, i+1, gotLines[i], wantLines[i])
		}
	}
	t.Fatalf("%s: %d lines came back, want %d", what, len(gotLines)-1, len(wantLines)-1)
}

// wantKeysInOrder fails the test unless each key is in one partition, and its
// lines there in the order they were sent.
func wantKeysInOrder(t *testing.T, acks []ack, sent []string) {
	t.Helper()
	byLine := make([]ack, len(sent))
	for _, a := range acks {
		byLine[a.N-1] = a
	}
	last := map[string]ack{}
	for i, a := range byLine {
		key, _, keyed := strings.Cut(sent[i], "\t")
		if !keyed {
			continue
		}
		if before, ok := last[key]; ok && (before.Partition != a.Partition || before.Offset >= a.Offset) {
			t.Fatalf("key %q: line %d is at %d/%d, line %d before it at %d/%d", key, a.N, a.Partition, a.Offset, before.N, before.Partition, before.Offset)
		}
		last[key] = a
	}
}
