package producer

import (
	"cmp"
	"errors"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
)

const (
	// recordOverhead is what a record costs in memory besides its bytes: its
	// Pending and its callback. A batch costs batchOverhead besides its buffers.
	recordOverhead = 32
	batchOverhead  = 480
	// smallBatch is the size in bytes, before compression, of batches that are
	// so small because their partitions are many.
	smallBatch = 64 << 10
	// pieceSize is the size in bytes of the pieces that batches grow by, until a
	// quarter of the batch is more.
	pieceSize = 2 << 10
)

// partition is where records of one partition wait and how their batches keep
// their order. Records enter open; full batches stand in queue; sent ones in inflight. All
// three together are in the order of sending.
//
// A partition itself is what each record touches, five cache lines, and those of a topic of
// very many lie side by side (see partitionIn): there a record waits for memory, unless the
// processor sees which comes next. What only batches touch is in sending.
type partition struct {
	mu      sync.Mutex
	open    *outgoing
	p       *Producer
	listed  bool      // in the dispatcher's list of ready partitions
	hold    hold      // why nothing is sent although something waits
	gone    bool      // the topic is deleted
	calling bool      // a goroutine runs callbacks, or will
	now     gathering // of the open batch
	*sending
	// The newest callbacks of the open batch, which go on to its list eight at a
	// time, for the reason that stages have.
	newest [8]pendingCallback
	fresh  int // how many of newest are not in the list yet
}

// sending is the part of a partition that its batches touch.
type sending struct {
	topic    *topic
	id       domain.PartitionID
	queue    []*outgoing
	inflight []*outgoing
	lastSize int    // of the batch before, to size the next buffer
	stage    []byte // see stages; lent to the open batch

	session  *session
	sequence domain.Sequence // of the next batch

	failures    int // in a row, for the back-off
	unspent     []unspent
	order       []*outgoing // not over, or behind one that is not
	completions []*outgoing // whose callbacks are to run
}

func (part *partition) key() commit.PartitionKey {
	return commit.PartitionKey{Topic: part.topic.id, Partition: part.id}
}

// errTopicReplaced tells the producer to look the topic up again.
var errTopicReplaced = errors.New("topic was deleted")

// append adds r, whose encoding takes bound bytes at most and for which held bytes
// are held of the budget.
func (part *partition) append(r *domain.Record, bound int, held int64, callback Callback, trace *ports.TraceContext) (*Pending, error) {
	part.mu.Lock()
	defer part.mu.Unlock()
	if part.gone {
		return nil, errTopicReplaced
	}
	ts, err := part.room(r, bound)
	if err != nil {
		return nil, err
	}
	g := &part.now
	pending := part.p.pendings.take()
	pending.o, pending.index, pending.delta = part.open, int32(g.builder.Count()), g.delta(ts)
	g.builder.Append(ts, r.Key, r.Value, r.Headers)
	g.charge += held
	if trace != nil {
		part.open.traces = ports.AddTrace(part.open.traces, *trace)
	}
	if callback != nil {
		part.note(pendingCallback{callback, pending.index, pending.delta})
	}
	part.announce()
	return pending, nil
}

// note keeps a callback of the open batch.
func (part *partition) note(c pendingCallback) {
	if part.fresh == len(part.newest) {
		part.listCallbacks()
	}
	part.newest[part.fresh] = c
	part.fresh++
}

// listCallbacks moves the newest callbacks to the open batch's list.
func (part *partition) listCallbacks() {
	part.now.callbacks = append(part.now.callbacks, part.newest[:part.fresh]...)
	clear(part.newest[:part.fresh])
	part.fresh = 0
}

// room makes room for r in an open batch, and returns r's timestamp.
func (part *partition) room(r *domain.Record, bound int) (int64, error) {
	p, g := part.p, &part.now
	if part.open != nil {
		ts := g.timestamp(r, p.began)
		if g.fits(bound, p.cfg.BatchBytes, ts) && !part.stale(r, ts) {
			part.grow(bound)
			return ts, nil
		}
		part.shut()
	}
	if err := part.newBatch(bound); err != nil {
		return 0, err
	}
	return g.timestamp(r, p.began), nil
}

// stale reports that the open batch has waited long enough behind others for its
// youngest record to suffer from the age of its oldest when the delivery deadline comes. Ts is r's.
func (part *partition) stale(r *domain.Record, ts int64) bool {
	age := time.Duration(ts-part.now.firstMS) * time.Millisecond // no further look at the clock
	if !r.Timestamp.IsZero() {
		age = time.Since(part.p.began) - part.now.since
	}
	return age > max(part.p.cfg.DeliveryTimeout/crowdShare, part.p.cfg.BatchTimeout)
}

