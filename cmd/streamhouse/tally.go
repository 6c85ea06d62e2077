package main

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/recordio"
	"github.com/streamhouse/streamhouse/domain"
)

// tally counts what became of the records of one produce, and passes
// acknowledgements on as they come.
type tally struct {
	// acks, if not nil, gets a JSON line for each acknowledged record.
	acks *outbox
	// fatal is called with an error after which no later record can succeed.
	fatal func(error)

	settled atomic.Int64

	mu        sync.Mutex
	sent      int64
	failed    int64
	spans     []span // by partition
	first     error
	firstLine int64
	used      []*slot // settled, to be used again

	// mine holds free slots. It belongs to the one goroutine that sends.
	mine []*slot
}

// span is what one partition got.
type span struct {
	first, last domain.Offset
	count       int64
}

// slot is the callback of one record on its way. Slots are used again, so that
// a record costs no allocation of its own.
type slot struct {
	line   int64
	settle func(domain.SendResult, error)
}

// slotChunk is how many slots are made at once.
const slotChunk = 256

// callback returns the callback for the record of a line. Only the goroutine
// that sends may call it.
func (t *tally) callback(line int64) func(domain.SendResult, error) {
	if len(t.mine) == 0 {
		t.mu.Lock()
		t.mine, t.used = t.used, t.mine
		t.mu.Unlock()
	}
	if len(t.mine) == 0 {
		t.grow()
	}
	s := t.mine[len(t.mine)-1]
	t.mine = t.mine[:len(t.mine)-1]
	s.line = line
	return s.settle
}

func (t *tally) grow() {
	slots := make([]slot, slotChunk)
	for i := range slots {
		s := &slots[i]
		s.settle = func(r domain.SendResult, err error) { t.settle(s, r, err) }
		t.mine = append(t.mine, s)
	}
}

// settle takes the fate of the record in s.
func (t *tally) settle(s *slot, r domain.SendResult, err error) {
	t.settled.Add(1)
	line := s.line
	t.mu.Lock()
	t.used = append(t.used, s)
	if err == nil {
		t.add(r)
	} else {
		t.refuse(line, err)
	}
	t.mu.Unlock()
	switch {
	case err == nil && t.acks != nil:
		t.acks.append(func(buf []byte) []byte { return appendAck(buf, line, r) })
	case err != nil && domain.FateOf(err).Fatal:
		t.fatal(err)
	}
}

// reject counts a line that was not sent.
func (t *tally) reject(line int64, err error) {
	t.settled.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refuse(line, err)
}

func (t *tally) refuse(line int64, err error) {
	t.failed++
	if t.first == nil || line < t.firstLine {
		t.first, t.firstLine = err, line
	}
}

func (t *tally) add(r domain.SendResult) {
	t.sent++
	for int(r.Partition) >= len(t.spans) {
		t.spans = append(t.spans, span{})
	}
	s := &t.spans[r.Partition]
	if s.count == 0 {
		s.first, s.last = r.Offset, r.Offset
	}
	s.first, s.last = min(s.first, r.Offset), max(s.last, r.Offset)
	s.count++
}

func appendAck(buf []byte, line int64, r domain.SendResult) []byte {
	buf = append(buf, `{"n":`...)
	buf = strconv.AppendInt(buf, line, 10)
	buf = append(buf, `,"partition":`...)
	buf = strconv.AppendInt(buf, int64(r.Partition), 10)
	buf = append(buf, `,"offset":`...)
	buf = strconv.AppendInt(buf, int64(r.Offset), 10)
	return append(buf, "}\n"...)
}

// firstFailure describes the failed record of the lowest line, "" if none
// failed.
func (t *tally) firstFailure() string {
	if t.first == nil {
		return ""
	}
	return fmt.Sprintf("line %d: %v", t.firstLine, t.first)
}

// appendJSON writes the summary as one JSON object. Nothing may be on its way.
func (t *tally) appendJSON(buf []byte, elapsed time.Duration) []byte {
	buf = fmt.Appendf(buf, `{"sent":%d,"failed":%d,"partitions":{`, t.sent, t.failed)
	comma := ""
	for id, s := range t.spans {
		if s.count == 0 {
			continue
		}
		buf = fmt.Appendf(buf, `%s"%d":{"first_offset":%d,"last_offset":%d,"count":%d}`, comma, id, s.first, s.last, s.count)
		comma = ","
	}
	buf = fmt.Appendf(buf, `},"seconds":%.3f`, elapsed.Seconds())
	if first := t.firstFailure(); first != "" {
		buf = append(buf, `,"first_error":`...)
		buf = recordio.AppendString(buf, first)
	}
	return append(buf, "}\n"...)
}

// spansShown is how many partitions the text summary lists.
const spansShown = 10

// appendText writes the summary for people. Nothing may be on its way.
func (t *tally) appendText(buf []byte, topic string, elapsed time.Duration) []byte {
	buf = fmt.Appendf(buf, "sent %s %s to %s in %.2fs", grouped(t.sent), plural(t.sent, "record"), topic, elapsed.Seconds())
	if perSecond := rate(t.sent, elapsed); perSecond > 0 {
		buf = fmt.Appendf(buf, " (%s/s)", grouped(perSecond))
	}
	buf = append(buf, '\n')
	shown := 0
	for id, s := range t.spans {
		if s.count == 0 {
			continue
		}
		if shown++; shown > spansShown {
			return append(buf, "  and more partitions: see --output json\n"...)
		}
		buf = fmt.Appendf(buf, "  partition %d: %s %s, offsets %d to %d\n", id, grouped(s.count), plural(s.count, "record"), s.first, s.last)
	}
	return buf
}
