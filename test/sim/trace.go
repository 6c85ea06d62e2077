package sim

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// entry is one line of a trace: a decision of the scheduler, or something that
// a client saw.
type entry struct {
	at     time.Duration
	actor  string
	call   fault.Call
	number int
	did    string
	again  bool // the call was mentioned before: this is about its answer
	event  *history.Event
}

func (e entry) String() string {
	if e.event != nil {
		return fmt.Sprintf("%12s        %s", e.at, describe(*e.event))
	}
	subject := e.call.String()
	if e.call.Method == "" {
		subject = ""
	}
	return fmt.Sprintf("%12s %-6s %3d %s: %s", e.at, e.actor, e.number, subject, e.did)
}

func describe(e history.Event) string {
	var b strings.Builder
	b.WriteString(string(e.Kind))
	for _, s := range []string{e.Actor, e.Session, e.Name, e.ID} {
		if s != "" {
			b.WriteString(" " + s)
		}
	}
	if e.Topic != "" {
		fmt.Fprintf(&b, " %s#%d", e.Topic, e.Incarnation)
	}
	fmt.Fprintf(&b, " %d/%d", e.Partition, e.Offset)
	if e.High != 0 {
		fmt.Fprintf(&b, " to %d", e.High)
	}
	return b.String()
}

// trace is what happened, in order. Only one goroutine acts at a time where it
// matters, so the order is the same in every run of a seed.
type trace struct {
	begin   time.Time
	mu      sync.Mutex
	entries []entry
}

func (t *trace) add(e entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.at = time.Since(t.begin)
	t.entries = append(t.entries, e)
}

// tail formats the last n entries, all if n is negative.
func (t *trace) tail(n int) string {
	from := 0
	if n >= 0 {
		from = max(0, len(t.entries)-n)
	}
	var b strings.Builder
	for _, e := range t.entries[from:] {
		b.WriteString(e.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// canonical formats the whole trace with what happened between two decisions of
// the scheduler in the order of its text: timers that fire at one instant do so in any order.
func (t *trace) canonical() []string {
	lines, from := make([]string, 0, len(t.entries)), 0
	for _, e := range t.entries {
		if e.number > 0 {
			slices.Sort(lines[from:])
		}
		lines = append(lines, e.String())
		if e.number > 0 {
			from = len(lines)
		}
	}
	slices.Sort(lines[from:])
	return lines
}
