// Package logging is what the long-running commands write to standard error: one
// line for each thing that whoever runs them should know, its subject in attributes.
package logging

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// Config says how lines look and which there are.
type Config struct {
	JSON  bool
	Level slog.Level
}

// New returns a logger that writes to w.
func New(w io.Writer, c Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.JSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

const (
	// every is how often failures of one kind are logged, and maxWaiting how many
	// events may wait for the logger: more are counted.
	every      = 10 * time.Second
	maxWaiting = 64
)

// done names what fails, by the kind of its event. Kinds that are not here are
// told by others.
var done = [ports.EventKinds]string{
	ports.SegmentPut:      "upload of a segment",
	ports.MetadataCommit:  "commit of segments",
	ports.SegmentReserve:  "reservation of segments",
	ports.Fetched:         "fetch",
	ports.RetentionPass:   "pass of retention",
	ports.CollectionPass:  "pass of collection",
	ports.SweepPass:       "pass of the sweep",
	ports.CompactionPass:  "pass of compaction",
	ports.CorruptionFound: "reading of what was written",
}

// Telemetry logs the events that failed, the first that goes well after them,
// and at level debug what the janitor has done. Run writes the lines, so that nobody waits for who
// reads them.
type Telemetry struct {
	log     *slog.Logger
	events  chan ports.Event // holds what Run has not come to yet, up to maxWaiting
	dropped atomic.Int64
	failing [ports.EventKinds]atomic.Bool

	// Of Run's goroutine.
	told       [ports.EventKinds]time.Time
	suppressed [ports.EventKinds]int64
}

var _ ports.Telemetry = (*Telemetry)(nil)

// NewTelemetry makes a Telemetry. Nothing is logged without Run.
func NewTelemetry(log *slog.Logger) *Telemetry {
	return &Telemetry{log: log, events: make(chan ports.Event, maxWaiting)}
}

// Record implements ports.Telemetry.
func (t *Telemetry) Record(e ports.Event) {
	if int(e.Kind) >= len(done) || done[e.Kind] == "" || !t.wanted(e) {
		return
	}
	select {
	case t.events <- e:
	default:
		t.dropped.Add(1)
	}
}

// wanted reports whether a line may follow from e. That a reader has gone is no
// failure of a fetch.
func (t *Telemetry) wanted(e ports.Event) bool {
	switch {
	case e.Err == nil:
		return t.failing[e.Kind].CompareAndSwap(true, false) || isPass(e.Kind) && e.Count > 0
	case e.Kind == ports.Fetched && (errors.Is(e.Err, context.Canceled) || errors.Is(e.Err, context.DeadlineExceeded)):
		return false
	}
	t.failing[e.Kind].Store(true)
	return true
}

func isPass(k ports.EventKind) bool {
	return k == ports.RetentionPass || k == ports.CollectionPass || k == ports.SweepPass || k == ports.CompactionPass
}

// Run logs what is recorded until ctx ends, and then what is left.
func (t *Telemetry) Run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case e := <-t.events:
			t.write(e, time.Now())
		case <-ctx.Done():
		}
	}
	for len(t.events) > 0 {
		t.write(<-t.events, time.Now())
	}
}

func (t *Telemetry) write(e ports.Event, now time.Time) {
	what := done[e.Kind]
	attributes := []any{"duration", e.Duration, "count", e.Count, "bytes", e.Bytes}
	if e.Err == nil {
		if t.told[e.Kind].IsZero() {
			t.log.Debug(what+" has gone through", attributes...)
			return
		}
		t.log.Info(what+" goes well again", append(attributes, "suppressed", t.suppressed[e.Kind])...)
		t.told[e.Kind], t.suppressed[e.Kind] = time.Time{}, 0
		return
	}
	if now.Sub(t.told[e.Kind]) < every {
		t.suppressed[e.Kind]++
		return
	}
	level := slog.LevelWarn
	if e.Kind == ports.CorruptionFound {
		level, what = slog.LevelError, "stored bytes are not what was written"
	} else {
		what += " failed"
	}
	attributes = append(attributes, "suppressed", t.suppressed[e.Kind], "unheard", t.dropped.Swap(0))
	t.told[e.Kind], t.suppressed[e.Kind] = now, 0
	t.log.Log(context.Background(), level, what, append(attributes, Subject(e.Err)...)...)
}

// Subject returns the attributes of an error: its text, and of what it is about
// what its types know: topic, partition, segment.
func Subject(err error) []any {
	attributes := []any{"error", err.Error()}
	var (
		corrupt   *domain.CorruptError
		delivery  *domain.DeliveryError
		bounds    *domain.OutOfRangeError
		partition *domain.InvalidPartitionError
		topic     *domain.TopicNotFoundError
		agents    *domain.NoAgentsAvailableError
	)
	switch {
	case errors.As(err, &corrupt) && corrupt.Segment != domain.SegmentID{}:
		attributes = append(attributes, "segment", corrupt.Segment.String())
	case errors.As(err, &delivery):
		attributes = append(attributes, "topic", delivery.Topic, "partition", int(delivery.Partition))
	case errors.As(err, &bounds):
		attributes = append(attributes, "topic", bounds.Topic, "partition", int(bounds.Partition), "offset", int64(bounds.Offset))
	case errors.As(err, &partition):
		attributes = append(attributes, "topic", partition.Topic, "partition", int(partition.Partition))
	case errors.As(err, &topic):
		attributes = append(attributes, "topic", topic.Topic)
	case errors.As(err, &agents):
		attributes = append(attributes, "group", agents.Group)
	}
	return attributes
}
