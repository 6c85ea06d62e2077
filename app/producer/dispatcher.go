package producer

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain/sequence"
)

const (
	// flushBytes is how much one request takes, in bytes before compression; a
	// smaller buffer has a smaller share.
	flushBytes = 12 << 20
	// So much waiting data makes a request by itself: flushBytes or, if that is more,
	// gatherBytes of each waiting partition, up to fifteen sixteenths of what is not in flight.
	// The oldest go first and those that stay grow: a batch costs rows in the metadata store
	// however few records it has.
	gatherBytes = 6 << 10
	// maxYoungRequests bounds the requests that are not slow yet.
	maxYoungRequests = 4
	// A request of at least heavyBytes and heavyRecords says that load is high; then the
	// next one waits for paceLimit (see patience) and for the one under way, unless enough for
	// a request waits: so requests stay large.
	heavyBytes   = 256 << 10
	heavyRecords = 100
	paceLimit    = 25 * time.Millisecond
	// With more than crowd partitions waiting, requests may take twice their usual time before
	// the next one does not wait for them any more: small batches would make the store slower,
	// and that the batches smaller still. While more than a request waits, it may also wait for
	// crowdTimeouts times BatchTimeout. Either is bounded by crowdLimit, and by a crowdShare-th of
	// DeliveryTimeout, at which batches are closed anyway (see stale).
	crowd         = 512
	crowdTimeouts = 10
	crowdLimit    = time.Second
	crowdShare    = 16
)

// dispatcher decides when waiting records are sent. One goroutine runs it; it
// owns no timer while nothing waits.
//
// With nothing in flight it sends at once, unless load is high. Else records gather: until a
// partition has BatchSize of them and only one request is under way, until enough waits for a
// request by itself, until somebody finds the buffer full, or until the oldest has waited for
// BatchTimeout. A request takes the waiting batches of all partitions together, up to flushBytes, so
// that the number of requests does not depend on the number of partitions. A request older than
// BatchTimeout is slow and holds nobody back. With very many partitions both times may be longer.
type dispatcher struct {
	p    *Producer
	wake chan struct{} // capacity 1: a wake-up is never lost and never blocks

	triggered atomic.Bool  // a partition reached BatchSize
	refused   atomic.Int64 // what a TrySend found no room for
	waterline atomic.Int64 // wake the dispatcher when so much of the budget is used
	inflight  atomic.Int64 // of the budget: batches that are sent and not settled

	mu       sync.Mutex // after partition.mu
	ready    []listing
	since    time.Time // acceptance of the oldest record in ready
	delayed  []delayed
	requests []*request    // under way, oldest first
	usual    time.Duration // that a request takes: a moving average
	flushing int           // calls of Flush that wait

	// Of the dispatcher's goroutine.
	lastCut   time.Time
	lastHeavy bool
}

// listing is a partition of which a request may take a batch, and the acceptance
// of the oldest record that waits there.
type listing struct {
	part  *partition
	since time.Time
}

type delayed struct {
	part *partition
	at   time.Time
}

// list adds a partition whose oldest waiting record was accepted at since.
func (d *dispatcher) list(part *partition, since time.Time) {
	d.mu.Lock()
	news := len(d.ready) == 0 || since.Before(d.since)
	if news {
		d.since = since
	}
	d.ready = append(d.ready, listing{part, since})
	d.mu.Unlock()
	if news {
		d.signal()
	}
}

// delay resumes the partition at the given time.
func (d *dispatcher) delay(part *partition, at time.Time) {
	d.mu.Lock()
	d.delayed = append(d.delayed, delayed{part, at})
	d.mu.Unlock()
	d.signal()
}

// trigger says that a partition has BatchSize records.
func (d *dispatcher) trigger() {
	if !d.triggered.Swap(true) {
		d.signal()
	}
}

// refuse says that a TrySend found no room for n bytes.
func (d *dispatcher) refuse(n int64) {
	if d.refused.Swap(n) == 0 {
		d.signal()
	}
}

// overfull reports whether a record waits for room in the buffer, or found none
// that there is not now either.
func (d *dispatcher) overfull() bool {
	b, n := &d.p.budget, d.refused.Load()
	if n > 0 && b.used.Load()+n <= b.limit {
		d.refused.CompareAndSwap(n, 0)
		n = 0
	}
	return n > 0 || b.waiting.Load() > 0
}

// checkWaterline wakes the dispatcher when enough waits for a request.
func (d *dispatcher) checkWaterline() {
	line := d.waterline.Load()
	if d.p.budget.used.Load() >= line && d.waterline.CompareAndSwap(line, math.MaxInt64) {
		d.signal()
	}
}

// flush makes every waiting record leave at once until the returned function is
// called.
func (d *dispatcher) flush() (end func()) {
	d.mu.Lock()
	d.flushing++
	d.mu.Unlock()
	d.signal()
	return func() {
		d.mu.Lock()
		d.flushing--
		d.mu.Unlock()
	}
}

func (d *dispatcher) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run sends until the producer's life ends.
func (d *dispatcher) run() {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for d.p.life.Err() == nil {
		now := time.Now()
		for _, part := range d.due(now) {
			part.resume()
		}
		next, ok := d.next(now)
		if ok && !next.After(now) {
			d.cut(now)
			continue
		}
		if ok {
			timer.Reset(next.Sub(now))
		}
		select {
		case <-d.wake:
		case <-timer.C:
		case <-d.p.life.Done():
		}
		timer.Stop()
	}
}

