package blackbox_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	diskBytes    = 24 << 20
	ballastBytes = 4 << 20
)

// smallDisk mounts a file system of diskBytes. It needs root; without it the
// test fails, because nothing else fills a disk for certain.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskBytes)); err != nil {
		t.Fatalf("mount a small tmpfs: %v: this test needs root, or a user and mount namespace (unshare -rm)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestFullDisk_SaysWhatWasNotStored fills the disk in the middle of producing.
// What was acknowledged is readable once there is room again, and the log goes on.
func TestFullDisk_SaysWhatWasNotStored(t *testing.T) {
	dir := smallDisk(t)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, ballastBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	var input bytes.Buffer
	random := rand.New(rand.NewPCG(*seed, 13))
	var sent []string
	for n := 1; input.Len() < 2*diskBytes; n++ {
		value := fmt.Sprintf("0/%d/", n)
		for len(value) < 1000 {
			value += strconv.FormatUint(random.Uint64(), 36)
		}
		sent = append(sent, value)
		input.WriteString(value + "\n")
	}

	out := run(t, dir, input.String(), "produce", "brim", "--create", "--partitions", "2", "--acks",
		"--compression", "none", "--delivery-timeout", "2s", "--buffer-bytes", "8MiB")
	acks, err := readAcks(strings.NewReader(out.stdout))
	if err != nil {
		t.Fatal(err)
	}
	if out.exit != 1 || len(acks) == 0 || len(acks) == len(sent) {
		t.Fatalf("exit code %d, %d of %d lines acknowledged; said\n%s", out.exit, len(acks), len(sent), out.stderr)
	}
	wantFailures(t, out.stderr, acks)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	logs := make(partitionLogs, 2)
	logs.catchUp(t, dir, "brim")
	logs.wantAcked(t, acks, func(n int64) string { return sent[n-1] })
	logs.wantSessionsInOrder(t)
	after := must(t, dir, "there is room again\n", "produce", "brim", "--partition", "1", "--acks")
	want := fmt.Sprintf("{\"n\":1,\"partition\":1,\"offset\":%d}\n", len(logs[1]))
	if after.stdout != want {
		t.Errorf("after space returned, produce said %q, want %q", after.stdout, want)
	}
	t.Logf("%d of %d lines were acknowledged; then %s", len(acks), len(sent), out.stderr)
}

// wantFailures fails the test unless the last words count the failed lines,
// name the first of them, and give the reason.
func wantFailures(t *testing.T, stderr string, acks []ack) {
	t.Helper()
	told := regexp.MustCompile(`streamhouse: ([0-9,]+) of [0-9,]+ records failed, the first in line ([0-9]+): (.+)`).FindStringSubmatch(stderr)
	if told == nil {
		t.Fatalf("it does not say how many records failed:\n%s", stderr)
	}
	acked := map[int64]bool{}
	for _, a := range acks {
		acked[a.N] = true
	}
	first := int64(1)
	for acked[first] {
		first++
	}
	if told[2] != strconv.FormatInt(first, 10) {
		t.Errorf("it says that line %s failed first; line %d is the first without an acknowledgement", told[2], first)
	}
	if !strings.Contains(told[3], "no space left on device") && !strings.Contains(told[3], "database or disk is full") {
		t.Errorf("the reason does not name the full disk: %s", told[3])
	}
}
