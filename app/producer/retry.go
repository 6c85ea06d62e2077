package producer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// abandonWait bounds how long a given-up batch waits to learn its fate. Half as
// much more is the most that it may take after the delivery deadline.
const abandonWait = time.Second / 2

// unspent is a given-up batch whose sequences the metadata store does not yet
// know to be spent: nothing may follow it.
type unspent struct {
	id      ports.AbandonedBatch
	session *session
	o       *outgoing // nil once its fate was told
	until   time.Time // when that is told as far as it is known
}

// hold says why a partition sends nothing.
type hold uint8

const (
	free     hold = iota
	draining      // a batch failed: those in flight come back
	resting       // until the back-off ends
	settling      // until the metadata store knows what was given up
	renewing      // until there is another session
)

// resolve decides how a blocked partition goes on. None of its batches is in
// flight; the head of the queue is the first that is not stored. The caller holds mu.
func (part *partition) resolve() {
	part.hold = draining
	part.remember()
	for len(part.queue) > 0 {
		head := part.queue[0]
		err := head.lastErr
		switch cause := part.p.ended(); {
		case cause != nil:
			part.failAll(cause)
			return
		case errors.Is(err, domain.ErrTopicNotFound):
			part.end()
			return
		case errors.Is(err, domain.ErrFenced) && part.p.fencedByOther(head.session) && !mutant.On(mutantFenceIgnored):
			part.p.fail(&domain.FencedError{Producer: part.p.cfg.Name, Epoch: head.session.Epoch})
			continue
		case part.p.cfg.Idempotence && head.sessionLost():
			old := cmp.Or(head.session, part.session)
			part.forfeit(time.Now())
			part.hold = renewing // though nothing may be left: the next record needs a session that lives
			part.p.spawn(func() { part.renew(old) })
			return
		case err != nil && domain.FateOf(err).Fatal:
			part.p.fail(err)
			continue
		case head.expired(time.Now()), err != nil && ports.KindOf(err) == ports.Definite:
			part.giveUpHead()
			if len(part.unspent) > 0 {
				part.hold = settling
				part.p.spawn(part.settleUnspent)
				return
			}
		default:
			part.postpone(head)
			return
		}
	}
	part.unblock()
}

// remember notes which batches came back stored behind one that failed: if they
// are given up later, after attempts that ended otherwise, their fate is not "not stored".
func (part *partition) remember() {
	for _, o := range part.queue {
		if !o.sequenced {
			return
		}
		o.ambiguous = o.ambiguous || o.ok()
	}
}

// unblock lets the partition send again.
func (part *partition) unblock() {
	if cause := part.p.ended(); cause != nil {
		part.failAll(cause)
		return
	}
	part.hold = free
	if part.sendable() {
		part.list(part.oldest())
	}
}

// postpone sends again after the back-off: at once if the head has not failed.
func (part *partition) postpone(head *outgoing) {
	if head.lastErr == nil || part.failures == 0 {
		part.unblock()
		return
	}
	part.hold = resting
	now := time.Now()
	delay := min(part.p.backoff(part.failures), head.deadline().Sub(now))
	part.p.dispatcher.delay(part, now.Add(delay))
}

// resume ends a back-off.
func (part *partition) resume() {
	part.mu.Lock()
	defer part.mu.Unlock()
	switch {
	case part.hold != resting:
	case len(part.queue) > 0 && (part.queue[0].expired(time.Now()) || part.queue[0].lost):
		part.resolve()
	default:
		part.unblock()
	}
}

// giveUpHead ends the first batch. If it has a place in the sequence it joins
// unspent; if it may be stored it stays open until that is known.
func (part *partition) giveUpHead() {
	head := part.next()
	part.failures = 0
	if !head.sequenced || mutant.On(mutantNoAbandon) {
		part.complete(head, -1, head.giveUp(head.stored(), head.lastErr))
		return
	}
	u := unspent{session: head.session, id: ports.AbandonedBatch{
		StreamKey:     commit.StreamKey{Producer: head.session.ID, PartitionKey: part.key()},
		Epoch:         head.session.Epoch,
		FirstSequence: head.sequence,
		Records:       head.count,
	}}
	if head.ambiguous {
		u.o, u.until = head, earlier(time.Now().Add(abandonWait), head.deadline().Add(abandonWait*3/2))
		part.p.reaper.by(u.until)
	} else {
		part.complete(head, -1, head.giveUp(domain.StoredNo, head.lastErr))
	}
	part.unspent = append(part.unspent, u)
}

