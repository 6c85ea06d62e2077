package grpc

import (
	"cmp"
	"errors"
	"time"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// decodeError makes the error that e was made from, nil from nil. Text of any
// length and any shape of e are taken: it comes from outside.
func decodeError(e *agentv1.Error) error {
	if e == nil {
		return nil
	}
	return decodeNode(e, 0)
}

func decodeNode(e *agentv1.Error, depth int) error {
	if known := decodeLeaf(e); known != nil {
		return known
	}
	var causes []error
	if depth < 2*maxErrorDepth {
		for _, c := range e.GetCauses() {
			if c != nil {
				causes = append(causes, decodeNode(c, depth+1))
			}
		}
	}
	var first error
	if len(causes) > 0 {
		first = causes[0]
	}
	switch k := e.GetKind().(type) {
	case *agentv1.Error_Port_:
		return &ports.Error{
			Class: cmp.Or(ofClass(k.Port.GetClass()), domain.ErrAgent), Op: k.Port.GetOperation(),
			Kind: decodeKind(k.Port.GetKind()), Err: cmp.Or(first, errors.New("no cause given")),
		}
	case *agentv1.Error_Delivery_:
		return &domain.DeliveryError{
			Topic: string(k.Delivery.GetTopic()), Partition: domain.PartitionID(k.Delivery.GetPartition()),
			Attempts: int(k.Delivery.GetAttempts()), Elapsed: time.Duration(k.Delivery.GetElapsedNs()),
			TimedOut: k.Delivery.GetTimedOut(), Outcome: decodeStored(k.Delivery.GetOutcome()), Last: first,
		}
	}
	remote := remoteError{text: cmp.Or(e.GetText(), "an error of the agent that this build does not know"), causes: causes}
	if e.GetFate() != nil {
		return &fatedError{remote, decodeFate(e.GetFate())}
	}
	return &remote
}

// decodeLeaf decodes the errors that wrap nothing but their class, and returns
// nil for all others.
func decodeLeaf(e *agentv1.Error) error {
	switch k := e.GetKind().(type) {
	case *agentv1.Error_Class:
		return ofClass(k.Class)
	case *agentv1.Error_TopicNotFound:
		return &domain.TopicNotFoundError{Topic: string(k.TopicNotFound.GetTopic())}
	case *agentv1.Error_TopicExists:
		return &domain.TopicExistsError{Topic: string(k.TopicExists.GetTopic())}
	case *agentv1.Error_InvalidPartition_:
		p := k.InvalidPartition
		return &domain.InvalidPartitionError{Topic: string(p.GetTopic()), Partition: domain.PartitionID(p.GetPartition()), Count: p.GetCount()}
	case *agentv1.Error_InvalidName_:
		return &domain.InvalidNameError{What: k.InvalidName.GetWhat(), Name: string(k.InvalidName.GetName())}
	case *agentv1.Error_Config_:
		return &domain.ConfigError{Field: k.Config.GetField(), Value: k.Config.GetValue(), Want: k.Config.GetWant()}
	case *agentv1.Error_RecordTooLarge:
		r := k.RecordTooLarge
		return &domain.RecordTooLargeError{Topic: string(r.GetTopic()), What: r.GetWhat(), Size: int(r.GetSize()), Limit: int(r.GetLimit())}
	case *agentv1.Error_OutOfRange_:
		r := k.OutOfRange
		return &domain.OutOfRangeError{
			Topic: string(r.GetTopic()), Partition: domain.PartitionID(r.GetPartition()), Offset: domain.Offset(r.GetOffset()),
			LogStart: domain.Offset(r.GetLogStart()), HighWatermark: domain.Offset(r.GetHighWatermark()),
		}
	case *agentv1.Error_Corrupt_:
		var id domain.SegmentID
		copy(id[:], k.Corrupt.GetSegmentId())
		return &domain.CorruptError{Segment: id, What: k.Corrupt.GetWhat()}
	case *agentv1.Error_Fenced_:
		return &domain.FencedError{Producer: string(k.Fenced.GetProducer()), Epoch: domain.Epoch(k.Fenced.GetEpoch())}
	case *agentv1.Error_NoAgentsAvailable:
		return &domain.NoAgentsAvailableError{Group: string(k.NoAgentsAvailable.GetGroup())}
	}
	return nil
}

func decodeKind(k agentv1.Kind) ports.Kind {
	switch k {
	case agentv1.Kind_KIND_TRANSIENT:
		return ports.Transient
	case agentv1.Kind_KIND_DEFINITE:
		return ports.Definite
	case agentv1.Kind_KIND_FATAL:
		return ports.Fatal
	default:
		return ports.Ambiguous
	}
}

func decodeStored(s agentv1.Stored) domain.Stored {
	switch s {
	case agentv1.Stored_STORED_NO:
		return domain.StoredNo
	case agentv1.Stored_STORED_YES:
		return domain.StoredYes
	default:
		return domain.StoredUnknown
	}
}

func decodeFate(f *agentv1.Fate) domain.Fate {
	return domain.Fate{Stored: decodeStored(f.GetStored()), Retry: f.GetRetry(), Fatal: f.GetFatal()}
}

// remoteError is an error of the agent that has no type here: its words, and
// what it wrapped.
type remoteError struct {
	text   string
	causes []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.causes }

// fatedError is a remoteError that knew its fate.
type fatedError struct {
	remoteError
	fate domain.Fate
}

func (e *fatedError) Fate() domain.Fate { return e.fate }
