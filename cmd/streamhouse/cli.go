package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/tracing"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/wiring"
	"github.com/streamhouse/streamhouse/domain"
)

// Exit codes.
const (
	exitOK    = 0
	exitFail  = 1
	exitUsage = 2
)

// invocation is the world that a command sees.
type invocation struct {
	args    []string
	environ []string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
}

// app is one run of the tool.
type app struct {
	invocation
	// running is set once the command line has been understood.
	running bool
}

// usageError is a fault of the command line or the configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// run runs one command and returns the exit code. The end of ctx asks the
// command for an orderly end.
func run(ctx context.Context, inv invocation) int {
	a := &app{invocation: inv}
	root := a.rootCommand()
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	var usage *usageError
	if !a.running || errors.As(err, &usage) {
		a.complain(err, " (see "+cmd.CommandPath()+" --help)")
		return exitUsage
	}
	a.complain(err, "")
	return exitFail
}

// complain writes one line for each fault that err joins.
func (a *app) complain(err error, hint string) {
	lines := strings.Split(strings.TrimRight(err.Error(), "\n"), "\n")
	for _, line := range lines {
		fmt.Fprintf(a.stderr, "streamhouse: %s%s\n", visible(line), hint)
	}
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "streamhouse",
		Short: "Event streaming on object storage",
		Long: "StreamHouse keeps topics of records in object storage. An acknowledged record is durable.\n\n" +
			"Without a service running, commands open the log in the folder --data in process;\n" +
			"several of them may use one folder at the same time.\n\n" +
			"Settings come from flags, over STREAMHOUSE_ variables, over the YAML file --config.",
		Example: "  printf 'user123\\tsigned up\\n' | streamhouse produce orders --create --key-separator '\\t'\n" +
			"  streamhouse consume orders",
		SilenceUsage:     true,
		SilenceErrors:    true,
		PersistentPreRun: func(*cobra.Command, []string) { a.running = true },
		Args:             cobra.NoArgs,
		RunE:             func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(a.args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.AddCommand(a.topicCommand(), a.produceCommand(), a.consumeCommand(),
		a.segmentCommand(), a.verifyCommand(), a.janitorCommand(), a.storeCommand(),
		a.serveCommand(), a.agentCommand(), a.statusCommand(), a.benchCommand(), a.versionCommand())
	a.addCompletions(root)
	return root
}

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return usagef("%s needs a command: %s", cmd.CommandPath(), names(commands))
	}}
	cmd.AddCommand(commands...)
	return cmd
}

func names(commands []*cobra.Command) string {
	list := make([]string, len(commands))
	for i, c := range commands {
		list[i] = c.Name()
	}
	return strings.Join(list, ", ")
}

// topicArgument accepts exactly one topic name.
func topicArgument(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one topic name, got %d arguments", len(args))
	}
	return domain.ValidateName("topic", args[0])
}

// settings loads the configuration; every fault is one of usage.
func (a *app) settings(cmd *cobra.Command) (settings.Settings, error) {
	s, err := settings.Load(cmd.Flags(), a.environ)
	if err != nil {
		return s, &usageError{err}
	}
	return s, nil
}

// open opens what the targets point to; see wiring.Open. A store URL or a
// setting that cannot be used is a fault of usage.
func (a *app) open(ctx context.Context, cfg wiring.Config, targets ...any) (*wiring.System, error) {
	system, err := wiring.Open(ctx, cfg, targets...)
	if errors.Is(err, domain.ErrConfig) {
		return nil, &usageError{err}
	}
	return system, err
}

// oneArgument wants one argument of a command, which is a what.
func oneArgument(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("want one %s, got %d arguments", what, len(args))
		}
		return nil
	}
}

// wiringConfig turns settings into what wiring needs.
func wiringConfig(s settings.Settings) wiring.Config {
	cfg := wiring.DefaultConfig()
	cfg.Data, cfg.Metadata, cfg.Segments = s.Data, s.Metadata, s.Segments
	cfg.Producer, cfg.Compress = s.Producer, s.Compress
	cfg.Janitor, cfg.Agents, cfg.Serve = s.Janitor, s.Agents, s.Serve
	if s.FetchBytes > 0 {
		cfg.Consumer.FetchBytes = s.FetchBytes
	}
	return cfg
}

// traced says in cfg whether and where the command sends its spans. It comes
// from the variables of OpenTelemetry and from no setting.
func (a *app) traced(cfg *wiring.Config) (err error) {
	cfg.Version = readBuild().version
	cfg.Traces, err = tracing.FromEnv(a.environ, func(err error) { a.complain(fmt.Errorf("traces: %w", err), "") })
	if err != nil {
		return &usageError{err}
	}
	return nil
}

// closing closes the system and adds its error to *err. It waits for what was
// accepted even if the command's context has ended.
func closing(ctx context.Context, system *wiring.System, err *error) {
	if closeErr := system.Close(context.WithoutCancel(ctx)); closeErr != nil && *err == nil {
		*err = closeErr
	}
}

// isTerminal reports whether a stream is shown to somebody.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
