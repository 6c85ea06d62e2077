package producer

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain/mutant"
)

const (
	// reapAfter is how long the reaper leaves a batch whose deadline has passed
	// to those who deal with it as a rule: the transport, whose context has ended, and the
	// partition's back-off.
	reapAfter = 100 * time.Millisecond
	// reapAgain is how long the reaper waits for a transport that is late.
	reapAgain = 250 * time.Millisecond
)

// reaper keeps the delivery deadline when nobody else can: while the transport
// has no room, while a session is renewed, or while the metadata store does not answer about
// a batch given up before. Deadlines are rare, so it looks at every partition when one passes;
// its one timer runs only while something may have to be ended.
type reaper struct {
	p  *Producer
	at atomic.Int64 // nanoseconds since the producer began; never if it is not set

	mu    sync.Mutex
	timer *time.Timer
}

const never = math.MaxInt64

// by makes sure that the reaper looks at the time at, or before.
func (r *reaper) by(at time.Time) {
	n := int64(at.Sub(r.p.began))
	if r.at.Load() <= n {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.Load() <= n || r.p.life.Err() != nil {
		return
	}
	r.at.Store(n)
	if r.timer == nil {
		r.timer = time.AfterFunc(time.Until(at), r.ring)
		return
	}
	r.timer.Reset(time.Until(at))
}

func (r *reaper) ring() {
	r.at.Store(never)
	r.p.spawn(r.look)
}

// look ends what is too late, and sets the next time to look.
func (r *reaper) look() {
	if r.p.life.Err() != nil || mutant.On(mutantReaperSleeps) {
		return
	}
	now := time.Now()
	var next time.Time
	r.p.topics.eachPartition(func(part *partition) {
		if at := part.reap(now); next.IsZero() || !at.IsZero() && at.Before(next) {
			next = at
		}
	})
	if !next.IsZero() {
		r.by(next)
	}
}

// stop ends the timer; it is not set again once the producer's life has ended.
func (r *reaper) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
}

// reap ends what is too late at now, and returns when to look again: zero if
// nothing is under way. Batches in flight are the transport's, and those behind wait for them.
func (part *partition) reap(now time.Time) time.Time {
	part.mu.Lock()
	defer part.mu.Unlock()
	part.tellOverdue(now)
	part.tellAnswered(now)
	if o := part.peek(); o != nil && len(part.inflight) == 0 && o.late(now) {
		switch part.hold {
		case settling:
			part.expire(now)
		case renewing:
			part.forfeit(now)
		default:
			part.shut()
			part.resolve()
		}
	}
	return part.nextReap(now)
}

// tellAnswered tells the fate of what came back too late to be sent again, but
// not the batches in flight behind it, for which the partition waits.
func (part *partition) tellAnswered(now time.Time) {
	for _, o := range part.inflight {
		if !o.settled || !o.late(now.Add(-abandonWait)) {
			return
		}
		if o.ok() {
			part.complete(o, o.result.Base, o.result.Err)
		} else {
			part.complete(o, -1, o.giveUp(o.stored(), o.lastErr))
		}
	}
}

// nextReap returns when something of the partition will be too late.
func (part *partition) nextReap(now time.Time) time.Time {
	var next time.Time
	for _, u := range part.unspent {
		if u.o != nil {
			next = u.until
			break
		}
	}
	oldest := part.peek()
	if len(part.inflight) > 0 {
		oldest = part.inflight[0]
	}
	if oldest != nil {
		at := oldest.deadline().Add(reapAfter)
		if !at.After(now) {
			at = now.Add(reapAgain)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}
