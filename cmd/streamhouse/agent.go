package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/wiring"
	"github.com/streamhouse/streamhouse/ports"
)

func (a *app) agentCommand() *cobra.Command {
	return group("agent", "Look at agents, and drain one", a.agentList(), a.agentDrain())
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

func (a *app) agentDrain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain ADMIN-ADDRESS",
		Short: "Ask an agent to finish what it has, and to end",
		Long: "Asks the agent whose admin listener is at ADMIN-ADDRESS to drain, as SIGTERM does. The\n" +
			"agent must have an --admin-token, and it must be given here, best as STREAMHOUSE_ADMIN_TOKEN.",
		Example: "  STREAMHOUSE_ADMIN_TOKEN=... streamhouse agent drain 127.0.0.1:7071",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("want one admin address, got %d arguments", len(args))
			}
			return nil
		},
	}
	settings.AddFlags(cmd.Flags(), settings.Output)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.settings(cmd)
		if err != nil {
			return err
		}
		if s.Serve.AdminToken == "" {
			return usagef("there is no admin token: set STREAMHOUSE_ADMIN_TOKEN, or admin-token in the file")
		}
		if err := askToDrain(cmd.Context(), args[0], s.Serve.AdminToken); err != nil {
			return err
		}
		return a.print(fmt.Appendf(nil, "%s is draining\n", args[0]))
	}
	return cmd
}

func askToDrain(ctx context.Context, address, token string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/drain", nil)
	if err != nil {
		return usagef("%.80q is no address: want HOST:PORT", address)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the agent at %s to drain: %w", address, errors.Unwrap(err))
	}
	defer func() { _ = response.Body.Close() }() // what it said has been read
	said, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("ask the agent at %s to drain: %s: %s", address, response.Status, visible(strings.TrimSpace(string(said))))
	}
	return err
}
