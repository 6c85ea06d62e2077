package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestJanitor_CompactsAndDeletesWhatIsLeft(t *testing.T) {
	c := newTool(t)
	c.ok("", "topic", "create", "orders")
	for range 40 {
		c.ok("record\n", "produce", "orders")
	}
	c.ok("gone\n", "produce", "old", "--create")
	c.ok("", "topic", "delete", "old")
	args := []string{"janitor", "--once", "--sweep", "--output", "json", "--compact-after", "0s", "--delete-grace", "0s", "--reservation-grace", "0s"}
	var first, second, dry janitorResult
	if err := json.Unmarshal([]byte(c.ok("", append(args, "--dry-run")...)), &dry); err != nil {
		t.Fatal(err)
	}
	if !dry.DryRun || dry.PurgedExtents != 1 || dry.Compacted != 40 {
		t.Errorf("a dry run says %+v", dry)
	}
	for _, r := range []*janitorResult{&first, &second} {
		if err := json.Unmarshal([]byte(c.ok("", args...)), r); err != nil {
			t.Fatal(err)
		}
	}
	if first.PurgedExtents != 1 || first.Compacted != 40 || first.CompactedInto < 1 || first.CompactedInto > 3 || first.Sweep == nil || first.Sweep.Orphans != 0 {
		t.Errorf("the first pass did %+v", first)
	}
	if first.Deleted+second.Deleted < 41 {
		t.Errorf("the passes deleted %d and %d objects, want the old segments gone", first.Deleted, second.Deleted)
	}
	files, err := filepath.Glob(filepath.Join(c.dir, "segments", "*", "*"))
	if err != nil || len(files) > 3 {
		t.Errorf("%d objects are left: %v", len(files), err)
	}
	if got := c.ok("", "consume", "orders"); got != strings.Repeat("record\n", 40) {
		t.Errorf("consume printed %d bytes", len(got))
	}
}

func TestJanitor_SweepTakesObjectsThatNobodyKnowsOnlyIfTheyAreFew(t *testing.T) {
	c := newTool(t)
	c.ok("record\n", "produce", "orders", "--create")
	files, err := filepath.Glob(filepath.Join(c.dir, "segments", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.Remove(filepath.Join(c.dir, "metadata.db")); err != nil {
		t.Fatal(err)
	}
	// Another log, which the segment of the first does not belong to.
	other := newTool(t)
	other.ok("record\n", "produce", "orders", "--create")
	r := c.run("", "janitor", "--once", "--sweep", "--sweep-age", "0s", "--metadata", "sqlite:"+filepath.Join(other.dir, "metadata.db"))
	if r.code != exitOK || !strings.Contains(r.stdout, "1 not ours") {
		t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := os.Stat(files[0]); err != nil {
		t.Error(err)
	}
}

func TestTopic_CreatedAgainShowsNoOldRecordAndOldBytesLeaveTheStore(t *testing.T) {
	c := newTool(t)
	c.ok("old one\nold two\n", "produce", "orders", "--create")
	old, err := filepath.Glob(filepath.Join(c.dir, "segments", "*", "*"))
	if err != nil || len(old) == 0 {
		t.Fatal(old, err)
	}
	c.ok("", "topic", "delete", "orders")
	c.ok("new\n", "produce", "orders", "--create")
	if got := c.ok("", "consume", "orders"); got != "new\n" {
		t.Errorf("consume printed %q", got)
	}
	for range 2 {
		c.ok("", "janitor", "--once", "--delete-grace", "0s")
	}
	for _, path := range old {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s of the deleted topic is still there: %v", filepath.Base(path), err)
		}
	}
	if got := c.ok("", "consume", "orders"); got != "new\n" {
		t.Errorf("after the janitor consume printed %q", got)
	}
}
