package producer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// Callback is told the fate of one record. The result is valid if the error is
// nil.
type Callback func(domain.SendResult, error)

// gathering is what each record changes of the batch that it joins. That of an open
// batch lies in its partition, which each record needs anyway: with very many partitions
// a record waits for memory, and neighbouring cache lines come together.
type gathering struct {
	builder   batch.Builder
	callbacks []pendingCallback
	charge    int64         // what its records hold of the budget
	since     time.Duration // from the producer's beginning to the acceptance of the first record
	firstMS   int64         // that acceptance in Unix milliseconds
}

// outgoing is a batch on its way, from its first record to the end of its last
// callback. The mutex of its partition guards it until done is closed.
type outgoing struct {
	first time.Time // when the first record was accepted

	// Set when it is closed.
	gathering
	count int32
	// baseTimestamp is the first record's, in Unix milliseconds; the others'
	// are deltas to it.
	baseTimestamp int64

	part  *partition
	group uint64 // see generations

	// Set when it is first sent; the bytes stay the same through all attempts.
	encoded   []byte
	sequenced bool
	session   *session
	sequence  domain.Sequence

	attempts  int
	ambiguous bool // an attempt may have stored it
	// traces are those of its sampled records, the first ones.
	traces  []ports.TraceContext
	lastErr error
	lost    bool // the session is gone: say, refused as out of order with nothing before it

	// The state of the present attempt.
	settled bool
	result  ports.AppendResult

	// The fate, readable once done is closed.
	done chan struct{}
	over bool // done is closed
	base domain.Offset
	err  error
}

type pendingCallback struct {
	call  Callback
	index int32
	delta int32
}

// fits reports whether a record of at most bound bytes may join at ts.
func (g *gathering) fits(bound, limit int, ts int64) bool {
	delta := ts - g.builder.BaseTimestamp()
	return g.builder.Len()+bound <= limit && delta >= math.MinInt32 && delta <= math.MaxInt32
}

// delta returns how much later than the first record one at ts is.
func (g *gathering) delta(ts int64) int32 {
	if g.builder.Count() == 0 {
		return 0
	}
	return int32(ts - g.builder.BaseTimestamp())
}

// timestamp returns when r happened, by the record or by the clock; the
// producer began at began.
func (g *gathering) timestamp(r *domain.Record, began time.Time) int64 {
	if !r.Timestamp.IsZero() {
		return r.Timestamp.UnixMilli()
	}
	// A reading of the monotonic clock costs half of one of the wall clock.
	return g.firstMS + (time.Since(began) - g.since).Milliseconds()
}

// note records how the present attempt failed.
func (o *outgoing) note(err error) {
	o.attempts++
	o.lastErr = err
	switch ports.KindOf(err) {
	case ports.Ambiguous, ports.Fatal:
		o.ambiguous = true
	}
}

// sessionLost reports whether o needs another session.
func (o *outgoing) sessionLost() bool {
	return o.lost || errors.Is(o.lastErr, domain.ErrFenced) || errors.Is(o.lastErr, domain.ErrSessionExpired)
}

// ok reports whether the present attempt ended with the batch stored.
func (o *outgoing) ok() bool {
	return !o.over && o.settled && (o.result.Err == nil || domain.FateOf(o.result.Err).Stored == domain.StoredYes)
}

// stored says what is known about a batch that is given up without an answer.
func (o *outgoing) stored() domain.Stored {
	if o.ambiguous && !mutant.On(mutantUnknownIsNo) {
		return domain.StoredUnknown
	}
	return domain.StoredNo
}

// late reports whether the delivery deadline of o has passed.
func (o *outgoing) late(now time.Time) bool { return !now.Before(o.deadline()) }

func (o *outgoing) deadline() time.Time { return o.first.Add(o.part.p.cfg.DeliveryTimeout) }

// expired reports whether the attempts of o are used up.
func (o *outgoing) expired(now time.Time) bool {
	cfg := &o.part.p.cfg
	return o.late(now) || cfg.MaxRetries >= 0 && o.attempts > cfg.MaxRetries
}

// giveUp is the error for a batch that will not be tried again.
func (o *outgoing) giveUp(outcome domain.Stored, last error) error {
	return &domain.DeliveryError{
		Topic: o.part.topic.name, Partition: o.part.id, Attempts: o.attempts,
		Elapsed: time.Since(o.first), TimedOut: o.expired(time.Now()), Outcome: outcome, Last: last,
	}
}

// outcome returns the fate of record index, once done is closed.
func (o *outgoing) outcome(index, delta int32) (domain.SendResult, error) {
	r := domain.SendResult{Topic: o.part.topic.name, Partition: o.part.id, Offset: -1}
	if o.err != nil {
		return r, o.err
	}
	r.Offset = o.base + domain.Offset(index)
	if mutant.On(mutantResultIsBase) {
		r.Offset = o.base
	}
	r.Timestamp = time.UnixMilli(o.baseTimestamp + int64(delta))
	return r, nil
}

// Pending is a record on its way.
type Pending struct {
	o     *outgoing
	index int32
	delta int32
}

// pendings allocates Pendings, many together: each record that is accepted
// needs one, and few callers keep it.
type pendings struct{ slab atomic.Pointer[pendingSlab] }

type pendingSlab struct {
	used  atomic.Int32
	items [64]Pending
}

// take returns a Pending that nobody else has.
func (p *pendings) take() *Pending {
	for {
		slab := p.slab.Load()
		if slab != nil {
			if i := slab.used.Add(1) - 1; int(i) < len(slab.items) {
				return &slab.items[i]
			}
		}
		p.slab.CompareAndSwap(slab, new(pendingSlab))
	}
}

// refused is the Pending of a record that was not accepted, for err.
func refused(err error) *Pending {
	o := &outgoing{part: &partition{sending: &sending{topic: &topic{}}}, done: make(chan struct{}), err: err}
	close(o.done)
	return &Pending{o: o}
}

// Done is closed once the record is durable or has failed: Wait returns at once
// from then on.
func (p *Pending) Done() <-chan struct{} { return p.o.done }

// Wait returns the record's fate once it is known. If ctx ends first the error
// matches ErrOutcomeUnknown and the context's error, the record is still on its way, and
// Wait may be called again.
func (p *Pending) Wait(ctx context.Context) (domain.SendResult, error) {
	select {
	case <-p.o.done:
		return p.o.outcome(p.index, p.delta)
	default:
	}
	select {
	case <-p.o.done:
	case <-ctx.Done():
		select {
		case <-p.o.done:
		default:
			return domain.SendResult{Offset: -1}, fmt.Errorf("%w: record for topic %q is still on its way: %w", domain.ErrOutcomeUnknown, p.o.part.topic.name, context.Cause(ctx))
		}
	}
	return p.o.outcome(p.index, p.delta)
}
