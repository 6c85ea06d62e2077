package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/logging"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/wiring"
)

func (a *app) serveCommand() *cobra.Command {
	var printConfig bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run an agent: serve the log over gRPC",
		Long: "Serves producers and consumers in front of the data folder, or of Postgres and a bucket.\n" +
			"Any number of agents may serve one log; they hold nothing that another could not. The janitor\n" +
			"runs inside.\n\n" +
			"Without TLS and tokens it listens on loopback only, unless --listen says otherwise. SIGTERM\n" +
			"drains: the agent leaves the list, tells clients to go elsewhere, and finishes and answers what\n" +
			"it has accepted. A second signal ends it at once; clients then send again what was not answered.",
		Example: "  streamhouse serve\n" +
			"  streamhouse serve --listen 0.0.0.0:7070 --advertise 10.0.0.7:7070 --tls-cert agent.pem --tls-key agent-key.pem --tokens tokens.yaml",
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&printConfig, "print-config", false, "show the settings, without secrets, and end")
	groups := []settings.Group{settings.Stores, settings.Serving, settings.Upkeep, settings.Logging}
	settings.AddFlags(flags, groups...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.settings(cmd)
		if err != nil {
			return err
		}
		if printConfig {
			return s.Print(a.stdout, groups...)
		}
		return a.serve(cmd.Context(), s)
	}
	return cmd
}

func (a *app) serve(ctx context.Context, s settings.Settings) (err error) {
	cfg := wiringConfig(s)
	cfg.Agents = settings.Agents{} // of the environment, for clients
	log := logging.New(a.stderr, s.Log)
	cfg.Log = log
	if err := a.traced(&cfg); err != nil {
		return err
	}
	cfg.Traces.Failed = func(err error) { log.Warn("traces were not sent", "error", err.Error()) }
	var service *wiring.Service
	system, err := a.open(ctx, cfg, &service)
	if err != nil {
		return err
	}
	defer closing(ctx, system, &err)
	log.Info("agent serves", "address", service.Address, "admin", service.Admin, "group", s.Serve.Group, "zone", s.Serve.Zone,
		"version", cfg.Version, "tls", s.Serve.TLS.Cert != "", "tokens", s.Serve.Tokens != "", "traces", cfg.Traces.Enabled())
	select {
	case <-ctx.Done():
	case <-service.DrainAsked():
	case err := <-service.Failed:
		return err
	}
	log.Info("agent drains", "address", service.Address, "timeout", s.Serve.DrainTimeout)
	service.Drain()
	return nil
}