// settleUnspent tells the metadata store about given-up batches until it knows
// of them all, then lets the partition go on. One goroutine runs it.
func (part *partition) settleUnspent() {
	for failures := 0; ; {
		u, ok := part.firstUnspent()
		if !ok {
			return
		}
		outcome, err := part.p.abandon(u)
		part.abandoned(outcome, err)
		if err == nil {
			failures = 0
			continue
		}
		failures++
		if !part.p.pause(part.p.backoff(failures)) {
			failures = 0 // the producer ends; firstUnspent sees it
		}
	}
}

// firstUnspent returns the batch to settle next; if there is none, or the
// producer ends, the partition goes on.
func (part *partition) firstUnspent() (unspent, bool) {
	part.mu.Lock()
	defer part.mu.Unlock()
	if cause := part.p.ended(); cause != nil {
		for _, u := range part.unspent {
			if u.o != nil {
				part.complete(u.o, -1, u.o.giveUp(u.o.stored(), cause))
			}
		}
		part.unspent = nil
	}
	now := time.Now()
	part.tellOverdue(now)
	if len(part.unspent) == 0 {
		part.resolve()
		return unspent{}, false
	}
	part.expire(now)
	return part.unspent[0], true
}

// abandoned takes the answer about the first unspent batch.
func (part *partition) abandoned(outcome commit.Outcome, err error) {
	part.mu.Lock()
	defer part.mu.Unlock()
	u := &part.unspent[0]
	part.p.telemetry.Record(ports.Event{Kind: ports.BatchAbandoned, Count: int(u.id.Records), Err: err})
	if err != nil {
		return
	}
	if u.o != nil {
		part.tell(u.o, outcome)
		u.o = nil
	}
	switch {
	case outcome.Status == commit.Fenced && part.p.fencedByOther(u.session):
		part.p.fail(&domain.FencedError{Producer: part.p.cfg.Name, Epoch: u.id.Epoch})
	case outcome.Status == commit.Fenced, outcome.Status == commit.UnknownProducer:
		if len(part.queue) > 0 {
			part.queue[0].lost = true
		}
	}
	part.unspent = part.unspent[1:]
}

// tell ends the given-up batch o with what the metadata store answered about it.
func (part *partition) tell(o *outgoing, outcome commit.Outcome) {
	switch outcome.Status {
	case commit.Duplicate:
		part.complete(o, outcome.Base, nil)
	case commit.Accepted, commit.OutOfOrder, commit.NoPartition:
		part.complete(o, -1, o.giveUp(domain.StoredNo, o.lastErr))
	default:
		part.complete(o, -1, o.giveUp(o.stored(), o.lastErr))
	}
}

// tellOverdue ends, in order, the given-up batches whose time to learn their
// fate is over.
func (part *partition) tellOverdue(now time.Time) {
	for i := range part.unspent {
		u := &part.unspent[i]
		if u.o == nil {
			continue
		}
		if now.Before(u.until) {
			return
		}
		part.complete(u.o, -1, u.o.giveUp(u.o.stored(), u.o.lastErr))
		u.o = nil
	}
}

// expire gives up what is too late at now, while the metadata store is asked
// about what was given up before.
func (part *partition) expire(now time.Time) {
	for o := part.peek(); o != nil && o.late(now); o = part.peek() {
		part.giveUpHead()
	}
}

// forfeit gives up what is too late at now of a session that is lost: what is
// not stored by now never will be, and its sequences matter to nobody.
func (part *partition) forfeit(now time.Time) {
	for o := part.peek(); o != nil && o.late(now); o = part.peek() {
		part.next()
		part.complete(o, -1, o.giveUp(o.stored(), sessionLost(o.lastErr)))
		if len(part.queue) > 0 {
			part.queue[0].lost = true
		}
	}
}

