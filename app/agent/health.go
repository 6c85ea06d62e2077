package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

const (
	// lookInterval is the pause between two looks, whatever fails.
	lookInterval = time.Second
	// lookTimeout is how long a store may take to answer one.
	lookTimeout = 3 * time.Second
	// patience is how long a store may be away without consequences: a restart of
	// the server, a leader's election.
	patience = 3 * time.Second
	// heardFor is how long who asks whether the agent is ready is told what was
	// heard last, before the store is looked at.
	heardFor = ports.AgentTTL
)

// Health knows whether an agent can do its work: whether both stores answer.
//
// A failed call is no reason in itself, it is a reason to look. A store that answers no look
// for three seconds makes the agent not ready, and the first one that it answers makes it ready again.
// While nothing fails nothing is asked of the stores, except that Reason looks at one that was not heard
// of for long.
//
// Goroutines: Run, and one for each look, which end before Run does.
type Health struct {
	metadata, segments *stored
	changed            func(reason error)

	kick chan struct{} // holds the one wish to look at once
	last error         // what changed was told; Run's own
}

// stored is one of the two stores.
type stored struct {
	name string
	look func(context.Context) error

	mu      sync.Mutex // guards all below
	suspect bool       // a call has failed, and no look has gone well since
	since   time.Time  // when the first look began that failed, zero if none did
	heard   time.Time  // when a call or a look went well last
	err     error      // why the last look failed, nil if it did not
	down    bool
}

// NewHealth makes a Health of stores that have just been opened. The two looks ask a store for
// something small; ErrObjectNotFound is an answer. Changed is called by Run whenever the reason for which the agent can do
// no work comes, goes or becomes another; nil says that it can.
func NewHealth(metadata, segments func(context.Context) error, changed func(reason error)) *Health {
	now := time.Now()
	return &Health{
		metadata: &stored{name: "metadata store", look: metadata, heard: now},
		segments: &stored{name: "segment store", look: segments, heard: now},
		changed:  changed, kick: make(chan struct{}, 1),
	}
}

// Record implements ports.Telemetry: errors of the stores are noted.
func (h *Health) Record(e ports.Event) { h.note(e.Err) }

// note makes the next look due at once if err is of a store; also if the caller
// had enough of waiting, which may be because the store is silent.
func (h *Health) note(err error) {
	switch {
	case err == nil, errors.Is(err, domain.ErrClosed):
	case errors.Is(err, domain.ErrStorage):
		h.suspect(h.segments)
	case errors.Is(err, domain.ErrMetadata):
		h.suspect(h.metadata)
	}
}

func (h *Health) suspect(s *stored) {
	s.mu.Lock()
	already := s.suspect
	s.suspect = true
	s.mu.Unlock()
	if !already {
		select {
		case h.kick <- struct{}{}:
		default:
		}
	}
}

// Reason says why the agent can do no work, nil if it can as far as is known. A
// segment store that was not heard of for half a minute is looked at, for the next one who asks.
func (h *Health) Reason() error {
	if h.segments.silent() {
		h.suspect(h.segments)
	}
	return errors.Join(h.metadata.reason(), h.segments.reason())
}

func (s *stored) silent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.heard) >= heardFor
}

func (s *stored) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.down {
		return nil
	}
	return fmt.Errorf("the %s does not answer: %w", s.name, s.err)
}

// Run looks at stores of which there is reason to, until ctx ends.
func (h *Health) Run(ctx context.Context) {
	for {
		if !h.metadata.suspected() && !h.segments.suspected() {
			select {
			case <-h.kick:
			case <-ctx.Done():
				return
			}
		}
		var looking sync.WaitGroup
		for _, s := range []*stored{h.metadata, h.segments} {
			if s.suspected() {
				looking.Go(func() { s.try(ctx) })
			}
		}
		looking.Wait()
		h.tell(ctx)
		timer := time.NewTimer(lookInterval) // however often calls fail
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (s *stored) suspected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.suspect
}

// try looks once.
func (s *stored) try(ctx context.Context) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err := s.look(ctx)
	if errors.Is(err, ports.ErrObjectNotFound) {
		err = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err == nil {
		s.suspect, s.down, s.since, s.heard = false, s.down && mutant.On(mutantNeverBack), time.Time{}, time.Now()
		return
	}
	if s.since.IsZero() {
		s.since = began
	}
	s.down = (time.Since(s.since) >= patience || mutant.On(mutantAtOnce)) && !mutant.On(mutantAlwaysReady)
}

// tell tells a change, unless the looks failed because Run is to end.
func (h *Health) tell(ctx context.Context) {
	reason := errors.Join(h.metadata.reason(), h.segments.reason())
	if ctx.Err() != nil || reason == nil && h.last == nil || reason != nil && h.last != nil && reason.Error() == h.last.Error() {
		return
	}
	h.last = reason
	h.changed(reason)
}

func (s *stored) hear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = time.Now()
}
