// Package wiring puts the parts of StreamHouse together for the binary: which
// stores, which transport, and in which order they start and stop. It is the only package
// that imports fx.
//
// fx makes only what a command asks for: `topic list` opens the stores and makes no
// producer. What was made is closed in the reverse order, also when a later part fails.
package wiring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"
	"go.uber.org/fx/fxevent"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/adapters/otel"
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/logging"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/tracing"
	"github.com/streamhouse/streamhouse/ports"
)

// Config says what to open and how.
type Config struct {
	// Data is the folder of the stores that have no URL.
	Data string
	// Metadata and Segments are store URLs; empty means in Data.
	Metadata string
	Segments string
	// Existing refuses a folder or an SQLite file that does not exist, which
	// would else be made: a mistyped name is no empty log.
	Existing bool

	// Producer and Consumer are used as they are but for their codecs, which
	// Compress (LZ4) decides, and which consumers always know.
	Producer producer.Config
	Compress bool
	Consumer consumer.Config
	Writer   direct.Config
	Janitor  janitor.Config

	// Agents are how to reach the log without its stores, if there are addresses.
	Agents settings.Agents
	// Serve is what a *Service is.
	Serve settings.Serve
	// Version is the program's.
	Version string

	// Telemetry is told what happens inside; required.
	Telemetry ports.Telemetry
	// Log is told what who runs a service or a janitor should know; required.
	Log *slog.Logger
	// Traces says whether and where spans are sent, of producers, consumers and
	// services alike.
	Traces tracing.Config
}

// DefaultConfig is every part's defaults, the folder ./data, LZ4 and no
// telemetry.
func DefaultConfig() Config {
	return Config{
		Data:      "./data",
		Producer:  producer.DefaultConfig(),
		Compress:  true,
		Consumer:  consumer.DefaultConfig(),
		Writer:    direct.DefaultConfig(),
		Janitor:   janitor.DefaultConfig(),
		Serve:     settings.Defaults().Serve,
		Agents:    settings.Defaults().Agents,
		Version:   "unknown",
		Telemetry: ports.NoTelemetry{},
		Log:       slog.New(slog.DiscardHandler),
	}
}

// PartError says which part could not be started or stopped, and why.
type PartError struct {
	// Part is "open metadata store sqlite:x.db", "start producer".
	Part string
	Err  error
}

func (e *PartError) Error() string { return e.Part + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *PartError) Unwrap() error { return e.Err }

// System is what Open made. Close it.
type System struct{ app *fx.App }

// Open makes what the targets point to, and what that needs. A target is a
// pointer to a *producer.Producer, *consumer.Consumer, *topics.Topics, *janitor.Janitor, a *Service,
// ports.AgentDiscovery, an AgentLister, an AgentProbe, ports.MetadataStore or ports.SegmentStore.
//
// After an error nothing is left open; it is a *PartError.
func Open(ctx context.Context, cfg Config, targets ...any) (*System, error) {
	b := &builder{ctx: ctx, cfg: cfg}
	if err := b.openTelemetry(); err != nil {
		return nil, errors.Join(err, b.stop(context.WithoutCancel(ctx)))
	}
	reach := b.overStores()
	if len(cfg.Agents.Addresses) > 0 {
		reach = b.overAgents()
	}
	app := fx.New(
		fx.WithLogger(func() fxevent.Logger { return fxevent.NopLogger }),
		fx.Module("reach", reach),
		fx.Module("topics", fx.Provide(newTopics)),
		fx.Module("producer", fx.Provide(b.newProducer)),
		fx.Module("consumer", fx.Provide(b.newConsumer)),
		fx.Module("service", fx.Provide(b.newService, discoveryOf, b.newProbe)),
		fx.Module("janitor", fx.Provide(b.newJanitor)),
		fx.Invoke(func(lc fx.Lifecycle) { lc.Append(fx.StopHook(b.stop)) }),
		fx.Populate(targets...),
	)
	err := app.Err()
	if err == nil {
		err = app.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(plain(err), b.stop(context.WithoutCancel(ctx)))
	}
	return &System{app: app}, nil
}

// openTelemetry adds to who is told of events the log, if there is one, and the
// export of traces, if it is asked for. Both are stopped last, when nothing tells them any
// more.
func (b *builder) openTelemetry() error {
	b.told = []ports.Telemetry{b.cfg.Telemetry}
	if b.cfg.Log.Enabled(b.ctx, slog.LevelError) {
		events := logging.NewTelemetry(b.cfg.Log)
		b.told = append(b.told, events)
		b.background("log of events", events.Run)
	}
	if b.cfg.Traces.Enabled() {
		provider, err := tracing.Start(b.ctx, b.cfg.Traces, b.cfg.Version)
		if err != nil {
			return failed("start the export of traces", err)
		}
		b.started("export of traces", provider.Close)
		b.traces = provider
	}
	b.join()
	return nil
}

// join makes one telemetry of all that are told.
func (b *builder) join() {
	switch {
	case b.traces != nil:
		b.cfg.Telemetry = otel.New(b.traces, b.told...)
	case len(b.told) == 1:
		b.cfg.Telemetry = b.told[0]
	default:
		b.cfg.Telemetry = everyone(b.told)
	}
}

// everyone tells each of them.
type everyone []ports.Telemetry

// Record implements ports.Telemetry.
func (e everyone) Record(event ports.Event) {
	for _, t := range e {
		t.Record(event)
	}
}

// plain takes off what fx says about its own graph.
func plain(err error) error {
	var part *PartError
	if errors.As(err, &part) {
		return part
	}
	return &PartError{Part: "start", Err: err}
}

// Close stops everything in order: what was accepted by a producer is stored or
// has failed before the stores close. Ctx bounds the wait.
func (s *System) Close(ctx context.Context) error { return s.app.Stop(ctx) }

// builder holds the constructors, and what is to be stopped.
type builder struct {
	// ctx bounds the start; the constructors that fx calls take no context.
	ctx   context.Context
	cfg   Config
	stops []part
	// told are who is told of events; traces is where spans go, nil if nowhere.
	told   []ports.Telemetry
	traces *tracing.Provider
	// metrics is what a service's telemetry counts, nil without one.
	metrics *prometheus.Registry
}

// part is one thing to stop.
type part struct {
	name string
	stop func(context.Context) error
}

func (b *builder) started(name string, stop func(context.Context) error) {
	b.stops = append(b.stops, part{name, stop})
}

// stop stops every part, the newest first, also after one has failed.
func (b *builder) stop(ctx context.Context) error {
	var errs []error
	for i := len(b.stops) - 1; i >= 0; i-- {
		if err := b.stops[i].stop(ctx); err != nil {
			errs = append(errs, &PartError{Part: "close " + b.stops[i].name, Err: err})
		}
	}
	b.stops = nil
	return errors.Join(errs...)
}

func failed(doing string, err error) error {
	return &PartError{Part: doing, Err: err}
}

func opening(what, where string) string { return fmt.Sprintf("open %s %s", what, where) }

// shown returns a store URL as messages may quote it: without parameters, user
// and password.
func shown(location string) string {
	scheme, rest, _ := strings.Cut(location, ":")
	rest, _, _ = strings.Cut(rest, "?")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 && strings.HasPrefix(rest, "//") {
		rest = "//" + rest[at+1:]
	}
	return scheme + ":" + rest
}
