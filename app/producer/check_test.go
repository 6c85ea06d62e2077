package producer

import (
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// place is where a record is stored.
type place struct {
	commit.PartitionKey
	offset domain.Offset
}

// check compares what the records were told with what is stored.
func (h *history) check() {
	where := map[string][]place{}
	for key, log := range h.lab.log {
		for _, r := range log {
			where[r.value] = append(where[r.value], place{key, r.offset})
		}
	}
	known := map[string]bool{}
	for _, s := range h.records {
		known[s.value] = true
		h.checkTold(s)
		h.checkStored(s, where[s.value])
	}
	for value := range where {
		if !known[value] {
			h.fault("stored record %.20q was never sent", value)
		}
	}
	h.checkOrder(where)
	h.checkCallbacks()
}

// checkTold looks at how often and when s was told its fate.
func (h *history) checkTold(s *sent) {
	calls := 0
	if s.callback {
		calls = 1
	}
	if s.fates != 1 || s.calls != calls {
		h.fault("record %d was told its fate %d times, its callback %d times of %d", s.index, s.fates, s.calls, calls)
	}
	if s.pending != nil && s.at.Sub(s.accepted) > h.plan.Change.DeliveryTimeout+time.Second {
		h.fault("record %d was told its fate %s after acceptance: %v", s.index, s.at.Sub(s.accepted), s.err)
	}
}

// checkStored compares what s was told with where it is.
func (h *history) checkStored(s *sent, at []place) {
	live := 0
	for _, p := range at {
		if !h.ids[p.Topic] {
			live++
		}
	}
	once := len(at) <= 1 || !h.plan.Change.Idempotence // else a retry may store it again
	switch stored := domain.FateOf(s.err).Stored; {
	case !once:
		h.fault("record %d is stored %d times: %v", s.index, len(at), at)
	case stored == domain.StoredYes && len(at) == 0:
		h.fault("record %d was said to be stored and is not", s.index)
	case stored == domain.StoredNo && live > 0:
		h.fault("record %d was said not to be stored and is, at %v: %v", s.index, at, s.err)
	case s.err == nil:
		for _, p := range at {
			if p.Partition == s.result.Partition && p.offset == s.result.Offset {
				return
			}
		}
		h.fault("record %d was said to be at partition %d offset %d and is at %v", s.index, s.result.Partition, s.result.Offset, at)
	}
}

// checkOrder demands that the acknowledged records of each sender keep their
// order in each partition.
func (h *history) checkOrder(where map[string][]place) {
	type stream struct {
		commit.PartitionKey
		sender int
	}
	last := map[stream]*sent{}
	for _, s := range h.records {
		if s.err != nil {
			continue
		}
		for _, p := range where[s.value] {
			if p.offset != s.result.Offset || p.Partition != s.result.Partition {
				continue
			}
			k := stream{p.PartitionKey, s.sender}
			if before := last[k]; before != nil && before.result.Offset >= p.offset {
				h.fault("record %d at offset %d follows record %d at %d", s.index, p.offset, before.index, before.result.Offset)
			}
			last[k] = s
		}
	}
}

// checkCallbacks demands that the callbacks of a sender's accepted records ran
// in order, partition by partition. Those of a topic created again are apart.
func (h *history) checkCallbacks() {
	if len(h.ids) > 0 {
		return
	}
	type stream struct {
		partition domain.PartitionID
		sender    int
	}
	last := map[stream]*sent{}
	for _, s := range h.records {
		if s.calls == 0 || s.result.Topic == "" { // it was refused
			continue
		}
		k := stream{s.result.Partition, s.sender}
		if before := last[k]; before != nil && before.order > s.order {
			h.fault("the callback of record %d ran before that of record %d", s.index, before.index)
		}
		last[k] = s
	}
}
