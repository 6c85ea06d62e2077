package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// completions returns what a shell is offered, and whether it offers files too.
func (c *tool) completions(args ...string) (words []string, files bool) {
	c.t.Helper()
	out := lines(c.ok("", append([]string{"__completeNoDesc"}, args...)...))
	if len(out) == 0 {
		c.t.Fatalf("%q: no directive", args)
	}
	// The last line is cobra's directive; bit 4 says: no files.
	last := out[len(out)-1]
	return out[:len(out)-1], last == ":0"
}

func TestCompletion_OffersTopicsWhereATopicIsWanted(t *testing.T) {
	c := newTool(t)
	if words, files := c.completions("consume", ""); len(words) > 0 || files {
		t.Errorf("without a log it offers %q, files: %v", words, files)
	}
	if _, err := os.Stat(c.dir); err == nil {
		t.Error("a completion has made the data folder")
	}
	for _, name := range []string{"orders", "other", "payments"} {
		c.ok("", "topic", "create", name)
	}
	for _, command := range []string{"produce", "consume", "topic describe", "topic delete", "topic widen"} {
		if words, files := c.completions(append(strings.Fields(command), "o")...); !slices.Equal(words, []string{"orders", "other"}) || files {
			t.Errorf("%s offers %q, files: %v", command, words, files)
		}
	}
	if words, files := c.completions("consume", "orders", ""); len(words) > 0 || files {
		t.Errorf("after the topic it offers %q, files: %v", words, files)
	}
	if words, files := c.completions("topic", "create", ""); len(words) > 0 || files {
		t.Errorf("for a new topic it offers %q, files: %v", words, files)
	}
	if _, files := c.completions("segment", "verify", ""); !files {
		t.Error("it does not offer files where files are wanted")
	}
}

func TestCompletion_OffersOnlyValuesThatTheFlagTakes(t *testing.T) {
	root := (&app{}).rootCommand()
	for name, values := range flagValues {
		used := 0
		everyCommand(root, func(cmd *cobra.Command) {
			if cmd.Flags().Lookup(name) == nil {
				return
			}
			used++
			path := strings.Fields(cmd.CommandPath())[1:]
			c := newTool(t)
			if words, files := c.completions(append(path, "--"+name, "")...); !slices.Equal(words, values) || files {
				t.Errorf("%s --%s offers %q, files: %v", cmd.CommandPath(), name, words, files)
			}
		})
		if used == 0 {
			t.Errorf("no command has the flag --%s", name)
		}
		command := map[string]string{"from": "consume"}[name]
		if command == "" {
			command = "produce"
		}
		for _, value := range values {
			c := newTool(t)
			c.ok("", "topic", "create", "orders")
			c.ok("", command, "orders", "--"+name, value)
		}
	}
}

func everyCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, below := range cmd.Commands() {
		everyCommand(below, f)
	}
}
