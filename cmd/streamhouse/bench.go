package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
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
	"github.com/streamhouse/streamhouse/domain"
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
	// producers is how many send at once, agentMetrics where agents tell what they use.
	producers    int
	agentMetrics []string
	// readGroup is the group of agents that latency reads through, if it is another.
	readGroup string
	tel       bench.Counter
	done      atomic.Int64
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
	j := &benchJob{app: a, load: bench.Load{Records: 1}, each: defaultLimitTime, producers: 1}
	load := &j.load
	cmd.Args = cobra.NoArgs
	flags := cmd.Flags()
	flags.SortFlags = false
	groups := []settings.Group{settings.Stores, settings.Agency, settings.Output, settings.Consuming}
	if records > 0 {
		flags.Int64Var(&load.Records, "records", records, "send `N` records")
		groups[3] = settings.Producing
	}
	if cmd.Name() == "produce" {
		flags.DurationVar(&j.each, "limit-time", j.each, "measure each limit of the machine for `TIME`")
		flags.IntVar(&j.producers, "producers", 1, "`N` producers send at once, each its part of the records")
		flags.StringSliceVar(&j.agentMetrics, "agent-metrics", nil, "read what agents use at their admin listeners, `HOST:PORT` with commas between")
	}
	if cmd.Name() == "latency" {
		flags.StringVar(&j.readGroup, "read-agent-group", "", "read through the agents of the group `NAME` (default: as --agent-group)")
	}
	flags.IntVar(&load.RecordSize, "record-size", 100, "each value has `BYTES` bytes")
	flags.Int32Var(&load.Partitions, "partitions", 16, "the topic has `N` partitions")
	settings.AddFlags(flags, groups...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.settings(cmd)
		if err == nil {
			err = j.validate()
		}
		if err != nil {
			return &usageError{err}
		}
		j.settings, j.given = s, flags.Changed
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

func (j *benchJob) validate() error {
	err := j.load.Validate()
	if j.producers < 1 || j.producers > maxProducers {
		err = errors.Join(err, &domain.ConfigError{Field: "producers", Value: strconv.Itoa(j.producers), Want: fmt.Sprintf("1 to %d", maxProducers)})
	}
	return err
}

const maxProducers = 1000

func (a *app) benchProduce() *cobra.Command {
	return a.benchRun(&cobra.Command{
		Use:   "produce",
		Short: "Send records that do not repeat, and wait until all are durable",
		Long: "Measures the machine's limits, then sends JSON-like records to the topic\n" +
			"bench-PARTITIONS-SIZE, which is made anew. The time goes from the first send to the\n" +
			"last acknowledgement. MB are 10^6 bytes of values.\n\n" +
			"With --agents the records go through agents, after the same load has gone to stores\n" +
			"of its own without agents; --data, or --metadata and --segments, should be of the\n" +
			"kind that the agents use. --agent-metrics adds what the agents themselves have used.",
		Example: "  streamhouse bench produce --records 5000000 --record-size 1024 --output json\n" +
			"  streamhouse bench produce --agents 127.0.0.1:7070 --agent-metrics 127.0.0.1:7071",
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
			"object of the same size, and a batch in the metadata store. A consumer waits for each\n" +
			"record: how long it has to after the acknowledgement is the time of reading.",
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

func (j *benchJob) produce(ctx context.Context) (benchResult, error) {
	defer boundMemory(j.settings.Producer.BufferBytes*int64(j.producers), j.load.Partitions)()
	var limits bench.Limits
	var direct bench.ProduceResult
	err := j.withScratch(ctx, func(cfg wiring.Config, s bench.Scratch) (err error) {
		if limits, err = bench.MeasureLimits(ctx, s, j.load.RecordSize, j.each); err == nil && j.throughAgents() {
			cfg.Producer, cfg.Compress = j.settings.Producer, j.settings.Compress
			direct, err = j.produceTo(ctx, cfg)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	before, err := bench.LookAtAgents(ctx, j.agentMetrics)
	if err != nil {
		return nil, err
	}
	r, err := j.produceTo(ctx, j.config())
	if err != nil {
		return nil, err
	}
	after, err := bench.LookAtAgents(ctx, j.agentMetrics)
	if err != nil {
		return nil, err
	}
	if len(j.agentMetrics) > 0 {
		r = r.WithAgents(after.Since(before))
	}
	if j.throughAgents() {
		r = r.WithDirect(direct.Throughput)
	}
	return r.WithLimits(limits), nil
}

func (j *benchJob) throughAgents() bool { return len(j.settings.Agents.Addresses) > 0 }

// produceTo sends the load to where cfg says, with as many producers as were asked
// for. Each has connections and a writer of its own, as if it were alone.
func (j *benchJob) produceTo(ctx context.Context, cfg wiring.Config) (_ bench.ProduceResult, err error) {
	var tel bench.Counter
	cfg.Telemetry = &tel
	var t *topics.Topics
	producers := make([]*producer.Producer, j.producers)
	for i := range producers {
		system, err := j.app.open(ctx, cfg, &producers[i], &t)
		if err != nil {
			return bench.ProduceResult{}, err
		}
		defer closing(ctx, system, &err)
	}
	j.done.Store(0)
	defer j.progress(ctx, "sent", j.load.Records)()
	return bench.Produce(ctx, producers, t, &tel, j.load, &j.done)
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
	err = j.withScratch(ctx, func(scratch wiring.Config, s bench.Scratch) (err error) {
		var tested bench.Path
		var c *consumer.Consumer
		system, err := j.app.open(ctx, j.config(), &tested.Producer, &tested.Topics)
		if err != nil {
			return err
		}
		defer closing(ctx, system, &err)
		reading := j.config()
		if j.readGroup != "" {
			reading.Agents.Group = j.readGroup
		}
		reader, err := j.app.open(ctx, reading, &c) // another process, as it were
		if err != nil {
			return err
		}
		defer closing(ctx, reader, &err)
		var direct *bench.Path
		if j.throughAgents() {
			direct = &bench.Path{}
			scratch.Producer, scratch.Compress = j.settings.Producer, j.settings.Compress
			system, err := j.app.open(ctx, scratch, &direct.Producer, &direct.Topics)
			if err != nil {
				return err
			}
			defer closing(ctx, system, &err)
		}
		defer j.progress(ctx, "sent", j.load.Records)()
		r, err = bench.Latency(ctx, tested, c, direct, s, j.load, &j.done)
		return err
	})
	return r, err
}

// withScratch opens stores to be thrown away, beside the real ones and of the
// same kind, and removes them after f.
func (j *benchJob) withScratch(ctx context.Context, f func(wiring.Config, bench.Scratch) error) (err error) {
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
	return f(cfg, s)
}
