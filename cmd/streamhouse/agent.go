package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/wiring"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

func (a *app) agentCommand() *cobra.Command {
	return group("agent", "Look at agents, and drain one", a.agentList(), a.agentReady(), a.agentDrain())
}

// agentJSON is an agent as --output json prints it.
type agentJSON struct {
	ID        string    `json:"id"`
	Group     string    `json:"group"`
	Zone      string    `json:"zone,omitempty"`
	Address   string    `json:"address"`
	Version   string    `json:"version"`
	Draining  bool      `json:"draining"`
	StartedAt time.Time `json:"started_at"`
	SeenAt    time.Time `json:"seen_at"`
}

func newAgents(list []ports.Agent) []agentJSON {
	all := make([]agentJSON, len(list))
	for i, g := range list {
		all[i] = agentJSON{g.ID.String(), g.Group, g.Zone, g.Address, g.Version, g.Draining, g.StartedAt, g.SeenAt}
	}
	return all
}

func (a *app) agentList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the agents that are alive",
		Example: "  streamhouse agent list\n  streamhouse agent list --agents 10.0.0.7:7070 --output json",
		Args:    cobra.NoArgs,
	}
	settings.AddFlags(cmd.Flags(), settings.Stores, settings.Agency, settings.Output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		s, err := a.settings(cmd)
		if err != nil {
			return err
		}
		cfg := wiringConfig(s)
		cfg.Existing = true
		var lister wiring.AgentLister
		system, err := a.open(cmd.Context(), cfg, &lister)
		if err != nil {
			return err
		}
		defer closing(cmd.Context(), system, &err)
		list, err := lister.Agents(cmd.Context(), "")
		if err != nil {
			return err
		}
		if s.JSON {
			return writeJSON(a.stdout, newAgents(list))
		}
		return a.printAgents(list)
	}
	return cmd
}

func (a *app) printAgents(list []ports.Agent) error {
	w := a.table()
	fmt.Fprintln(w, "AGENT\tGROUP\tZONE\tADDRESS\tVERSION\tSTARTED\tSEEN\tSTATE")
	for _, g := range list {
		state := "serving"
		if g.Draining {
			state = "draining"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.ID, g.Group, dash(g.Zone), visible(g.Address), visible(g.Version),
			g.StartedAt.UTC().Format(time.RFC3339), g.SeenAt.UTC().Format(time.RFC3339), state)
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// statusJSON is what status --output json prints.
type statusJSON struct {
	Agents []agentJSON `json:"agents"`
	Topics []topicJSON `json:"topics"`
}

type topicJSON struct {
	Topic      string `json:"topic"`
	Partitions int32  `json:"partitions"`
	Records    int64  `json:"records"`
	Bytes      int64  `json:"bytes"`
}

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the agents that are alive, and how much is in each topic",
		Example: "  streamhouse status\n  streamhouse status --agents 10.0.0.7:7070 --output json",
		Args:    cobra.NoArgs,
	}
	settings.AddFlags(cmd.Flags(), settings.Stores, settings.Agency, settings.Output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		s, err := a.settings(cmd)
		if err != nil {
			return err
		}
		cfg := wiringConfig(s)
		cfg.Existing = true
		var lister wiring.AgentLister
		var t *topics.Topics
		system, err := a.open(cmd.Context(), cfg, &lister, &t)
		if err != nil {
			return err
		}
		defer closing(cmd.Context(), system, &err)
		return a.status(cmd.Context(), lister, t, s.JSON)
	}
	return cmd
}

func (a *app) status(ctx context.Context, lister wiring.AgentLister, t *topics.Topics, json bool) error {
	agents, err := lister.Agents(ctx, "")
	if err != nil {
		return err
	}
	all, err := sizes(ctx, t)
	if err != nil {
		return err
	}
	if json {
		return writeJSON(a.stdout, statusJSON{newAgents(agents), all})
	}
	if len(agents) == 0 {
		fmt.Fprintln(a.stdout, "no agents")
	} else if err := a.printAgents(agents); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	w := a.table()
	fmt.Fprintln(w, "TOPIC\tPARTITIONS\tRECORDS\tSTORED")
	for _, topic := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", topic.Topic, topic.Partitions, grouped(topic.Records), sizeText(topic.Bytes))
	}
	return w.Flush()
}

// sizes sums up each topic. One that is deleted meanwhile is left out.
func sizes(ctx context.Context, t *topics.Topics) ([]topicJSON, error) {
	list, err := t.List(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]topicJSON, 0, len(list))
	for _, topic := range list {
		d, err := t.Describe(ctx, topic.Name)
		switch {
		case errors.Is(err, domain.ErrTopicNotFound):
			continue
		case err != nil:
			return nil, err
		}
		sum := topicJSON{Topic: topic.Name, Partitions: d.Partitions}
		for _, s := range d.States {
			sum.Records += int64(s.HighWatermark - s.LogStart)
			sum.Bytes += s.Bytes
		}
		all = append(all, sum)
	}
	return all, nil
}
