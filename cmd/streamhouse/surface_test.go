package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun_TakesANameThatBeginsWithADashAfterTwoDashes(t *testing.T) {
	c := newTool(t)
	c.ok("", "topic", "create", "--", "-orders")
	c.ok("one\n", "produce", "--", "-orders")
	if got := c.ok("", "consume", "--", "-orders"); got != "one\n" {
		t.Errorf("consume printed %q", got)
	}
	c.fails(exitUsage, "", "consume", "-orders")
	c.fails(exitUsage, "", "consume", "--", "-orders", "--follow")
}

func TestRun_ShowsNoSecretOfItsConfiguration(t *testing.T) {
	const secret = "hunter2"
	c := newTool(t)
	file := filepath.Join(t.TempDir(), "sh.yaml")
	if err := os.WriteFile(file, []byte("segments: s3://key:"+secret+"@bucket?token="+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	metadata := "postgres://user:" + secret + "@host/db?password=" + secret
	for _, args := range [][]string{
		{"topic", "list", "--metadata", metadata},
		{"topic", "list", "--metadata", "sqlite:/nowhere/" + "m.db?key=" + secret},
		{"produce", "orders", "--metadata", metadata, "--segments", "file:x"},
		{"consume", "orders", "--config", file},
		{"bench", "produce", "--metadata", metadata, "--output", "xml"},
	} {
		r := c.run("", args...)
		if r.code == exitOK || r.stderr == "" || strings.Contains(r.stdout+r.stderr, secret) {
			t.Errorf("%q: exit code %d, %s%s", args, r.code, r.stdout, r.stderr)
		}
	}
	c.env = []string{"STREAMHOUSE_METADATA=" + metadata, "STREAMHOUSE_SEGMENTS=s3:" + secret + "@x"}
	if r := c.runWith(context.Background(), strings.NewReader(""), nil, "topic", "list"); r.code == exitOK || strings.Contains(r.stdout+r.stderr, secret) {
		t.Errorf("from the environment: exit code %d, %s%s", r.code, r.stdout, r.stderr)
	}
}
