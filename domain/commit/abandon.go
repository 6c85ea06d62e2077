package commit

import (
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/sequence"
)

// Abandon settles for ever the batch b of stream k, which its producer gives
// up, and changes v accordingly: see sequence.State.Abandon for the rules.
//
// Duplicate: it is stored at Base. Accepted, with Base -1: it is not stored and
// never will be. Any other status is what Decide would have answered. A batch of NoProducer
// cannot be abandoned: UnknownProducer.
func Abandon(v *View, k StreamKey, b sequence.Batch) Outcome {
	if v.Partitions[k.PartitionKey] == nil {
		return Outcome{NoPartition, -1}
	}
	if k.Producer == NoProducer {
		return Outcome{UnknownProducer, -1}
	}
	if refused, ok := v.session(k.Producer, b.Epoch); !ok {
		return refused
	}
	state := v.Streams[k]
	if state == nil {
		state = new(sequence.State)
	}
	verdict, base := state.Abandon(b)
	if verdict == sequence.New {
		v.Streams[k] = state
	}
	return abandoned(verdict, base)
}

func abandoned(verdict sequence.Verdict, base domain.Offset) Outcome {
	switch verdict {
	case sequence.New:
		return Outcome{Accepted, -1}
	case sequence.Duplicate:
		return Outcome{Duplicate, base}
	case sequence.DuplicateForgotten:
		return Outcome{DuplicateForgotten, -1}
	case sequence.Fenced:
		return Outcome{Fenced, -1}
	default:
		return Outcome{OutOfOrder, -1}
	}
}
