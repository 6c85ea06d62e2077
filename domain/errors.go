package domain

import (
	"errors"
	"fmt"
	"time"
)

// Stored answers the first question after an error: is the record in the log?
type Stored uint8

const (
	// StoredUnknown means the record may be in the log, once at most. It is the
	// answer for every error that says nothing else.
	StoredUnknown Stored = iota
	// StoredNo means the record is not in the log and never will be.
	StoredNo
	// StoredYes means the record is in the log, though the call failed.
	StoredYes
)

func (s Stored) String() string {
	switch s {
	case StoredNo:
		return "no"
	case StoredYes:
		return "yes"
	default:
		return "unknown"
	}
}

// Fate is what a caller needs to know about an error to go on.
type Fate struct {
	// Stored says whether the record was stored.
	Stored Stored
	// Retry says whether the same call can succeed later without a change.
	Retry bool
	// Fatal says that this producer or store is of no further use.
	Fatal bool
}

// FateOf returns the fate of err: what the outermost error in its chain that
// knows its fate says, and StoredUnknown without retry if none does. A nil error was stored.
func FateOf(err error) Fate {
	if err == nil {
		return Fate{Stored: StoredYes}
	}
	var f interface{ Fate() Fate }
	if errors.As(err, &f) {
		return f.Fate()
	}
	return Fate{}
}

// sentinel is a static error that knows its fate.
type sentinel struct {
	text string
	fate Fate
}

func (s *sentinel) Error() string { return s.text }
func (s *sentinel) Fate() Fate    { return s.fate }

// The classes of error. Match with errors.Is; errors that carry data have a
// type as well, to match with errors.As.
var (
	ErrNoAgentsAvailable = newSentinel("no agents available", Fate{Stored: StoredNo, Retry: true})
	ErrAgentConnection   = newSentinel("agent connection failed", Fate{Retry: true})
	ErrAgent             = newSentinel("agent error", Fate{Retry: true})
	ErrTopicNotFound     = newSentinel("topic not found", Fate{Stored: StoredNo})
	ErrTopicExists       = newSentinel("topic exists", Fate{Stored: StoredNo})
	ErrInvalidPartition  = newSentinel("invalid partition", Fate{Stored: StoredNo})
	ErrInvalidName       = newSentinel("invalid name", Fate{Stored: StoredNo})
	ErrMetadata          = newSentinel("metadata store", Fate{Retry: true})
	ErrStorage           = newSentinel("segment store", Fate{Retry: true})
	ErrSerialization     = newSentinel("serialization", Fate{Stored: StoredNo})
	ErrCompression       = newSentinel("compression", Fate{Stored: StoredNo})
	ErrConfig            = newSentinel("invalid configuration", Fate{Stored: StoredNo})
	ErrTimeout           = newSentinel("timed out", Fate{Retry: true})
	ErrInternal          = newSentinel("internal error", Fate{Fatal: true})

	// ErrOutcomeUnknown: the record may be in the log, once at most.
	ErrOutcomeUnknown = newSentinel("outcome unknown", Fate{})
	// ErrClosed: the producer, consumer or store was closed before the call.
	ErrClosed = newSentinel("closed", Fate{Stored: StoredNo, Fatal: true})
	// ErrRecordTooLarge: the record can never be sent as it is.
	ErrRecordTooLarge = newSentinel("record too large", Fate{Stored: StoredNo})
	// ErrFenced: a newer session of the same producer name has taken over.
	ErrFenced = newSentinel("producer fenced by a newer session", Fate{Stored: StoredNo, Fatal: true})
	// ErrBufferFull: TrySend found no room; the record was not accepted.
	ErrBufferFull = newSentinel("producer buffer full", Fate{Stored: StoredNo, Retry: true})
	// ErrWouldBlock: TrySend would have to wait for the topic's look-up, which is
	// under way now; the record was not accepted.
	ErrWouldBlock = newSentinel("the call would have to wait", Fate{Stored: StoredNo, Retry: true})
	// ErrOutOfRange: no record has or will get the offset without a choice by
	// the caller.
	ErrOutOfRange = newSentinel("offset out of range", Fate{Stored: StoredNo})
	// ErrCorrupt: stored bytes are not what was written.
	ErrCorrupt = newSentinel("corrupt data", Fate{Stored: StoredNo})
	// ErrOutOfOrder: a batch arrived before the one that precedes it.
	ErrOutOfOrder = newSentinel("sequence out of order", Fate{Stored: StoredNo, Retry: true})
	// ErrOffsetUnknown: the record is in the log, but its offset is no longer
	// remembered because more than five later batches were sent.
	ErrOffsetUnknown = newSentinel("stored, offset no longer known", Fate{Stored: StoredYes})
	// ErrSessionExpired: the producer was idle for longer than its state is kept.
	ErrSessionExpired = newSentinel("producer session expired", Fate{Stored: StoredNo, Fatal: true})
)

func newSentinel(text string, fate Fate) error { return &sentinel{text: text, fate: fate} }

// TopicNotFoundError names the topic that does not exist. Nothing was stored.
type TopicNotFoundError struct{ Topic string }

func (e *TopicNotFoundError) Error() string {
	return fmt.Sprintf("topic %q not found: create it first (streamhouse topic create, or Topics.Create)", e.Topic)
}
func (e *TopicNotFoundError) Unwrap() error { return ErrTopicNotFound }

// TopicExistsError names the topic that exists already.
type TopicExistsError struct{ Topic string }

