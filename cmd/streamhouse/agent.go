package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/wiring"
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
