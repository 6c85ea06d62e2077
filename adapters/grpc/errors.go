package grpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// What an agent refuses by itself; matched with errors.Is.
var (
	// ErrUnauthenticated: the agent wants a token, and knows none like this.
	ErrUnauthenticated = errors.New("no valid token")
	// ErrPermissionDenied: the token does not allow the call, or not for this
	// topic.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrNoRoom: the agent holds as much unsettled data as it is allowed to.
	ErrNoRoom = errors.New("the agent has no room")
	// ErrNotReady: the agent takes nothing now: it drains, or its stores are away.
	ErrNotReady = errors.New("the agent takes nothing now")
)

// Limits of an error on the wire. What is over them loses its text or its
// causes, never the fate of the whole.
const (
	maxErrorText  = 1 << 10
	maxErrorDepth = 12
	maxErrorNodes = 48
)

// classes are the static errors that cross the wire as themselves.
var classes = []struct {
	class agentv1.Class
	err   error
}{
	{agentv1.Class_CLASS_NO_AGENTS_AVAILABLE, domain.ErrNoAgentsAvailable},
	{agentv1.Class_CLASS_AGENT_CONNECTION, domain.ErrAgentConnection},
	{agentv1.Class_CLASS_AGENT, domain.ErrAgent},
	{agentv1.Class_CLASS_TOPIC_NOT_FOUND, domain.ErrTopicNotFound},
	{agentv1.Class_CLASS_TOPIC_EXISTS, domain.ErrTopicExists},
	{agentv1.Class_CLASS_INVALID_PARTITION, domain.ErrInvalidPartition},
	{agentv1.Class_CLASS_INVALID_NAME, domain.ErrInvalidName},
	{agentv1.Class_CLASS_METADATA, domain.ErrMetadata},
	{agentv1.Class_CLASS_STORAGE, domain.ErrStorage},
	{agentv1.Class_CLASS_SERIALIZATION, domain.ErrSerialization},
	{agentv1.Class_CLASS_COMPRESSION, domain.ErrCompression},
	{agentv1.Class_CLASS_CONFIG, domain.ErrConfig},
	{agentv1.Class_CLASS_TIMEOUT, domain.ErrTimeout},
	{agentv1.Class_CLASS_INTERNAL, domain.ErrInternal},
	{agentv1.Class_CLASS_OUTCOME_UNKNOWN, domain.ErrOutcomeUnknown},
	{agentv1.Class_CLASS_CLOSED, domain.ErrClosed},
	{agentv1.Class_CLASS_RECORD_TOO_LARGE, domain.ErrRecordTooLarge},
	{agentv1.Class_CLASS_FENCED, domain.ErrFenced},
	{agentv1.Class_CLASS_BUFFER_FULL, domain.ErrBufferFull},
	{agentv1.Class_CLASS_WOULD_BLOCK, domain.ErrWouldBlock},
	{agentv1.Class_CLASS_OUT_OF_RANGE, domain.ErrOutOfRange},
	{agentv1.Class_CLASS_CORRUPT, domain.ErrCorrupt},
	{agentv1.Class_CLASS_OUT_OF_ORDER, domain.ErrOutOfOrder},
	{agentv1.Class_CLASS_OFFSET_UNKNOWN, domain.ErrOffsetUnknown},
	{agentv1.Class_CLASS_SESSION_EXPIRED, domain.ErrSessionExpired},
	{agentv1.Class_CLASS_OBJECT_EXISTS, ports.ErrObjectExists},
	{agentv1.Class_CLASS_OBJECT_NOT_FOUND, ports.ErrObjectNotFound},
	{agentv1.Class_CLASS_AGENT_NOT_FOUND, ports.ErrAgentNotFound},
	{agentv1.Class_CLASS_CANCELED, context.Canceled},
	{agentv1.Class_CLASS_DEADLINE_EXCEEDED, context.DeadlineExceeded},
	{agentv1.Class_CLASS_UNAUTHENTICATED, ErrUnauthenticated},
	{agentv1.Class_CLASS_PERMISSION_DENIED, ErrPermissionDenied},
	{agentv1.Class_CLASS_NO_ROOM, ErrNoRoom},
	{agentv1.Class_CLASS_NOT_READY, ErrNotReady},
}

func classOf(err error) agentv1.Class {
	for _, c := range classes {
		if c.err == err { //nolint:errorlint // the error itself is looked for, not what it wraps
			return c.class
		}
	}
	return agentv1.Class_CLASS_UNSPECIFIED
}