func (e *TopicExistsError) Error() string { return fmt.Sprintf("topic %q exists already", e.Topic) }
func (e *TopicExistsError) Unwrap() error { return ErrTopicExists }

// InvalidPartitionError names a partition that the topic does not have. Nothing
// was stored.
type InvalidPartitionError struct {
	Topic     string
	Partition PartitionID
	Count     int32
}

func (e *InvalidPartitionError) Error() string {
	return fmt.Sprintf("partition %d of topic %q does not exist: it has %d, numbered from 0", e.Partition, e.Topic, e.Count)
}
func (e *InvalidPartitionError) Unwrap() error { return ErrInvalidPartition }

// InvalidNameError quotes a name that is not allowed, of a long one the
// beginning and the length.
type InvalidNameError struct {
	What string
	Name string
}

func (e *InvalidNameError) Error() string {
	name := fmt.Sprintf("%.80q", e.Name)
	if len(e.Name) > MaxNameBytes {
		name += fmt.Sprintf("... of %d bytes", len(e.Name))
	}
	return fmt.Sprintf("%s name %s is not valid: want 1 to %d of A-Z a-z 0-9 . _ - and neither %q nor %q", e.What, name, MaxNameBytes, ".", "..")
}
func (e *InvalidNameError) Unwrap() error { return ErrInvalidName }

// ConfigError names one setting that cannot be used, and what it may be.
type ConfigError struct {
	Field string
	Value string
	Want  string
}

func (e *ConfigError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: want %s", e.Field, e.Want)
	}
	return fmt.Sprintf("%s is %s: want %s", e.Field, e.Value, e.Want)
}
func (e *ConfigError) Unwrap() error { return ErrConfig }

// RecordTooLargeError says which bound a record passes. Nothing was stored.
type RecordTooLargeError struct {
	Topic string
	What  string // "bytes" or "headers"
	Size  int
	Limit int
}

func (e *RecordTooLargeError) Error() string {
	return fmt.Sprintf("record for topic %q has %d %s: at most %d are allowed", e.Topic, e.Size, e.What, e.Limit)
}
func (e *RecordTooLargeError) Unwrap() error { return ErrRecordTooLarge }

// OutOfRangeError gives both bounds, so that the caller can choose where to go
// on. LogStart is the first offset there is, HighWatermark the next to come.
type OutOfRangeError struct {
	Topic         string
	Partition     PartitionID
	Offset        Offset
	LogStart      Offset
	HighWatermark Offset
}

func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("offset %d of topic %q partition %d is out of range: it holds %d up to %d; seek to start, end or an offset between", e.Offset, e.Topic, e.Partition, e.LogStart, e.HighWatermark)
}
func (e *OutOfRangeError) Unwrap() error { return ErrOutOfRange }

// CorruptError names the bytes that are not what was written, and how it shows.
// Segment is zero for bytes outside a segment.
type CorruptError struct {
	Segment SegmentID
	What    string
}

func (e *CorruptError) Error() string {
	if UUID(e.Segment).IsZero() {
		return "corrupt data: " + e.What
	}
	return fmt.Sprintf("corrupt segment %s: %s", e.Segment, e.What)
}
func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// FencedError names the producer whose newer session has taken over.
type FencedError struct {
	Producer string
	Epoch    Epoch
}

func (e *FencedError) Error() string {
	return fmt.Sprintf("producer %q session %d is fenced: a newer session uses the name", e.Producer, e.Epoch)
}
func (e *FencedError) Unwrap() error { return ErrFenced }

// NoAgentsAvailableError names the group that has no healthy agent.
type NoAgentsAvailableError struct{ Group string }

func (e *NoAgentsAvailableError) Error() string {
	return fmt.Sprintf("no agent of group %q is available", e.Group)
}
func (e *NoAgentsAvailableError) Unwrap() error { return ErrNoAgentsAvailable }

// DeliveryError is how a send ends that the producer gave up. Outcome says what
// is known about the record; Last is the newest cause, nil if no attempt was made. TimedOut
// tells the end of DeliveryTimeout or MaxRetries from a cause that retrying does not help.
type DeliveryError struct {
	Topic     string
	Partition PartitionID
	Attempts  int
	Elapsed   time.Duration
	TimedOut  bool
	Outcome   Stored
	Last      error
}

func (e *DeliveryError) Error() string {
	what := "it was not stored"
	switch e.Outcome {
	case StoredUnknown:
		what = "it may have been stored"
	case StoredYes:
		what = "it was stored"
	}
	s := fmt.Sprintf("record for topic %q partition %d not acknowledged after %d attempts in %s: %s", e.Topic, e.Partition, e.Attempts, e.Elapsed.Round(time.Millisecond), what)
	if e.Last != nil {
		s += ": " + e.Last.Error()
	}
	return s
}

// Fate implements the interface that FateOf looks for.
func (e *DeliveryError) Fate() Fate {
	fatal := e.Last != nil && FateOf(e.Last).Fatal
	return Fate{Stored: e.Outcome, Retry: e.TimedOut && !fatal, Fatal: fatal}
}

// Unwrap gives ErrTimeout if TimedOut, ErrOutcomeUnknown if the record may have
// been stored, and the cause.
func (e *DeliveryError) Unwrap() []error {
	var errs []error
	if e.TimedOut {
		errs = append(errs, ErrTimeout)
	}
	if e.Outcome == StoredUnknown {
		errs = append(errs, ErrOutcomeUnknown)
	}
	if e.Last != nil {
		errs = append(errs, e.Last)
	}
	return errs
}
