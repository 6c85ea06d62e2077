package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/bench"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/wiring"
)

func (a *app) benchCommand() *cobra.Command {
	return group("bench", "Measure speed and cost, beside what the machine can do", a.benchProduce(), a.benchConsume(), a.benchLatency())
}

// benchJob is what all three have in common.
type benchJob struct {
	app      *app
	settings settings.Settings
	load     bench.Load
	// each is how long one limit is measured.
	each time.Duration
	tel  bench.Counter
	done atomic.Int64
	// given tells which flags were.
	given func(flag string) bool
}

// benchResult can be shown.
type benchResult interface{ WriteText(w io.Writer) error }

const defaultLimitTime = 700 * time.Millisecond

// benchRun makes a command of a benchmark.
//
// Records is the default of its flag; with 0 there is none, and the command only reads.
func (a *app) benchRun(cmd *cobra.Command, records int64, f func(ctx context.Context, j *benchJob) (benchResult, error)) *cobra.Command {
	load := bench.Load{Records: 1}
	each := defaultLimitTime
	cmd.Args = cobra.NoArgs
	flags := cmd.Flags()
	flags.SortFlags = false
	groups := []settings.Group{settings.Stores, settings.Output, settings.Consuming}
	if records > 0 {
		flags.Int64Var(&load.Records, "records", records, "send `N` records")
		flags.DurationVar(&each, "limit-time", each, "measure each limit of the machine for `TIME`")
		groups[2] = settings.Producing
	}
	flags.IntVar(&load.RecordSize, "record-size", 100, "each value has `BYTES` bytes")
	flags.Int32Var(&load.Partitions, "partitions", 16, "the topic has `N` partitions")
	settings.AddFlags(flags, groups...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.settings(cmd)
		if err == nil {
			err = load.Validate()
		}
		if err != nil {
			return &usageError{err}
		}
		j := &benchJob{app: a, settings: s, load: load, each: each, given: flags.Changed}
		result, err := f(cmd.Context(), j)
		if err != nil {
			return err
		}
		if s.JSON {
			return bench.WriteJSON(a.stdout, result)
		}
		return result.WriteText(a.stdout)
	}
	return cmd
}

func (a *app) benchProduce() *cobra.Command {
	return a.benchRun(&cobra.Command{
		Use:   "produce",
		Short: "Send records that do not repeat, and wait until all are durable",
		Long: "Measures the machine's limits, then sends JSON-like records to the topic\n" +
			"bench-PARTITIONS-SIZE, which is made anew. The time goes from the first send to the\n" +
			"last acknowledgement. MB are 10^6 bytes of values.",
		Example: "  streamhouse bench produce --records 5000000 --record-size 1024 --output json",
	}, 1_000_000, func(ctx context.Context, j *benchJob) (benchResult, error) { return j.produce(ctx) })
}

func (a *app) benchConsume() *cobra.Command {
	return a.benchRun(&cobra.Command{
		Use:     "consume",
		Short:   "Read back what bench produce left",
		Long:    "Reads all records of the newest bench produce in the same --data, or of the newest with\nthe given --record-size and --partitions, and checks that none is missing.",
		Example: "  streamhouse bench consume --record-size 1024",
	}, 0, func(ctx context.Context, j *benchJob) (benchResult, error) { return j.consume(ctx) })
}

func (a *app) benchLatency() *cobra.Command {
	return a.benchRun(&cobra.Command{
		Use:   "latency",
		Short: "Send records one by one, each when the one before is durable",
		Long: "Times lone blocking sends, and in between the two commits that each consists of: an\n" +
			"object of the same size, and a batch in the metadata store.",
		Example: "  streamhouse bench latency --records 1000",
	}, 500, func(ctx context.Context, j *benchJob) (benchResult, error) { return j.latency(ctx) })
}

func (j *benchJob) config() wiring.Config {
	cfg := wiringConfig(j.settings)
	cfg.Telemetry = &j.tel
	return cfg
}

// progress shows how many of total records are done; below 0 is not known.
func (j *benchJob) progress(ctx context.Context, verb string, total int64) (stop func()) {
	size := int64(j.load.RecordSize)
	return j.app.showProgress(ctx, verb, max(total*size, -1), func() (int64, int64) {
		n := j.done.Load()
		return n, n * size
	})
}

func (j *benchJob) produce(ctx context.Context) (_ benchResult, err error) {
	defer boundMemory(j.settings.Producer.BufferBytes)()
	var limits bench.Limits
	err = j.withScratch(ctx, func(s bench.Scratch) error {
		limits, err = bench.MeasureLimits(ctx, s, j.load.RecordSize, j.each)
		return err
	})
	if err != nil {
		return nil, err
	}
	var p *producer.Producer
	var t *topics.Topics
	system, err := j.app.open(ctx, j.config(), &p, &t)
	if err != nil {
		return nil, err
	}
	defer closing(ctx, system, &err)
	defer j.progress(ctx, "sent", j.load.Records)()
	r, err := bench.Produce(ctx, p, t, &j.tel, j.load, &j.done)
	return r.WithLimits(limits), err
}

func (j *benchJob) consume(ctx context.Context) (_ benchResult, err error) {
	cfg := j.config()
	cfg.Existing = true
	var c *consumer.Consumer
	var t *topics.Topics
	system, err := j.app.open(ctx, cfg, &c, &t)
	if err != nil {
		return nil, err
	}
	defer closing(ctx, system, &err)
	j.load, err = bench.NewestLoad(ctx, t, func(l bench.Load) bool {
		return (!j.given("record-size") || l.RecordSize == j.load.RecordSize) && (!j.given("partitions") || l.Partitions == j.load.Partitions)
	})
	if err != nil {
		return nil, err
	}
	defer j.progress(ctx, "read", -1)()
	return bench.Consume(ctx, c, t, &j.tel, j.load, &j.done)
}

func (j *benchJob) latency(ctx context.Context) (_ benchResult, err error) {
	var r bench.LatencyResult
	err = j.withScratch(ctx, func(s bench.Scratch) (err error) {
		var p *producer.Producer
		var t *topics.Topics
		system, err := j.app.open(ctx, j.config(), &p, &t)
		if err != nil {
			return err
		}
		defer closing(ctx, system, &err)
		defer j.progress(ctx, "sent", j.load.Records)()
		r, err = bench.Latency(ctx, p, t, s, j.load, &j.done)
		return err
	})
	return r, err
}

// withScratch opens stores to be thrown away, beside the real ones and of the
// same kind, and removes them after f.
func (j *benchJob) withScratch(ctx context.Context, f func(bench.Scratch) error) (err error) {
	near := j.settings.Data
	if dir, ok := strings.CutPrefix(j.settings.Segments, "file:"); ok {
		near = dir
	}
	if err := os.MkdirAll(near, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(near, "bench-limits-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg, discard, err := wiringConfig(j.settings).Scratch(filepath.Join(dir, "stores"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, discard(context.WithoutCancel(ctx))) }()
	s := bench.Scratch{Dir: dir}
	system, err := j.app.open(ctx, cfg, &s.Metadata, &s.Segments)
	if err != nil {
		return err
	}
	defer closing(ctx, system, &err)
	return f(s)
}
