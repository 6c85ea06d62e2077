package direct

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// call is one Append. Its fields are guarded by Writer.mu unless they never
// change.
type call struct {
	ctx    context.Context // the Append's own; its end settles what is open
	settle func(i int, r ports.AppendResult)
	items  []item
	trace  ports.TraceContext // of the span that the Append is part of
	// corrupt are the answers of the batches that are not items.
	corrupt outbox
	bytes   int64
	open    int // items not settled
	// enqueuedAt is when the items joined the queue; set with a flush interval
	// only.
	enqueuedAt time.Time
	stop       func() bool // ends the watch on ctx
	// granted is closed when the call got room; it is nil for one that did not
	// have to wait.
	granted chan struct{}
}

// state is how far a batch has come.
type state uint8

const (
	waiting    state = iota // for room, or queued
	sealed                  // in a segment whose commit has not begun
	committing              // handed to the metadata store: the outcome is not ours any more
	settled
)

// item is one batch on its way.
type item struct {
	call   *call
	index  int // in the Append
	bytes  []byte
	commit commit.Batch
	stream *stream

	state state
	draft *draft
	// refused is the error to settle with once the segment is built. Until
	// then its bytes are being copied and must not be given back.
	refused error
	// corrupt is set if the segment's builder refuses the batch.
	corrupt    error
	prev, next *item // in the queue
}

// newItem makes an item of a verified batch.
func newItem(c *call, i int, b ports.Batch, h batch.Header) item {
	return item{call: c, index: i, bytes: b.Bytes, commit: commit.Batch{
		Topic:         b.Topic,
		Partition:     b.Partition,
		Producer:      h.Producer.ID,
		Epoch:         h.Producer.Epoch,
		FirstSequence: h.Producer.Sequence,
		Records:       h.Records,
		Length:        int32(len(b.Bytes)),
		MaxTimestamp:  h.MaxTimestamp,
	}}
}

// stream is the order of one producer's batches on one partition. It exists as
// long as some of them are queued or in a segment.
type stream struct {
	key    commit.StreamKey
	queued int
	// tail is the newest segment that holds batches of the stream and has not
	// left the writer, nil if there is none.
	tail *draft
	// broken marks the stream while its batches after a failed one are refused.
	broken bool
}

// queue is a list of items in the order of their Appends.
type queue struct {
	head, tail *item
	bytes      int
}

func (q *queue) push(it *item) {
	it.prev, it.next = q.tail, nil
	if q.tail == nil {
		q.head = it
	} else {
		q.tail.next = it
	}
	q.tail = it
	q.bytes += len(it.bytes)
}

func (q *queue) remove(it *item) {
	if it.prev == nil {
		q.head = it.next
	} else {
		it.prev.next = it.next
	}
	if it.next == nil {
		q.tail = it.prev
	} else {
		it.next.prev = it.prev
	}
	it.prev, it.next = nil, nil
	q.bytes -= len(it.bytes)
}

func (q *queue) items() []*item {
	var all []*item
	for it := q.head; it != nil; it = it.next {
		all = append(all, it)
	}
	return all
}
