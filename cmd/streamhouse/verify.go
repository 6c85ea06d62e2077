package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/app/verify"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// errDamaged is the end of a verification that found damage.
var errDamaged = errors.New("the log is damaged: see above")

func (a *app) verifyCommand() *cobra.Command {
	var options verify.Options
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that every record can be read: metadata against every object's bytes",
		Long: "Walks over all metadata and reads every object once: offsets without a gap, each extent's\n" +
			"bytes and checksums, what segments and partitions count, objects that are missing or that nobody\n" +
			"knows. It changes nothing and may run beside writers, readers and the janitor. The exit code is 1\n" +
			"if anything is damaged; garbage that waits for its collection is no damage.",
		Example: "  streamhouse verify\n  streamhouse verify --records --output json",
		Args:    cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&options.Records, "records", false, "decode every record as well")
	flags.IntVar(&options.Workers, "workers", 4, "read `N` objects at the same time")
	flags.IntVar(&options.MaxProblems, "max-problems", 1000, "list the first `N` problems; all are counted")
	settings.AddFlags(flags, settings.Stores, settings.Output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		s, err := a.settings(cmd)
		if err != nil {
			return err
		}
		cfg := wiringConfig(s)
		cfg.Existing = true
		var metadata ports.MetadataStore
		var store ports.SegmentStore
		system, err := a.open(cmd.Context(), cfg, &metadata, &store)
		if err != nil {
			return err
		}
		defer closing(cmd.Context(), system, &err)
		return a.runVerify(cmd.Context(), metadata, store, options, s.JSON)
	}
	return cmd
}

func (a *app) runVerify(ctx context.Context, metadata ports.MetadataStore, store ports.SegmentStore, o verify.Options, json bool) error {
	var segments, bytes atomic.Int64
	o.Codecs = []batch.Codec{codec.NewLZ4()}
	o.Progress = func(p verify.Progress) {
		segments.Store(int64(p.Segments))
		bytes.Store(p.Bytes)
	}
	stop := a.showProgressOf(ctx, "checked", "segments", -1, func() (int64, int64) { return segments.Load(), bytes.Load() })
	report, err := verify.Run(ctx, metadata, store, o)
	stop()
	if err != nil {
		return err
	}
	if json {
		err = writeJSON(a.stdout, report)
	} else {
		err = writeVerification(a.stdout, &report)
	}
	if err == nil && !report.OK() {
		err = errDamaged
	}
	return err
}

func writeVerification(w io.Writer, r *verify.Report) error {
	for _, p := range r.Problems {
		if _, err := fmt.Fprintf(w, "%s: %s\n", p.Kind, visible(place(p)+p.What)); err != nil {
			return err
		}
	}
	if more := r.ProblemCount - len(r.Problems); more > 0 {
		if _, err := fmt.Fprintf(w, "and %s more\n", grouped(int64(more))); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%s %s in %s %s, %s %s; %s of %s objects read and compared, %s\n",
		grouped(int64(r.Topics)), plural(int64(r.Topics), "topic"), grouped(int64(r.Partitions)), plural(int64(r.Partitions), "partition"),
		grouped(int64(r.Extents)), plural(int64(r.Extents), "extent"), grouped(int64(r.Checked)), grouped(int64(r.Objects)), sizeText(r.BytesRead))
	if err != nil {
		return err
	}
	for _, l := range []struct {
		what string
		verify.Leftover
	}{
		{"uploaded and not committed (yet)", r.Garbage.Pending},
		{"garbage that waits for its collection", r.Garbage.Deleting},
		{"without a row: janitor --once --sweep removes them", r.Orphans},
		{"not of this log", r.Foreign},
	} {
		if l.Count == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s %s %s, %s\n", grouped(int64(l.Count)), plural(int64(l.Count), "object"), l.what, sizeText(l.Bytes)); err != nil {
			return err
		}
	}
	verdict := "no damage"
	if !r.OK() {
		verdict = fmt.Sprintf("%s %s", grouped(int64(r.ProblemCount)), plural(int64(r.ProblemCount), "problem"))
	}
	_, err = fmt.Fprintln(w, verdict)
	return err
}

// place says where a problem is, as far as it is somewhere.
func place(p verify.Problem) string {
	where := ""
	if p.Topic != "" {
		where = "topic " + p.Topic
	} else if p.TopicID != "" {
		where = "topic " + p.TopicID
	}
	if where != "" && p.Partition >= 0 {
		where += fmt.Sprintf(" partition %d", p.Partition)
	}
	if where != "" && p.Offset >= 0 {
		where += fmt.Sprintf(" offset %d", p.Offset)
	}
	if p.Segment != "" {
		if where != "" {
			where += ", "
		}
		where += "segment " + p.Segment
	}
	if where != "" {
		where += ": "
	}
	return where
}