// newBatch opens a batch whose first record takes bound bytes at most.
func (part *partition) newBatch(bound int) error {
	p := part.p
	if part.topic.replaced.Load() {
		return errTopicReplaced
	}
	group, err := p.generations.begin()
	if err != nil {
		return cmp.Or(p.usable(), err)
	}
	now := time.Now()
	p.refresh(part.topic, now)
	o := &outgoing{part: part, group: group, first: now, done: make(chan struct{})}
	part.open = o
	part.now = gathering{since: now.Sub(p.began), firstMS: now.UnixMilli(), callbacks: p.slots.take()}
	part.now.builder.Reset(p.buffers.take(max(part.expected(), batch.HeaderSize+bound)))
	if part.stage == nil {
		part.stage = p.stages.take()
	}
	part.now.builder.Stage(part.stage)
	part.order = append(part.order, o)
	p.reaper.by(o.deadline().Add(reapAfter))
	return nil
}

// shut moves the open batch into the queue: nothing joins it any more.
func (part *partition) shut() {
	if o := part.closeOpen(); o != nil {
		part.queue = append(part.queue, o)
	}
}

// closeOpen returns the batch that was open, if one was, with what it gathered.
func (part *partition) closeOpen() *outgoing {
	o := part.open
	if o != nil {
		part.now.builder.Unstage()
		part.listCallbacks()
		o.gathering, o.count, o.baseTimestamp = part.now, int32(part.now.builder.Count()), part.now.builder.BaseTimestamp()
		part.open, part.now = nil, gathering{}
		part.seal(o)
	}
	return o
}

// expected is how much room the next batch begins with, by the one before it. Small
// batches are those of many partitions, most of which wait half full: they begin with a piece.
func (part *partition) expected() int {
	if part.lastSize < smallBatch {
		return min(part.lastSize, pieceSize)
	}
	return min(part.lastSize+part.lastSize/8, part.p.cfg.BatchBytes)
}

// grow gives the open batch a piece more if it has no room for bound bytes.
func (part *partition) grow(bound int) {
	b := &part.now.builder
	have := b.Cap()
	if b.Len()+bound <= have {
		return
	}
	piece := min(max(pieceSize, have/4), part.p.cfg.BatchBytes)
	b.Extend(part.p.buffers.take(max(piece, bound)))
}

// announce tells the dispatcher what it has to know of a record just added.
func (part *partition) announce() {
	d := &part.p.dispatcher
	if part.sendable() {
		part.list(part.oldest())
	}
	if part.now.builder.Count() == part.p.cfg.BatchSize {
		d.trigger()
	}
	d.checkWaterline()
}

// sendable reports whether a request may take a batch of the partition.
func (part *partition) sendable() bool {
	return !part.listed && part.hold == free && len(part.inflight) < part.window() && (part.open != nil || len(part.queue) > 0)
}

// list puts the partition into the dispatcher's list.
func (part *partition) list(since time.Time) {
	part.listed = true
	part.p.dispatcher.list(part, since)
}

// window is how many batches may be in flight.
func (part *partition) window() int {
	if part.p.cfg.Idempotence {
		return sequence.Window
	}
	return 1
}

// take moves the first waiting batch into the request. It reports whether
// another one could follow, and since when that waits; the partition then stays in the
// caller's list.
func (part *partition) take(r *request) (since time.Time, more bool) {
	part.mu.Lock()
	defer part.mu.Unlock()
	part.listed = false
	if !part.sendable() || part.peek().late(r.started) { // what is late is the reaper's
		return since, false
	}
	o := part.next()
	part.number(o)
	o.settled = false
	part.inflight = append(part.inflight, o)
	r.add(o)
	if part.sendable() {
		part.listed = true
		return part.oldest(), true
	}
	return since, false
}

// seal books what o takes besides its records, the part of its buffer that they
// do not fill with it, so that the budget bounds the memory and not just the records.
func (part *partition) seal(o *outgoing) {
	part.lastSize = o.builder.Len()
	more := batchOverhead + int64(o.builder.Cap()-o.builder.Len())
	o.charge += more
	part.p.budget.used.Add(more)
}

// next removes and returns the first waiting batch.
func (part *partition) next() *outgoing {
	if len(part.queue) > 0 {
		o := part.queue[0]
		part.queue = without(part.queue, 1)
		return o
	}
	return part.closeOpen()
}

func (part *partition) oldest() time.Time {
	if len(part.queue) > 0 {
		return part.queue[0].first
	}
	return part.open.first
}

// number gives o its place in the producer's sequence, once for ever.
func (part *partition) number(o *outgoing) {
	if o.sequenced && !mutant.On(mutantNewSequence) || !part.p.cfg.Idempotence {
		return
	}
	if current := part.p.session.Load(); part.session != current && len(part.inflight) == 0 && !part.anySequenced() {
		part.session, part.sequence = current, 0
	}
	o.sequenced, o.session, o.sequence = true, part.session, part.sequence
	part.sequence = part.sequence.Add(o.count)
	if mutant.On(mutantNewSequence) && o.encoded != nil {
		batch.SetProducer(o.encoded, o.producer())
	}
}