// ofClass returns the static error of class c, nil for one that this build does
// not know.
func ofClass(c agentv1.Class) error {
	for _, known := range classes {
		if known.class == c {
			return known.err
		}
	}
	return nil
}

// encodeError makes err's form on the wire, nil for nil.
func encodeError(err error) *agentv1.Error {
	if err == nil {
		return nil
	}
	nodes := 0
	e := encodeNode(err, 0, &nodes)
	if hint := (*roomError)(nil); errors.As(err, &hint) {
		e.RetryAfterMs = uint32(hint.retryAfter.Milliseconds())
	}
	return e
}

func encodeNode(err error, depth int, nodes *int) *agentv1.Error {
	*nodes++
	if e := encodeKnown(err, depth, nodes); e != nil {
		return e
	}
	e := &agentv1.Error{Text: clip(err.Error())}
	if depth >= maxErrorDepth || *nodes >= maxErrorNodes {
		e.Fate = encodeFate(domain.FateOf(err))
		return e
	}
	if f, ok := err.(interface{ Fate() domain.Fate }); ok {
		e.Fate = encodeFate(f.Fate())
	}
	for _, cause := range causesOf(err) {
		if *nodes >= maxErrorNodes {
			e.Fate = encodeFate(domain.FateOf(err))
			break
		}
		e.Causes = append(e.Causes, encodeNode(cause, depth+1, nodes))
	}
	return e
}

func causesOf(err error) []error {
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		if cause := u.Unwrap(); cause != nil {
			return []error{cause}
		}
	case interface{ Unwrap() []error }:
		return u.Unwrap()
	}
	return nil
}

// encodeKnown encodes the errors that have a form of their own, and returns nil
// for all others.
func encodeKnown(err error, depth int, nodes *int) *agentv1.Error {
	if c := classOf(err); c != agentv1.Class_CLASS_UNSPECIFIED {
		return &agentv1.Error{Kind: &agentv1.Error_Class{Class: c}}
	}
	switch e := err.(type) {
	case *ports.Error:
		out := &agentv1.Error{Kind: &agentv1.Error_Port_{Port: &agentv1.Error_Port{
			Class: classOf(e.Class), Kind: encodeKind(e.Kind), Operation: clip(e.Op),
		}}}
		return withCause(out, e.Err, depth, nodes)
	case *domain.DeliveryError:
		out := &agentv1.Error{Kind: &agentv1.Error_Delivery_{Delivery: &agentv1.Error_Delivery{
			Topic: []byte(clip(e.Topic)), Partition: int32(e.Partition), Attempts: int64(e.Attempts),
			ElapsedNs: int64(e.Elapsed), TimedOut: e.TimedOut, Outcome: encodeStored(e.Outcome),
		}}}
		return withCause(out, e.Last, depth, nodes)
	}
	return encodeLeaf(err)
}

func withCause(e *agentv1.Error, cause error, depth int, nodes *int) *agentv1.Error {
	switch {
	case cause == nil:
	case depth >= maxErrorDepth || *nodes >= maxErrorNodes:
		e.Causes = []*agentv1.Error{{Text: clip(cause.Error()), Fate: encodeFate(domain.FateOf(cause))}}
	default:
		e.Causes = []*agentv1.Error{encodeNode(cause, depth+1, nodes)}
	}
	return e
}

