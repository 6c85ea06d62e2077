package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/recordio"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/domain"
)

func (a *app) topicCommand() *cobra.Command {
	return group("topic", "Create, show, change and delete topics",
		a.topicCreate(), a.topicList(), a.topicDescribe(), a.topicDelete(), a.topicWiden())
}

// withTopics makes a command that opens the topics and calls f.
func (a *app) withTopics(cmd *cobra.Command, f func(ctx context.Context, t *topics.Topics, json bool, args []string) error) *cobra.Command {
	settings.AddFlags(cmd.Flags(), settings.Stores, settings.Agency, settings.Output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		s, err := a.settings(cmd)
		if err != nil {
			return err
		}
		cfg := wiringConfig(s)
		cfg.Existing = cmd.Name() != "create"
		var t *topics.Topics
		system, err := a.open(cmd.Context(), cfg, &t)
		if err != nil {
			return err
		}
		defer closing(cmd.Context(), system, &err)
		return f(cmd.Context(), t, s.JSON, args)
	}
	return cmd
}

// retentionFlags are the flags that give a retention.
type retentionFlags struct{ age, bytes string }

func (r *retentionFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&r.age, "retention-age", "0", "keep a record for `TIME`, such as 12h or 7d; 0 is for ever")
	flags.StringVar(&r.bytes, "retention-bytes", "0", "keep `BYTES` of each partition as stored, such as 10GiB; 0 is all")
}

func (r *retentionFlags) parse() (domain.Retention, error) {
	age, err := settings.ParseDuration(r.age)
	if err != nil {
		return domain.Retention{}, usagef("--retention-age: %w", err)
	}
	bytes, err := settings.ParseBytes(r.bytes)
	if err != nil {
		return domain.Retention{}, usagef("--retention-bytes: %w", err)
	}
	retention := domain.Retention{Age: age, Bytes: bytes}
	if err := retention.Validate(); err != nil {
		return retention, &usageError{err}
	}
	return retention, nil
}

func (a *app) topicCreate() *cobra.Command {
	var partitions int32
	var retention retentionFlags
	var kept domain.Retention
	cmd := a.withTopics(&cobra.Command{
		Use:   "create TOPIC",
		Short: "Create a topic",
		Long: "Creates an empty topic. A name has 1 to 249 of A-Z a-z 0-9 . _ -\n\n" +
			"What is older or more than the retention is deleted by the janitor, in whole extents.",
		Example: "  streamhouse topic create orders --partitions 16 --retention-age 7d",
		Args:    topicArgument,
	}, func(ctx context.Context, t *topics.Topics, json bool, args []string) error {
		topic, err := t.Create(ctx, domain.TopicSpec{Name: args[0], Partitions: partitions, Retention: kept})
		if err != nil {
			return err
		}
		return a.printTopic(topic, json, "created %s with %d %s\n", topic.Name, topic.Partitions, plural(int64(topic.Partitions), "partition"))
	})
	// Before anything is opened, and so made.
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if err := domain.ValidatePartitionCount(partitions); err != nil {
			return usagef("--%w", err)
		}
		kept, err = retention.parse()
		return err
	}
	cmd.Flags().Int32Var(&partitions, "partitions", 1, "make `N` partitions")
	retention.add(cmd.Flags())
	return cmd
}

func (a *app) topicWiden() *cobra.Command {
	var partitions int32
	cmd := a.withTopics(&cobra.Command{
		Use:   "widen TOPIC",
		Short: "Give a topic more partitions",
		Long: "Raises the number of partitions. Records stay where they are; from then on a key may\n" +
			"go to another partition than before.",
		Example: "  streamhouse topic widen orders --partitions 32",
		Args:    topicArgument,
	}, func(ctx context.Context, t *topics.Topics, json bool, args []string) error {
		topic, err := t.Widen(ctx, args[0], partitions)
		if err != nil {
			return err
		}
		return a.printTopic(topic, json, "%s has %d %s\n", topic.Name, topic.Partitions, plural(int64(topic.Partitions), "partition"))
	})
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed("partitions") {
			return usagef("--partitions is missing: want how many there are to be")
		}
		if err := domain.ValidatePartitionCount(partitions); err != nil {
			return usagef("--%w", err)
		}
		return nil
	}
	cmd.Flags().Int32Var(&partitions, "partitions", 0, "raise the count to `N`")
	return cmd
}

