// Package fault wraps ports so that tests decide how each call goes: delayed,
// refused before it has an effect, carried out with its answer lost, or carried
// out twice. It is for tests only.
//
// An Interceptor sees every call and carries it out as often as it likes.
// Decide and Random make interceptors from a rule and from a seed; the simulator
// (test/sim) has its own, which lets a scheduler release one call at a time.
package fault

import (
	"context"
	"errors"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// ErrInjected is the cause of every error that this package makes.
var ErrInjected = errors.New("injected fault")

// The ports that can be wrapped, as Call.Port names them.
const (
	Metadata  = "metadata"
	Segments  = "segments"
	Transport = "transport"
	Fetcher   = "fetcher"
)

// Call describes a call on a port.
type Call struct {
	Port   string
	Method string
	// Subject says what the call is about, such as an object key. It depends
	// on the arguments only.
	Subject string
	// Effect says that the call changes something. An answer that is lost
	// then leaves its caller in doubt.
	Effect bool
}

func (c Call) String() string {
	if c.Subject == "" {
		return c.Port + "." + c.Method
	}
	return c.Port + "." + c.Method + "(" + c.Subject + ")"
}

// Error makes the error with which the port reports that the call went wrong.
func (c Call) Error(kind ports.Kind) error {
	class := domain.ErrAgent
	switch c.Port {
	case Metadata, Agents:
		class = domain.ErrMetadata
	case Segments:
		class = domain.ErrStorage
	}
	return &ports.Error{Class: class, Op: c.String(), Kind: kind, Err: ErrInjected}
}

// Invocation is a call in progress.
type Invocation struct {
	Call
	run    func(ctx context.Context) error
	detach func()
}

// Run carries the call out. Its last answer is given to the caller if the
// interceptor returns nil.
func (i *Invocation) Run(ctx context.Context) error { return i.run(ctx) }

// Detach copies the arguments, so that Run may be called after the interceptor
// has returned: a call that arrives late. The interceptor must return an error then.
func (i *Invocation) Detach() {
	if i.detach != nil {
		i.detach()
	}
}

// Interceptor carries i out, or does not. The error it returns is what the
// caller gets; nil gives the answer of the last Run, of which there must be one.
type Interceptor func(ctx context.Context, i *Invocation) error

// intercept passes one call through f. Detach may be nil if the call does not
// keep its arguments.
func intercept[T any](ctx context.Context, f Interceptor, c Call, detach func(), run func(context.Context) (T, error)) (T, error) {
	var answer, none T
	i := &Invocation{Call: c, detach: detach}
	i.run = func(ctx context.Context) error {
		var err error
		answer, err = run(ctx)
		return err
	}
	if err := f(ctx, i); err != nil {
		return none, err
	}
	return answer, nil
}

// nothing is the answer of calls that have none.
type nothing struct{}
