package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
)

// askTimeout is how long an agent's admin listener may take to answer.
const askTimeout = 10 * time.Second

func (a *app) agentReady() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ready [ADMIN-ADDRESS]",
		Short: "Say whether an agent takes work",
		Long: "Asks the agent whose admin listener is at ADMIN-ADDRESS, or else at the address of this\n" +
			"configuration, whether it takes work. Exit code 0 says that it does; else the reason is told.\n" +
			"It is the health check of the container image, which has no shell.",
		Example: "  streamhouse agent ready\n  streamhouse agent ready 10.0.0.7:7071",
		Args:    cobra.MaximumNArgs(1),
	}
	settings.AddFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.settings(cmd)
		if err != nil {
			return err
		}
		address := s.Serve.Admin
		if len(args) > 0 {
			address = args[0]
		}
		if address == "" {
			return usagef("the admin address is none: give ADMIN-ADDRESS")
		}
		address = reachable(address)
		if err := ask(cmd.Context(), http.MethodGet, address, "/readyz", ""); err != nil {
			return err
		}
		return a.print(fmt.Appendf(nil, "%s is ready\n", address))
	}
	return cmd
}

// reachable turns an address to listen at into one to call: what listens at
// every address of a machine listens at its loopback too.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

func (a *app) agentDrain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain ADMIN-ADDRESS",
		Short: "Ask an agent to finish what it has, and to end",
		Long: "Asks the agent whose admin listener is at ADMIN-ADDRESS to drain, as SIGTERM does. The\n" +
			"agent must have an --admin-token, and it must be given here, best as STREAMHOUSE_ADMIN_TOKEN.",
		Example: "  STREAMHOUSE_ADMIN_TOKEN=... streamhouse agent drain 127.0.0.1:7071",
		Args:    oneArgument("admin address"),
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
		if err := ask(cmd.Context(), http.MethodPost, args[0], "/drain", s.Serve.AdminToken); err != nil {
			return err
		}
		return a.print(fmt.Appendf(nil, "%s is draining\n", args[0]))
	}
	return cmd
}

// ask sends a request to an agent's admin listener. Another answer than 200 is
// an error that has what the agent said.
func ask(ctx context.Context, method, address, path, token string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, nil)
	if err != nil {
		return usagef("%.80q is no address: want HOST:PORT", address)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	request.Close = true // one request is all
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the agent at %s: %w", address, errors.Unwrap(err))
	}
	defer func() { _ = response.Body.Close() }() // what it said has been read
	said, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the agent at %s says %s: %s", address, response.Status, visible(strings.TrimSpace(string(said))))
	}
	return err
}