func (a *app) topicDelete() *cobra.Command {
	return a.withTopics(&cobra.Command{
		Use:     "delete TOPIC",
		Short:   "Delete a topic and its records",
		Long:    "Deletes a topic. Its records cannot be read any more. The name is free for a new topic.",
		Example: "  streamhouse topic delete orders",
		Args:    topicArgument,
	}, func(ctx context.Context, t *topics.Topics, json bool, args []string) error {
		if err := t.Delete(ctx, args[0]); err != nil {
			return err
		}
		if json {
			return a.print(fmt.Appendf(nil, "{\"deleted\":%s}\n", recordio.AppendString(nil, args[0])))
		}
		return a.print(fmt.Appendf(nil, "deleted %s\n", args[0]))
	})
}

func (a *app) topicList() *cobra.Command {
	return a.withTopics(&cobra.Command{
		Use:     "list",
		Short:   "List all topics",
		Example: "  streamhouse topic list --output json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, t *topics.Topics, json bool, _ []string) error {
		list, err := t.List(ctx)
		if err != nil {
			return err
		}
		if json {
			out := []byte{'['}
			for i, topic := range list {
				if i > 0 {
					out = append(out, ',')
				}
				out = append(appendTopic(out, topic), '}')
			}
			return a.print(append(out, "]\n"...))
		}
		w := a.table()
		fmt.Fprintln(w, "TOPIC\tPARTITIONS\tRETENTION\tCREATED")
		for _, topic := range list {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", topic.Name, topic.Partitions, retentionText(topic.Retention), topic.CreatedAt.UTC().Format(time.RFC3339))
		}
		return w.Flush()
	})
}

func (a *app) topicDescribe() *cobra.Command {
	return a.withTopics(&cobra.Command{
		Use:   "describe TOPIC",
		Short: "Show a topic and its partitions",
		Long: "Shows a topic, and of each partition the first offset there is, the offset the next\n" +
			"record will get, and the bytes stored.",
		Example: "  streamhouse topic describe orders",
		Args:    topicArgument,
	}, func(ctx context.Context, t *topics.Topics, json bool, args []string) error {
		d, err := t.Describe(ctx, args[0])
		if err != nil {
			return err
		}
		if json {
			return a.print(appendDescription(nil, d))
		}
		w := a.table()
		fmt.Fprintf(w, "%s\t%d %s\tretention %s\tcreated %s\n\n", d.Name, d.Partitions, plural(int64(d.Partitions), "partition"),
			retentionText(d.Retention), d.CreatedAt.UTC().Format(time.RFC3339))
		fmt.Fprintln(w, "PARTITION\tLOG START\tHIGH WATERMARK\tRECORDS\tBYTES")
		for _, s := range d.States {
			fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%s\n", s.Partition, s.LogStart, s.HighWatermark, grouped(int64(s.HighWatermark-s.LogStart)), grouped(s.Bytes))
		}
		return w.Flush()
	})
}

// printTopic prints the topic as JSON, or the text.
func (a *app) printTopic(t domain.Topic, json bool, format string, args ...any) error {
	if json {
		return a.print(append(appendTopic(nil, t), "}\n"...))
	}
	return a.print(fmt.Appendf(nil, format, args...))
}

func (a *app) print(b []byte) error {
	_, err := a.stdout.Write(b)
	return err
}

func (a *app) table() *tabwriter.Writer { return tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0) }

// appendTopic writes the topic's members without the closing brace.
func appendTopic(dst []byte, t domain.Topic) []byte {
	dst = append(dst, `{"topic":`...)
	dst = recordio.AppendString(dst, t.Name)
	return fmt.Appendf(dst, `,"id":"%s","partitions":%d,"retention_ms":%d,"retention_bytes":%d,"created_at":"%s"`,
		t.ID, t.Partitions, t.Retention.Age.Milliseconds(), t.Retention.Bytes, t.CreatedAt.UTC().Format(recordio.TimeLayout))
}

func appendDescription(dst []byte, d topics.Description) []byte {
	dst = append(appendTopic(dst, d.Topic), `,"partition_states":[`...)
	for i, s := range d.States {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = fmt.Appendf(dst, `{"partition":%d,"log_start":%d,"high_watermark":%d,"bytes":%d}`, s.Partition, s.LogStart, s.HighWatermark, s.Bytes)
	}
	return append(dst, "]}\n"...)
}

func retentionText(r domain.Retention) string {
	switch {
	case r.Age == 0 && r.Bytes == 0:
		return "none"
	case r.Bytes == 0:
		return r.Age.String()
	case r.Age == 0:
		return settings.FormatBytes(r.Bytes)
	}
	return r.Age.String() + ", " + settings.FormatBytes(r.Bytes)
}