func (part *partition) anySequenced() bool {
	for _, o := range part.queue {
		if o.sequenced {
			return true
		}
	}
	return false
}

// settle takes the answer for one batch of a request.
func (part *partition) settle(o *outgoing, result ports.AppendResult) {
	part.mu.Lock()
	defer part.mu.Unlock()
	o.settled, o.result = true, result
	if !o.ok() {
		o.note(result.Err)
		if part.hold == free {
			part.hold = draining
		}
		part.p.telemetry.Record(ports.Event{Kind: ports.BatchRetried, Count: int(o.count), Err: result.Err})
	}
	for len(part.inflight) > 0 && part.inflight[0].ok() {
		head := part.inflight[0]
		part.inflight = without(part.inflight, 1)
		part.failures = 0
		part.complete(head, head.result.Base, head.result.Err)
	}
	switch {
	case part.hold != free && (part.drained() || mutant.On(mutantRetryEarly)):
		part.requeue()
		part.resolve()
	case part.sendable():
		part.list(part.oldest())
	}
}

// drained reports whether every batch in flight has its answer.
func (part *partition) drained() bool {
	for _, o := range part.inflight {
		if !o.settled {
			return false
		}
	}
	return true
}

// requeue puts what came back unstored before what waits, in order.
func (part *partition) requeue() {
	if len(part.inflight) == 0 {
		return
	}
	head := part.inflight[0]
	head.lost = head.sequenced && errors.Is(head.lastErr, domain.ErrOutOfOrder)
	part.failures++
	if mutant.On(mutantOrderIgnored) {
		part.queue = append(part.queue, part.inflight...)
	} else {
		part.queue = append(part.inflight, part.queue...)
	}
	part.inflight = nil
}

// idle reports whether nothing is under way.
func (part *partition) idle() bool {
	part.mu.Lock()
	defer part.mu.Unlock()
	return part.open == nil && len(part.queue)+len(part.inflight)+len(part.unspent) == 0 && !part.calling
}

// complete makes o's fate known, once: the first word counts. The batch has left
// the lists, or the reaper tells it early.
func (part *partition) complete(o *outgoing, base domain.Offset, err error) {
	if o.over {
		return
	}
	o.base, o.err = base, err
	part.p.telemetry.Record(ports.Event{
		Kind: ports.BatchSettled, Bytes: int64(len(o.encoded)), Count: int(o.count), Duration: time.Since(o.first), Err: err,
	})
	o.release()
	close(o.done)
	o.over = true
	if len(o.callbacks) == 0 {
		part.p.finished(o)
	}
	part.callback()
}

// callback hands on what is over and has nothing before it that is not: so
// callbacks run in order, though fates may be told in another.
func (part *partition) callback() {
	n := 0
	for ; n < len(part.order) && part.order[n].over; n++ {
		if o := part.order[n]; len(o.callbacks) > 0 {
			part.completions = append(part.completions, o)
		}
	}
	part.order = without(part.order, n)
	if len(part.completions) > 0 && !part.calling {
		part.calling = true
		part.p.callers.add(part)
	}
}

// release gives back the memory of a batch whose fate is known; what its
// callbacks hold follows when they have run.
func (o *outgoing) release() {
	p := o.part.p
	if o.encoded != nil {
		p.buffers.put(o.encoded)
		o.encoded = nil
	}
	o.builder.Release(p.buffers.put)
	held := recordOverhead * int64(len(o.callbacks))
	p.retained.Add(held)
	if o.attempts > 0 && mutant.On(mutantLeaksBudget) {
		held++
	}
	p.budget.release(o.charge - held)
	o.charge = held
}

// call runs callbacks, batch by batch in order, until none is left. One
// goroutine at a time does.
func (part *partition) call() {
	var ready []*outgoing
	for {
		part.mu.Lock()
		ready, part.completions = part.completions, without(ready, len(ready))
		part.calling = len(ready) > 0
		part.mu.Unlock()
		if len(ready) == 0 {
			return
		}
		for _, o := range ready {
			for i := range o.callbacks {
				c := &o.callbacks[i]
				c.call(o.outcome(c.index, c.delta))
			}
			part.p.retained.Add(-o.charge)
			part.p.budget.release(o.charge)
			part.p.slots.put(o.callbacks)
			o.callbacks = nil
			part.p.finished(o)
		}
	}
}

// without returns list without its first n batches. If that are all it keeps its
// room for the next, unless that is much: most partitions have one batch at a time.
func without(list []*outgoing, n int) []*outgoing {
	clear(list[:n])
	switch {
	case n < len(list):
		return list[n:]
	case cap(list) > 16:
		return nil
	}
	return list[:0]
}