func (part *partition) peek() *outgoing {
	if len(part.queue) > 0 {
		return part.queue[0]
	}
	return part.open
}

// failAll ends every batch that is not in flight.
func (part *partition) failAll(cause error) {
	for o := part.next(); o != nil; o = part.next() {
		part.complete(o, -1, o.giveUp(o.stored(), cause))
	}
}

// end fails what waits for a topic that is deleted. Even a batch that was stored
// is not in the log any more.
func (part *partition) end() {
	part.gone = true
	for _, u := range part.unspent {
		if u.o != nil {
			part.complete(u.o, -1, &domain.TopicNotFoundError{Topic: part.topic.name})
		}
	}
	part.unspent = nil
	part.p.topics.drop(part.topic)
	for o := part.next(); o != nil; o = part.next() {
		part.complete(o, -1, &domain.TopicNotFoundError{Topic: part.topic.name})
	}
}

// renew replaces the lost session old and numbers the waiting batches anew.
func (part *partition) renew(old *session) {
	next, err := part.p.renewSession(old)
	part.mu.Lock()
	defer part.mu.Unlock()
	if err == nil {
		part.adopt(next)
		part.resolve()
		return
	}
	if ports.KindOf(err) == ports.Fatal {
		part.p.fail(err)
	}
	part.forfeit(time.Now())
	if len(part.queue) == 0 || part.p.ended() != nil {
		part.resolve()
		return
	}
	head := part.queue[0]
	head.lost, head.lastErr = true, fmt.Errorf("open producer session: %w", err)
	part.failures++
	part.postpone(head)
}

// disown ends the given-up batches of a session that is lost: it can no longer
// be asked about them.
func (part *partition) disown() {
	for _, u := range part.unspent {
		if u.o != nil {
			part.complete(u.o, -1, u.o.giveUp(u.o.stored(), u.o.lastErr))
		}
	}
	part.unspent = nil
}

// adopt moves the queue to session next. A batch that an attempt under the old
// session may have stored cannot be told from one that it has not: its outcome is unknown.
func (part *partition) adopt(next *session) {
	part.disown()
	part.session, part.sequence = next, 0
	kept := part.queue[:0]
	for _, o := range part.queue {
		if o.ambiguous && o.sequenced && !mutant.On(mutantAdoptUnclear) {
			part.complete(o, -1, o.giveUp(domain.StoredUnknown, sessionLost(o.lastErr)))
			continue
		}
		o.lastErr, o.lost = nil, false
		o.attempts = max(0, o.attempts-1) // to be told that the session is gone is no attempt
		if o.sequenced {
			o.session, o.sequence = next, part.sequence
			part.sequence = part.sequence.Add(o.count)
		}
		if o.encoded != nil && o.sequenced {
			batch.SetProducer(o.encoded, o.producer())
		}
		kept = append(kept, o)
	}
	clear(part.queue[len(kept):])
	part.queue = kept
}

// abandon asks the metadata store to settle a given-up batch.
func (p *Producer) abandon(u unspent) (commit.Outcome, error) {
	deadline := time.Now().Add(p.cfg.RequestTimeout)
	if u.o != nil {
		deadline = earlier(deadline, u.until)
	}
	ctx, cancel := context.WithDeadline(p.life, deadline)
	defer cancel()
	return p.producers.AbandonBatch(ctx, u.id)
}

// backoff returns a random part of RetryBackoff doubled failures-1 times, at most
// 5 s.
func (p *Producer) backoff(failures int) time.Duration {
	limit := p.cfg.RetryBackoff
	for i := 1; i < failures && limit < maxBackoff; i++ {
		limit *= 2
	}
	if p.cfg.RetryBackoff < maxBackoff {
		limit = min(limit, maxBackoff)
	}
	return time.Duration(p.random() * float64(limit))
}

// pause waits, and returns false if the producer ends meanwhile.
func (p *Producer) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.life.Done():
	}
	return p.life.Err() == nil
}
