package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/app/storecheck"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/wiring"
	"github.com/streamhouse/streamhouse/domain"
)

// errStoreUnfit is the end of a check that found something.
var errStoreUnfit = errors.New("the store is not fit: see above")

func (a *app) storeCommand() *cobra.Command {
	return group("store", "Look at a segment store", a.storeCheck())
}

func (a *app) storeCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check URL",
		Short: "Find out whether a bucket or folder can hold segments",
		Long: "Puts, reads, lists and deletes small objects in the store, among them races of puts for\n" +
			"one key, and says for each promise whether the store keeps it and what to do if not. It works\n" +
			"in a folder of its own below the URL's prefix and cleans up after itself.",
		Example: "  streamhouse store check 's3://bucket/prefix?endpoint=http://127.0.0.1:9000&path_style=true'",
		Args:    oneArgument("store URL"),
	}
	settings.AddFlags(cmd.Flags(), settings.Output)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.settings(cmd)
		if err != nil {
			return err
		}
		return a.checkStore(cmd.Context(), args[0], s.JSON)
	}
	return cmd
}

func (a *app) checkStore(ctx context.Context, location string, json bool) error {
	report, err := wiring.CheckStore(ctx, location)
	switch {
	case errors.Is(err, domain.ErrConfig):
		return &usageError{err}
	case err != nil:
		return err
	}
	if json {
		err = writeJSON(a.stdout, newStoreResult(report))
	} else {
		err = writeChecks(a.stdout, report)
	}
	if err == nil && !report.OK() {
		err = errStoreUnfit
	}
	return err
}

// storeResult is what --output json prints.
type storeResult struct {
	OK     bool          `json:"ok"`
	Checks []checkResult `json:"checks"`
}

type checkResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

func newStoreResult(r storecheck.Report) storeResult {
	result := storeResult{OK: r.OK(), Checks: make([]checkResult, len(r.Results))}
	for i, c := range r.Results {
		result.Checks[i] = checkResult{c.Name, c.OK, c.Detail, c.Fix}
	}
	return result
}

func writeChecks(w io.Writer, r storecheck.Report) error {
	for _, c := range r.Results {
		mark := "ok  "
		if !c.OK {
			mark = "FAIL"
		}
		if _, err := fmt.Fprintf(w, "%s  %s\n", mark, visible(c.Name)); err != nil {
			return err
		}
		if c.OK {
			continue
		}
		if _, err := fmt.Fprintf(w, "      %s\n      %s\n", visible(c.Detail), visible(c.Fix)); err != nil {
			return err
		}
	}
	return nil
}
