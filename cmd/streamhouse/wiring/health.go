package wiring

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/streamhouse/streamhouse/app/agent"
	"github.com/streamhouse/streamhouse/ports"
)

// noObject is the key of an object that is never there: a bucket that says so
// answers.
const noObject = "health/none"

// newHealth lets the service know whether its stores answer, and its server
// refuse work while they do not. What the stores' users tell goes to it too.
func (b *builder) newHealth(svc *Service, s ports.SegmentStore) {
	metadata := func(ctx context.Context) error { return svc.entry.Load().Beat(ctx) }
	segments := func(ctx context.Context) error {
		_, err := s.Stat(ctx, noObject)
		return err
	}
	svc.health = agent.NewHealth(metadata, segments, func(reason error) { svc.server.SetReady(reason) })
	b.cfg.Telemetry = both{b.cfg.Telemetry, svc.health}
}

// both tells two.
type both [2]ports.Telemetry

// Record implements ports.Telemetry.
func (b both) Record(e ports.Event) {
	b[0].Record(e)
	b[1].Record(e)
}

// taken says in plain words that somebody else listens already.
func taken(err error, flag string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("another process listens there, perhaps another agent: give this one a free address with %s (%w)", flag, syscall.EADDRINUSE)
	}
	return err
}