// due removes and returns the partitions whose delay is over.
func (d *dispatcher) due(now time.Time) []*partition {
	d.mu.Lock()
	defer d.mu.Unlock()
	var due []*partition
	d.delayed = slices.DeleteFunc(d.delayed, func(x delayed) bool {
		if x.at.After(now) {
			return false
		}
		due = append(due, x.part)
		return true
	})
	return due
}

// next returns when to look again: now, if it is time to send. False means not
// before the next wake-up.
func (d *dispatcher) next(now time.Time) (time.Time, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var alarm time.Time
	ring := func(at time.Time) {
		if alarm.IsZero() || at.Before(alarm) {
			alarm = at
		}
	}
	for _, x := range d.delayed {
		ring(x.at)
	}
	if len(d.ready) > 0 && d.inflight.Load() < d.mostInflight() {
		ring(d.cutAt(now))
	}
	return alarm, !alarm.IsZero()
}

// cutAt returns when what is ready should be sent, as things stand.
func (d *dispatcher) cutAt(now time.Time) time.Time {
	held := d.inflight.Load() + d.p.retained.Load()
	pace, timeout := d.patience(d.p.budget.used.Load() - held)
	young, eldest := 0, now
	for _, r := range slices.Backward(d.requests) {
		if now.Sub(r.started) >= timeout {
			break
		}
		young, eldest = young+1, r.started
	}
	late := d.since.Add(timeout)
	room := int64(len(d.ready)*sequence.Window) * int64(d.p.cfg.BatchBytes)
	ripe := d.p.ripe(len(d.ready), held)
	d.waterline.Store(held + ripe) // before the look at what is used: no crossing is missed
	full := min(d.p.budget.used.Load()-held, room) >= ripe || d.overfull()
	if d.flushing > 0 || full && young < maxYoungRequests || !late.After(now) {
		return now
	}
	if paced := d.lastCut.Add(pace); d.lastHeavy && paced.After(now) {
		return earlier(paced, late)
	}
	if young == 0 || young == 1 && d.triggered.Load() && !d.lastHeavy {
		return now
	}
	return earlier(eldest.Add(timeout), late)
}

// patience returns how long after a heavy request the next one waits, and how
// long a record waits for company, when so many bytes do.
func (d *dispatcher) patience(waiting int64) (pace, timeout time.Duration) {
	timeout = d.p.cfg.BatchTimeout
	if len(d.ready) <= crowd {
		return min(timeout, paceLimit), timeout
	}
	limit := min(crowdLimit, d.p.cfg.DeliveryTimeout/crowdShare)
	slow := max(timeout, min(2*d.usual, limit))
	if waiting < d.p.share() {
		return timeout, slow
	}
	slow = max(slow, min(crowdTimeouts*timeout, limit))
	return slow, slow
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// cut makes a request of what waits and sends it.
func (d *dispatcher) cut(now time.Time) {
	d.triggered.Store(false) // a later trigger is for the next request
	d.refused.Store(0)
	d.mu.Lock()
	ready := d.ready
	d.ready = nil
	d.mu.Unlock()
	// Who comes back, from a request before or from a back-off, may be older than those ahead.
	slices.SortStableFunc(ready, func(a, b listing) int { return a.since.Compare(b.since) })

	r := &request{p: d.p, started: now}
	for len(ready) > 0 && r.charge < d.p.share() {
		ready = d.round(r, ready)
	}
	if len(ready) > 0 {
		d.putBack(ready)
	}
	if len(r.batches) == 0 {
		return
	}
	d.lastCut, d.lastHeavy = now, r.bytes >= heavyBytes && r.records >= heavyRecords
	for _, r := range r.split() {
		r.encode()
		d.begin(r)
		r.send()
	}
}

// round takes one batch of each partition, in their order, until the request
// holds its share of the budget, and returns the partitions that have more.
func (d *dispatcher) round(r *request, ready []listing) []listing {
	rest := ready[:0]
	for i, l := range ready {
		if r.charge >= d.p.share() {
			return append(rest, ready[i:]...)
		}
		if since, more := l.part.take(r); more {
			rest = append(rest, listing{l.part, since})
		}
	}
	return rest
}

// putBack lists partitions again that a full request left behind.
func (d *dispatcher) putBack(rest []listing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready = append(rest, d.ready...)
	d.since = d.ready[0].since
	for _, l := range d.ready {
		d.since = earlier(d.since, l.since)
	}
}

func (d *dispatcher) begin(r *request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests = append(d.requests, r)
	d.inflight.Add(r.charge)
}

// mostInflight is how much of the budget in flight keeps the rest waiting.
func (d *dispatcher) mostInflight() int64 { return d.p.cfg.BufferBytes / 4 * 3 }

// settled says that a batch that holds charge of the budget is not in flight
// any more. Others of its request may be for long.
func (d *dispatcher) settled(charge int64) {
	if left := d.inflight.Add(-charge); left < d.mostInflight() && left+charge >= d.mostInflight() {
		d.signal()
	}
}

// done takes a request off the list: all its batches are settled.
func (d *dispatcher) done(r *request) {
	d.mu.Lock()
	d.requests = slices.DeleteFunc(d.requests, func(x *request) bool { return x == r })
	if took := time.Since(r.started); d.usual == 0 {
		d.usual = took
	} else {
		d.usual += (took - d.usual) / 8
	}
	d.mu.Unlock()
	d.signal()
}
