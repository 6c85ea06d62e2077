package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/recordio"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/domain"
)

// consumeFlags are the flags of consume that are not settings.
type consumeFlags struct {
	from       string
	partitions []int
	max        int64
	follow     bool
	separator  string
}

func (a *app) consumeCommand() *cobra.Command {
	var f consumeFlags
	cmd := &cobra.Command{
		Use:   "consume TOPIC",
		Short: "Print the records of a topic",
		Long: "Prints the value of each record on a line of its own, and ends at the end that each\n" +
			"partition had when it began. With --follow it goes on with what comes later.\n\n" +
			"The records of a partition come in order; partitions take turns. On a terminal\n" +
			"control characters are escaped; elsewhere values are written as they are.\n\n" +
			"With --output json each line is {\"topic\",\"partition\",\"offset\",\"timestamp\",\"key\",\n" +
			"\"value\",\"headers\"}; what is not UTF-8 is in base64, as \"key_base64\" or\n" +
			"\"value_base64\". Null and empty differ.",
		Example: "  streamhouse consume orders\n" +
			"  streamhouse consume orders --partition 2 --from 100 --max 10 --output json\n" +
			"  streamhouse consume orders --from 2026-01-02T15:04:05Z --follow",
		Args: topicArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.settings(cmd)
			if err != nil {
				return err
			}
			j := &consumeJob{app: a, topic: args[0], json: s.JSON, terminal: isTerminal(a.stdout)}
			if err := j.configure(cmd, f); err != nil {
				return err
			}
			return j.consume(cmd.Context(), s)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.from, "from", "start", "begin at `POSITION`: start, end, an offset, or a time such as 2026-01-02T15:04:05Z")
	flags.IntSliceVar(&f.partitions, "partition", nil, "read only partition `P`; may be repeated")
	flags.Int64Var(&f.max, "max", 0, "end after `N` records")
	flags.BoolVar(&f.follow, "follow", false, "go on with records that come later, until interrupted")
	flags.StringVar(&f.separator, "key-separator", "", "print the key, if there is one, and `SEP` before each value")
	settings.AddFlags(flags, settings.Stores, settings.Agency, settings.Output, settings.Consuming)
	return cmd
}

// parseFrom understands the values of --from.
func parseFrom(s string) (consumer.Position, error) {
	switch s {
	case "start":
		return consumer.Start(), nil
	case "end":
		return consumer.End(), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return consumer.At(domain.Offset(n)), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return consumer.Since(t), nil
	}
	return consumer.Position{}, usagef("--from is %.60q: want start, end, an offset from 0, or an RFC 3339 time such as 2026-01-02T15:04:05Z", s)
}

// consumeJob is one consume.
type consumeJob struct {
	app      *app
	topic    string
	json     bool
	terminal bool

	from       consumer.Position
	partitions []domain.PartitionID
	max        int64 // 0 is without bound
	follow     bool
	separator  []byte

	out     *outbox
	records int64
}

// configure checks the flags that are not settings.
func (j *consumeJob) configure(cmd *cobra.Command, f consumeFlags) (err error) {
	if j.from, err = parseFrom(f.from); err != nil {
		return err
	}
	for _, id := range f.partitions {
		if id < 0 || id > math.MaxInt32 {
			return usagef("--partition is %d: want 0 or more, as many as there are", id)
		}
		j.partitions = append(j.partitions, domain.PartitionID(id))
	}
	if cmd.Flags().Changed("max") && f.max < 1 {
		return usagef("--max is %d: want 1 or more", f.max)
	}
	j.max, j.follow = f.max, f.follow
	if cmd.Flags().Changed("key-separator") {
		if j.json {
			return usagef("--key-separator does not go with --output json, which names the keys")
		}
		if j.separator, err = recordio.ParseSeparator(f.separator); err != nil {
			return usagef("--key-separator: %w", err)
		}
	}
	return nil
}

func (j *consumeJob) consume(ctx context.Context, s settings.Settings) (err error) {
	var c *consumer.Consumer
	cfg := wiringConfig(s)
	cfg.Existing = true
	if err := j.app.traced(&cfg); err != nil {
		return err
	}
	system, err := j.app.open(ctx, cfg, &c)
	if err != nil {
		return err
	}
	defer closing(ctx, system, &err)
	if err := c.Assign(ctx, j.topic, j.from, j.partitions...); err != nil {
		return err
	}
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	j.out = newOutbox(j.app.stdout, stop)
	if j.follow {
		err = j.readOn(reading, c)
	} else {
		err = j.readToEnd(reading, c)
	}
	if writeErr := j.out.close(); writeErr != nil {
		return fmt.Errorf("write standard output: %w", writeErr)
	}
	if ctx.Err() == nil || err == nil {
		return err
	}
	if j.follow {
		return nil // to be interrupted is how it ends
	}
	return fmt.Errorf("%w after %s %s", errInterrupted, grouped(j.records), plural(j.records, "record"))
}

// readToEnd prints up to the end that the partitions have now.
func (j *consumeJob) readToEnd(ctx context.Context, c *consumer.Consumer) error {
	for m, err := range c.ReadToEnd(ctx) {
		if err != nil {
			return err
		}
		j.print(&m)
		if j.records == j.max {
			return nil
		}
		// Now and then is enough to bound the memory.
		if j.records%64 == 0 {
			if err := j.out.room(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// pollSize is how many messages one poll asks for.
const pollSize = 1000

// readOn prints what there is and what comes, until ctx ends. What may pass by
// itself is told of and waited for.
func (j *consumeJob) readOn(ctx context.Context, c *consumer.Consumer) error {
	for {
		want := int64(pollSize)
		if j.max > 0 {
			want = min(want, j.max-j.records)
		}
		messages, err := c.Poll(ctx, int(want))
		if err != nil {
			if ctx.Err() != nil || !domain.FateOf(err).Retry {
				return err
			}
			j.app.complain(err, "; trying again")
		}
		for i := range messages {
			j.print(&messages[i])
		}
		if j.max > 0 && j.records == j.max {
			return nil
		}
		if err := j.out.room(ctx); err != nil {
			return err
		}
	}
}

func (j *consumeJob) print(m *domain.Message) {
	j.records++
	j.out.append(func(buf []byte) []byte { return append(j.format(buf, m), '\n') })
}

func (j *consumeJob) format(buf []byte, m *domain.Message) []byte {
	switch {
	case j.json:
		return recordio.AppendJSON(buf, m)
	case j.terminal:
		if j.separator != nil && m.Key != nil {
			buf = recordio.AppendVisible(buf, m.Key)
			buf = append(buf, j.separator...)
		}
		return recordio.AppendVisible(buf, m.Value)
	}
	if j.separator != nil && m.Key != nil {
		buf = append(buf, m.Key...)
		buf = append(buf, j.separator...)
	}
	return append(buf, m.Value...)
}
