package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/recordio"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/domain"
)

// produceFlags are the flags of produce that are not settings.
type produceFlags struct {
	create     bool
	partitions int32
	separator  string
	format     string
	partition  int32
	acks       bool
}

func (a *app) produceCommand() *cobra.Command {
	var f produceFlags
	cmd := &cobra.Command{
		Use:   "produce TOPIC",
		Short: "Send the lines of standard input as records",
		Long: "Sends each line of standard input as one record and ends when all are durable.\n\n" +
			"Only the newline is taken off a line; a carriage return stays. An empty line is a\n" +
			"record with an empty value. With --key-separator the text before the first\n" +
			"separator is the key; a line without one has no key.\n\n" +
			"With --format json each line is {\"key\",\"value\",\"headers\",\"partition\",\"timestamp\"},\n" +
			"all optional; bytes go in base64 as \"key_base64\" and \"value_base64\". What consume\n" +
			"--output json writes is understood: \"topic\" and \"offset\" are ignored.\n\n" +
			"The summary goes to standard error, or with --output json to standard output. The\n" +
			"exit code is 1 if any record failed. An interrupt stops the reading; what was\n" +
			"accepted is still stored.",
		Example: "  printf 'user123\\tsigned up\\n' | streamhouse produce orders --create --partitions 3 --key-separator '\\t'\n" +
			"  streamhouse produce orders --acks < lines.txt\n" +
			"  streamhouse consume orders --output json | streamhouse produce copy --format json",
		Args: topicArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.settings(cmd)
			if err != nil {
				return err
			}
			in, err := f.inputFormat(cmd, args[0])
			if err != nil {
				return err
			}
			return a.produce(cmd.Context(), s, f, in)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&f.create, "create", false, "create the topic if it does not exist")
	flags.Int32Var(&f.partitions, "partitions", 1, "give a topic that --create makes `N` partitions")
	flags.StringVar(&f.separator, "key-separator", "", "`SEP` ends the key in a line; \\t \\r \\0 \\\\ \\xHH \\uHHHH are understood")
	flags.StringVar(&f.format, "format", "lines", "read `FORMAT`: lines or json")
	flags.Int32Var(&f.partition, "partition", -1, "send to partition `P` what names none itself (default: by key, else in turn)")
	flags.Lookup("partition").DefValue = "0" // that is, not shown
	flags.BoolVar(&f.acks, "acks", false, `print {"n":LINE,"partition":P,"offset":O} for each record as it is acknowledged`)
	settings.AddFlags(flags, settings.Stores, settings.Agency, settings.Output, settings.Producing)
	return cmd
}

// inputFormat checks the flags that say how lines become records.
func (f *produceFlags) inputFormat(cmd *cobra.Command, topic string) (inputFormat, error) {
	in := inputFormat{topic: topic, json: f.format == "json"}
	given := cmd.Flags().Changed
	if !in.json && f.format != "lines" {
		return in, usagef("--format is %.60q: want lines or json", f.format)
	}
	if given("partitions") && !f.create {
		return in, usagef("--partitions needs --create")
	}
	if err := domain.ValidatePartitionCount(f.partitions); err != nil {
		return in, usagef("--%w", err)
	}
	if given("partition") {
		if f.partition < 0 {
			return in, usagef("--partition is %d: want 0 or more", f.partition)
		}
		in.partition = domain.ToPartition(domain.PartitionID(f.partition))
	}
	if !given("key-separator") {
		return in, nil
	}
	if in.json {
		return in, usagef("--key-separator does not go with --format json, whose lines name their keys")
	}
	sep, err := recordio.ParseSeparator(f.separator)
	if err != nil {
		return in, usagef("--key-separator: %w", err)
	}
	in.separator = sep
	return in, nil
}

func (a *app) produce(ctx context.Context, s settings.Settings, f produceFlags, in inputFormat) (err error) {
	var p *producer.Producer
	var t *topics.Topics
	cfg := wiringConfig(s)
	cfg.Existing = !f.create
	if err := a.traced(&cfg); err != nil {
		return err
	}
	system, err := a.open(ctx, cfg, &p, &t)
	if err != nil {
		return err
	}
	defer closing(ctx, system, &err)
	partitions, err := f.ensureTopic(ctx, t, in)
	if err != nil {
		return err
	}
	defer boundMemory(s.Producer.BufferBytes, partitions)()
	j := &produceJob{app: a, producer: p, in: in, json: s.JSON}
	return j.run(ctx, f.acks)
}

