package powerloss_test

import (
	"fmt"
	"maps"
)

// place is where a record is.
type place struct{ partition, offset int }

// history is what processes were told over many losses of power, and so what
// must be true after the next.
type history struct {
	acked   map[place]string // and what was read: it was on the disk after a crash
	where   map[string]place
	refused map[string]bool
	topic   bool
	counted int // acknowledgements
	unknown int // records whose fate their producer was not told
}

func newHistory() *history {
	return &history{acked: make(map[place]string), where: make(map[string]place), refused: make(map[string]bool)}
}

// round is what one process reports, and what was known when it began.
type round struct {
	acked   map[place]string
	topic   bool
	alone   bool // no other process writes meanwhile
	read    map[place]string
	ends    map[int]int
	checked bool
}

func (h *history) begin(alone bool) *round {
	return &round{acked: maps.Clone(h.acked), topic: h.topic, alone: alone, read: make(map[place]string), ends: make(map[int]int)}
}

// take enters one line of a process and returns what it breaks.
func (h *history) take(r *round, line string) error {
	var (
		at place
		id string
		n  int
	)
	switch {
	case scan(line, "ack %d %d %s", &at.partition, &at.offset, &id):
		h.counted++
		return h.place(at, id)
	case scan(line, "read %d %d %s", &at.partition, &at.offset, &id):
		if h.refused[id] {
			return fmt.Errorf("record %s is at %+v, though its producer was told that it is not stored", id, at)
		}
		if want, ok := h.acked[at]; ok && want != id {
			return fmt.Errorf("at %+v is %s, where %s was acknowledged", at, id, want)
		}
		if _, twice := r.read[at]; twice {
			return fmt.Errorf("%+v was read twice", at)
		}
		r.read[at] = id
		return h.place(at, id)
	case scan(line, "end %d %d", &at.partition, &n):
		r.ends[at.partition] = n
	case scan(line, "refused %s", &id):
		h.refused[id] = true
	case scan(line, "unknown %s", &id):
		h.unknown++
	case line == "topic":
		h.topic = true
	case line == "no-topic" && r.topic:
		return fmt.Errorf("the topic is lost")
	case line == "checked":
		r.checked = true
		return r.complete()
	}
	return nil
}

func scan(line, format string, args ...any) bool {
	n, err := fmt.Sscanf(line, format, args...)
	return err == nil && n == len(args)
}

// place notes where a record is: one place for each, one record for each place.
func (h *history) place(at place, id string) error {
	if other, taken := h.acked[at]; taken && other != id {
		return fmt.Errorf("%+v was given to %s and to %s", at, other, id)
	}
	if other, known := h.where[id]; known && other != at {
		return fmt.Errorf("record %s is at %+v and at %+v", id, other, at)
	}
	h.acked[at], h.where[id] = id, at
	return nil
}

// complete checks a read of everything: nothing lost, no hole.
func (r *round) complete() error {
	for at, id := range r.acked {
		if r.read[at] != id {
			return fmt.Errorf("record %s, acknowledged at %+v, is lost: the log ends at %d", id, at, r.ends[at.partition])
		}
	}
	read := make(map[int]int)
	for at := range r.read {
		read[at.partition] = max(read[at.partition], at.offset+1)
	}
	for partition, end := range r.ends {
		if !r.alone {
			end = read[partition] // it may have risen since
		}
		for offset := range end {
			if _, ok := r.read[place{partition, offset}]; !ok {
				return fmt.Errorf("partition %d has no offset %d below its end %d", partition, offset, end)
			}
		}
	}
	return nil
}
