package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/logging"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
)

// janitorFlags are how the janitor runs.
type janitorFlags struct{ once, dryRun, sweep bool }

func (a *app) janitorCommand() *cobra.Command {
	var f janitorFlags
	cmd := &cobra.Command{
		Use:   "janitor",
		Short: "Remove what is no longer needed, and compact small segments",
		Long: "Applies the topics' retention, takes away what deleted topics and unfinished uploads\n" +
			"left, and rewrites many small segments into large ones. Any number may run at once, beside\n" +
			"writers and readers. It goes on until it is interrupted; with --once it makes one pass.\n\n" +
			"A sweep lists the whole bucket for objects that metadata knows nothing of. It is made every\n" +
			"--sweep-interval, and with --once only if --sweep is given.",
		Example: "  streamhouse janitor --once\n" +
			"  streamhouse janitor --once --dry-run --sweep --output json",
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&f.once, "once", false, "make one pass and end")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what one pass would do, and change nothing")
	flags.BoolVar(&f.sweep, "sweep", false, "with --once: sweep the bucket too")
	settings.AddFlags(flags, settings.Stores, settings.Output, settings.Upkeep, settings.Logging)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		s, err := a.settings(cmd)
		if err != nil {
			return err
		}
		if f.sweep && !f.once && !f.dryRun {
			return usagef("--sweep goes with --once or --dry-run; without them sweeps come by themselves")
		}
		cfg := wiringConfig(s)
		cfg.Existing = true
		if !f.once && !f.dryRun {
			cfg.Log = logging.New(a.stderr, s.Log)
		}
		var j *janitor.Janitor
		system, err := a.open(cmd.Context(), cfg, &j)
		if err != nil {
			return err
		}
		defer closing(cmd.Context(), system, &err)
		if !f.once && !f.dryRun {
			cfg.Log.Info("janitor works until it is interrupted", "interval", cfg.Janitor.Interval, "sweep_interval", cfg.Janitor.SweepInterval)
			j.Run(cmd.Context())
			return nil
		}
		return a.onePass(cmd.Context(), j, f, s.JSON)
	}
	return cmd
}

func (a *app) onePass(ctx context.Context, j *janitor.Janitor, f janitorFlags, json bool) error {
	began := time.Now()
	pass := j.Once
	if f.dryRun {
		pass = j.Plan
	}
	report, err := pass(ctx, f.sweep)
	result := newJanitorResult(report, f)
	result.Seconds = time.Since(began).Seconds()
	if json {
		return joinWrite(err, writeJSON(a.stdout, result))
	}
	return joinWrite(err, result.writeText(a.stdout))
}

// joinWrite returns the first of the failure of the work and that of telling of
// it.
func joinWrite(work, telling error) error {
	if work != nil {
		return work
	}
	return telling
}

// janitorResult is what --output json prints.
type janitorResult struct {
	DryRun           bool         `json:"dry_run"`
	RetainedExtents  int          `json:"retention_removed_extents"`
	RetainedBytes    int64        `json:"retention_removed_bytes"`
	PurgedExtents    int          `json:"deleted_topics_removed_extents"`
	PurgedBytes      int64        `json:"deleted_topics_removed_bytes"`
	Expired          int          `json:"expired_reservations"`
	Deleted          int          `json:"deleted_objects"`
	Forgotten        int          `json:"forgotten_rows"`
	Compacted        int          `json:"compacted_extents"`
	CompactedInto    int          `json:"compacted_into_extents"`
	CompactedBytes   int64        `json:"compacted_bytes"`
	CompactionObject int          `json:"compaction_objects"`
	Sweep            *sweepResult `json:"sweep,omitempty"`
	Seconds          float64      `json:"seconds"`
}

type sweepResult struct {
	Objects     int   `json:"objects"`
	Orphans     int   `json:"orphans"`
	OrphanBytes int64 `json:"orphan_bytes"`
	Deleted     int   `json:"deleted"`
	Foreign     int   `json:"foreign"`
}

func newJanitorResult(r janitor.Report, f janitorFlags) janitorResult {
	result := janitorResult{
		DryRun: f.dryRun, RetainedExtents: r.Retained.Extents, RetainedBytes: r.Retained.Bytes,
		PurgedExtents: r.Purged.Extents, PurgedBytes: r.Purged.Bytes,
		Expired: r.Expired, Deleted: r.Deleted, Forgotten: r.Forgotten,
		Compacted: r.Compaction.Replaced, CompactedInto: r.Compaction.Copies,
		CompactedBytes: r.Compaction.Bytes, CompactionObject: r.Compaction.Segments,
	}
	if f.sweep {
		s := r.Sweep
		result.Sweep = &sweepResult{s.Objects, s.Orphans, s.OrphanBytes, s.Deleted, s.Foreign}
	}
	return result
}

func (r janitorResult) writeText(w io.Writer) error {
	lines := []struct {
		did, would string
		n          int
		more       string
	}{
		{"removed by retention", "retention would remove", r.RetainedExtents, "extents, " + sizeText(r.RetainedBytes)},
		{"removed of deleted topics", "of deleted topics would go", r.PurgedExtents, "extents, " + sizeText(r.PurgedBytes)},
		{"unfinished uploads given up", "unfinished uploads would be given up", r.Expired, "reservations"},
		{"garbage deleted", "garbage would be deleted", r.Deleted, "objects"},
		{"rows dropped", "rows would be dropped", r.Forgotten, "segments deleted long ago"},
		{
			"compacted", "would be compacted", r.Compacted,
			fmt.Sprintf("extents into %d, %s", r.CompactedInto, sizeText(r.CompactedBytes)),
		},
	}
	for _, l := range lines {
		what := l.did
		if r.DryRun {
			what = l.would
		}
		if _, err := fmt.Fprintf(w, "%-38s%s %s\n", what+":", grouped(int64(l.n)), l.more); err != nil {
			return err
		}
	}
	if r.Sweep == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "%-38s%s of %s objects have no row (%s); %s deleted, %s not ours\n", "sweep:",
		grouped(int64(r.Sweep.Orphans)), grouped(int64(r.Sweep.Objects)), sizeText(r.Sweep.OrphanBytes),
		grouped(int64(r.Sweep.Deleted)), grouped(int64(r.Sweep.Foreign)))
	return err
}