// ensureTopic finds the topic, or creates it if that was asked for, and checks
// the partition that all records go to. It returns how many there are.
func (f *produceFlags) ensureTopic(ctx context.Context, t *topics.Topics, in inputFormat) (partitions int32, err error) {
	found, err := t.Describe(ctx, in.topic)
	if errors.Is(err, domain.ErrTopicNotFound) && f.create {
		_, err = t.Create(ctx, domain.TopicSpec{Name: in.topic, Partitions: f.partitions})
		if err == nil || errors.Is(err, domain.ErrTopicExists) {
			found, err = t.Describe(ctx, in.topic)
		}
	}
	if err != nil {
		return 0, err
	}
	if id, explicit := in.partition.Explicit(); explicit && int32(id) >= found.Topic.Partitions {
		return 0, &domain.InvalidPartitionError{Topic: in.topic, Partition: id, Count: found.Topic.Partitions}
	}
	return found.Topic.Partitions, nil
}

// produceJob is one produce from its first line to its summary.
type produceJob struct {
	app      *app
	producer *producer.Producer
	in       inputFormat
	json     bool
	tally    tally
	consumed atomic.Int64
}

// errInterrupted is how a command ends that was asked to stop before its end.
var errInterrupted = errors.New("interrupted")

func (j *produceJob) run(ctx context.Context, acks bool) error {
	began := time.Now()
	reading, stopReading := context.WithCancelCause(ctx)
	defer stopReading(nil)
	j.tally.fatal = stopReading
	if acks {
		j.tally.acks = newOutbox(j.app.stdout, stopReading)
	}
	stopProgress := j.app.showProgress(ctx, "sent", sizeOf(j.app.stdin), func() (int64, int64) {
		return j.tally.settled.Load(), j.consumed.Load()
	})
	readErr := j.send(reading)
	// What was accepted is awaited, however the reading ended: DeliveryTimeout
	// bounds it.
	flushErr := j.producer.Flush(context.WithoutCancel(ctx))
	stopProgress()
	var acksErr error
	if acks {
		acksErr = j.tally.acks.close()
	}
	if ctx.Err() != nil && errors.Is(readErr, context.Cause(ctx)) {
		readErr = errInterrupted
	}
	summaryErr := j.summarize(time.Since(began))
	if err := j.verdict(readErr, flushErr, acksErr); err != nil {
		return err
	}
	return summaryErr
}

// send sends every line, and returns why it stopped before the end of the
// input, if it did.
func (j *produceJob) send(ctx context.Context) error {
	source := newRecordSource(newAbandonable(ctx, j.app.stdin), j.in)
	var r domain.Record
	for {
		line, err := source.next(&r)
		var bad *lineError
		switch {
		case err == nil:
			j.producer.SendAsync(ctx, r, j.tally.callback(line))
		case errors.As(err, &bad):
			j.tally.reject(line, bad.err)
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
		j.consumed.Store(source.scanner.Consumed())
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if j.tally.acks != nil {
			if err := j.tally.acks.room(ctx); err != nil {
				return err
			}
		}
	}
}

// summarize prints what became of the records.
func (j *produceJob) summarize(elapsed time.Duration) error {
	out, summary := j.app.stderr, []byte(nil)
	if j.json {
		out, summary = j.app.stdout, j.tally.appendJSON(nil, elapsed)
	} else {
		summary = j.tally.appendText(nil, j.in.topic, elapsed)
	}
	_, err := out.Write(summary)
	return err
}

// verdict is the error of the whole, nil if every line was stored.
func (j *produceJob) verdict(readErr, flushErr, acksErr error) error {
	var errs []error
	if n := j.tally.failed; n > 0 {
		errs = append(errs, fmt.Errorf("%s of %s records failed, the first in %s", grouped(n), grouped(n+j.tally.sent), j.tally.firstFailure()))
	}
	switch {
	case acksErr != nil:
		// Not wrapped: a closed pipe is no quiet end here.
		errs = append(errs, fmt.Errorf("the acknowledgements could not be written, reading stopped after line %d: %s", j.lines(), acksErr.Error()))
	case errors.Is(readErr, errInterrupted):
		errs = append(errs, fmt.Errorf("interrupted after line %d; what was accepted before is stored", j.lines()))
	case readErr != nil && !domain.FateOf(readErr).Fatal:
		errs = append(errs, fmt.Errorf("read standard input after line %d: %w", j.lines(), readErr))
	}
	if flushErr != nil {
		errs = append(errs, flushErr)
	}
	return errors.Join(errs...)
}

// lines is how many lines were read.
func (j *produceJob) lines() int64 { return j.tally.failed + j.tally.sent }
