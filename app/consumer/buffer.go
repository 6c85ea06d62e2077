package consumer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// headerSlab is how many headers are allocated at once.
const headerSlab = 256

// chunk is what one fetch brought for one partition: whole batches that follow
// each other, then perhaps the error that ended them.
type chunk struct {
	p       *partition
	version uint64
	data    []byte
	sources ports.Sources // of what was fetched, whose byte number next is data's first
	next    int
	err     error
	// found: err is corruption that this consumer found.
	found bool

	// records walks the batch that is open. It was fetched as the bytes from at
	// to next.
	records batch.Records
	at      int
	open    bool
}

// fill appends messages to dst, up to most in all, as far as they are buffered.
func (c *Consumer) fill(dst []domain.Message, most int) []domain.Message {
	for len(dst) < most {
		ch := c.front()
		if ch == nil {
			break
		}
		if ch.open {
			dst = c.read(dst, most, ch)
		} else {
			c.openBatch(ch)
		}
	}
	return dst
}

// front returns the chunk to read next, nil if none is buffered. It drops those
// that no longer apply, and lets the next fetch begin when the last one's chunks are used up.
func (c *Consumer) front() *chunk {
	for {
		if c.next == len(c.current) {
			if len(c.ahead) == 0 {
				return nil
			}
			c.current, c.ahead, c.next = c.ahead, c.current[:0], 0
			c.demand()
		}
		ch := &c.current[c.next]
		if ch.version == ch.p.version {
			if !ch.p.paused && !ch.p.atLimit() {
				return ch
			}
			if !mutant.On(mutantPauseLoses) {
				ch.p.rewind()
			}
		}
		c.drop()
	}
}

// drop lets the front chunk go, and its memory.
func (c *Consumer) drop() {
	c.current[c.next] = chunk{}
	c.next++
}

// openBatch makes the chunk's next batch the open one. Its checksum is checked
// before any of its records is seen.
func (c *Consumer) openBatch(ch *chunk) {
	if len(ch.data) == 0 {
		if ch.err != nil {
			c.fail(ch.p, ch.err, ch.found)
		}
		c.drop()
		return
	}
	ch.at = ch.next
	h, err := batch.ParseHeader(ch.data)
	if err == nil {
		b := ch.data[:h.Length:h.Length]
		ch.data, ch.next = ch.data[h.Length:], ch.next+h.Length
		if lastOffset(h) < ch.p.position {
			return
		}
		ch.records, err = c.decoder.Decode(b)
	}
	if mutant.On(mutantLocatedBehind) {
		ch.at = ch.next
	}
	if err != nil {
		c.fail(ch.p, located(err, ch.sources, ch.at), true)
		c.drop()
		return
	}
	ch.open = true
	if mutant.On(mutantOffByOne) && h.BaseOffset < ch.p.position {
		ch.p.position++
	}
}

// read appends messages of the open batch to dst, up to most in all.
func (c *Consumer) read(dst []domain.Message, most int, ch *chunk) []domain.Message {
	p := ch.p
	left := max(0, int(lastOffset(ch.records.Header())-p.position+1))
	dst = slices.Grow(dst, min(most-len(dst), left))
	var r batch.Record
	for len(dst) < most && !p.atLimit() {
		if !ch.records.Next(&r) {
			c.closeBatch(ch)
			break
		}
		if r.Offset < p.position {
			continue // The batch begins before the position.
		}
		dst = dst[:len(dst)+1]
		c.message(&dst[len(dst)-1], p, &r)
		p.position = r.Offset + 1
		p.failures = 0
	}
	return dst
}

// message makes m the record r of p.
func (c *Consumer) message(m *domain.Message, p *partition, r *batch.Record) {
	m.Topic = p.topic
	m.Partition = p.key.Partition
	m.Offset = r.Offset
	m.Timestamp = time.UnixMilli(r.Timestamp).UTC()
	m.Key = r.Key
	m.Value = r.Value
	m.Headers = nil
	if n := r.HeaderCount(); n > 0 {
		m.Headers = c.headers(r, n)
	}
}

// headers carves the record's n headers out of a slab that many records share.
func (c *Consumer) headers(r *batch.Record, n int) []domain.Header {
	if cap(c.slab)-len(c.slab) < n {
		c.slab = make([]domain.Header, 0, max(n, headerSlab))
	}
	from := len(c.slab)
	c.slab = r.AppendHeaders(c.slab)
	return c.slab[from:len(c.slab):len(c.slab)]
}

// closeBatch ends the open batch after its last record, or at the one that is
// not right.
func (c *Consumer) closeBatch(ch *chunk) {
	err := ch.records.Err()
	ch.records, ch.open = batch.Records{}, false
	if err != nil {
		c.fail(ch.p, located(err, ch.sources, ch.at), true)
	}
}

func lastOffset(h batch.Header) domain.Offset {
	return h.BaseOffset + domain.Offset(h.LastOffsetDelta)
}

// checkBatches returns how many bytes of data are whole batches that hold
// offset from and what follows it without a gap, the offset behind them, and what is
// wrong with the rest. The first batches may lie before from.
func checkBatches(data []byte, from domain.Offset) (size int, next domain.Offset, err error) {
	next = from
	for size < len(data) {
		h, err := batch.ParseHeader(data[size:])
		if err != nil {
			return size, max(next, from), err
		}
		if gap := h.BaseOffset > next || size > 0 && h.BaseOffset != next; gap && !mutant.On(mutantGapUnchecked) {
			return size, max(next, from), corrupt("batch at offset %d where %d was due", h.BaseOffset, next)
		}
		size += h.Length
		next = lastOffset(h) + 1
	}
	if size > 0 && next <= from {
		return 0, from, corrupt("batches end before offset %d, %d was asked for", next, from)
	}
	return size, next, nil
}

// located adds to err in which segment the batch lies that begins at byte number
// at of what was fetched.
func located(err error, sources ports.Sources, at int) error {
	var c *domain.CorruptError
	if !errors.As(err, &c) || c.Segment != (domain.SegmentID{}) {
		return err
	}
	id, position, known := sources.Locate(int64(at))
	if !known {
		return err
	}
	return &domain.CorruptError{Segment: id, What: fmt.Sprintf("batch at %d: %s", position, c.What)}
}

func corrupt(format string, args ...any) error {
	return &domain.CorruptError{What: fmt.Sprintf(format, args...)}
}