// encodeLeaf encodes the errors of domain that hold data and wrap nothing but
// their class.
func encodeLeaf(err error) *agentv1.Error {
	switch e := err.(type) {
	case *domain.TopicNotFoundError:
		return &agentv1.Error{Kind: &agentv1.Error_TopicNotFound{TopicNotFound: &agentv1.Error_NotFound{Topic: []byte(clip(e.Topic))}}}
	case *domain.TopicExistsError:
		return &agentv1.Error{Kind: &agentv1.Error_TopicExists{TopicExists: &agentv1.Error_Exists{Topic: []byte(clip(e.Topic))}}}
	case *domain.InvalidPartitionError:
		return &agentv1.Error{Kind: &agentv1.Error_InvalidPartition_{InvalidPartition: &agentv1.Error_InvalidPartition{
			Topic: []byte(clip(e.Topic)), Partition: int32(e.Partition), Count: e.Count,
		}}}
	case *domain.InvalidNameError:
		return &agentv1.Error{Kind: &agentv1.Error_InvalidName_{InvalidName: &agentv1.Error_InvalidName{
			What: clip(e.What), Name: []byte(clipBytes(e.Name)),
		}}}
	case *domain.ConfigError:
		return &agentv1.Error{Kind: &agentv1.Error_Config_{Config: &agentv1.Error_Config{
			Field: clip(e.Field), Value: clip(e.Value), Want: clip(e.Want),
		}}}
	case *domain.RecordTooLargeError:
		return &agentv1.Error{Kind: &agentv1.Error_RecordTooLarge{RecordTooLarge: &agentv1.Error_TooLarge{
			Topic: []byte(clip(e.Topic)), What: clip(e.What), Size: int64(e.Size), Limit: int64(e.Limit),
		}}}
	case *domain.OutOfRangeError:
		return &agentv1.Error{Kind: &agentv1.Error_OutOfRange_{OutOfRange: &agentv1.Error_OutOfRange{
			Topic: []byte(clip(e.Topic)), Partition: int32(e.Partition), Offset: int64(e.Offset),
			LogStart: int64(e.LogStart), HighWatermark: int64(e.HighWatermark),
		}}}
	case *domain.CorruptError:
		return &agentv1.Error{Kind: &agentv1.Error_Corrupt_{Corrupt: &agentv1.Error_Corrupt{SegmentId: encodeSegment(e.Segment), What: clip(e.What)}}}
	case *domain.FencedError:
		return &agentv1.Error{Kind: &agentv1.Error_Fenced_{Fenced: &agentv1.Error_Fenced{Producer: []byte(clip(e.Producer)), Epoch: int32(e.Epoch)}}}
	case *domain.NoAgentsAvailableError:
		return &agentv1.Error{Kind: &agentv1.Error_NoAgentsAvailable{NoAgentsAvailable: &agentv1.Error_NoAgents{Group: []byte(clip(e.Group))}}}
	}
	return nil
}

func encodeSegment(id domain.SegmentID) []byte {
	if domain.UUID(id).IsZero() {
		return nil
	}
	return id[:]
}

func encodeKind(k ports.Kind) agentv1.Kind {
	switch k {
	case ports.Transient:
		return agentv1.Kind_KIND_TRANSIENT
	case ports.Definite:
		return agentv1.Kind_KIND_DEFINITE
	case ports.Fatal:
		return agentv1.Kind_KIND_FATAL
	default:
		return agentv1.Kind_KIND_AMBIGUOUS
	}
}

func encodeStored(s domain.Stored) agentv1.Stored {
	switch s {
	case domain.StoredNo:
		return agentv1.Stored_STORED_NO
	case domain.StoredYes:
		return agentv1.Stored_STORED_YES
	default:
		return agentv1.Stored_STORED_UNKNOWN
	}
}

func encodeFate(f domain.Fate) *agentv1.Fate {
	return &agentv1.Fate{Stored: encodeStored(f.Stored), Retry: f.Retry, Fatal: f.Fatal}
}

// clip makes s short and UTF-8.
func clip(s string) string { return strings.ToValidUTF8(clipBytes(s), "\uFFFD") }

func clipBytes(s string) string { return s[:min(len(s), maxErrorText)] }

// roomError refuses a batch for which there is no room now.
type roomError struct {
	what       string
	retryAfter time.Duration
}

func (e *roomError) Error() string { return ErrNoRoom.Error() + ": " + e.what }
func (e *roomError) Unwrap() error { return ErrNoRoom }

// noRoom is the error of a batch that was not taken over for want of room.
func noRoom(what string, retryAfter time.Duration) error {
	return agentError("append", ports.Transient, &roomError{what, retryAfter})
}

// agentError makes an Error of class domain.ErrAgent.
func agentError(op string, kind ports.Kind, err error) error {
	return &ports.Error{Class: domain.ErrAgent, Op: op, Kind: kind, Err: err}
}

// connectionError makes an Error of class domain.ErrAgentConnection.
func connectionError(op string, kind ports.Kind, err error) error {
	return &ports.Error{Class: domain.ErrAgentConnection, Op: op, Kind: kind, Err: err}
}

// notReady is the error of a call or a batch that was not taken over because the
// agent takes nothing.
func notReady(why string) error {
	return agentError("call", ports.Transient, fmt.Errorf("%w: %s", ErrNotReady, why))
}
