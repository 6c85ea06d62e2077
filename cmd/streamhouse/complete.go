package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/app/topics"
)

// completeWithin bounds how long a shell waits for the names of topics.
const completeWithin = 2 * time.Second

// flagValues are what a shell offers for flags that have few values.
var flagValues = map[string][]string{
	"output":      {"text", "json"},
	"format":      {"lines", "json"},
	"from":        {"start", "end"},
	"compression": {"lz4", "none"},
	"partitioner": {"siphash", "murmur2", "round-robin", "sticky"},
	"idempotence": {"true", "false"},
}

// addCompletions tells shells what may stand after the command and its
// flags, and the same for all commands below it.
func (a *app) addCompletions(cmd *cobra.Command) {
	for _, below := range cmd.Commands() {
		a.addCompletions(below)
	}
	for name, values := range flagValues {
		if cmd.Flags().Lookup(name) != nil {
			must(cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)))
		}
	}
	if cmd.Flags().Lookup("data") != nil {
		must(cmd.MarkFlagDirname("data"))
	}
	switch {
	case strings.HasSuffix(cmd.Use, " TOPIC") && cmd.Name() != "create":
		cmd.ValidArgsFunction = a.completeTopic
	case !strings.Contains(cmd.Use, "FILE"):
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
}

// must is for what can fail only if a flag is not there.
func must(err error) {
	if err != nil {
		panic("completion: " + err.Error())
	}
}

// completeTopic offers the topics of the stores that the command would open.
func (a *app) completeTopic(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := a.topicNames(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // a prompt is no place for it
	}
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, begun) }), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) topicNames(cmd *cobra.Command) (names []string, err error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	s, err := a.settings(cmd)
	if err != nil {
		return nil, err
	}
	cfg := wiringConfig(s)
	cfg.Existing = true
	var t *topics.Topics
	system, err := a.open(ctx, cfg, &t)
	if err != nil {
		return nil, err
	}
	defer closing(ctx, system, &err)
	list, err := t.List(ctx)
	for _, topic := range list {
		names = append(names, topic.Name)
	}
	return names, err
}
