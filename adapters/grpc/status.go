package grpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/streamhouse/streamhouse/adapters/grpc/agentv1"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// statusCodes gives a class of error its status code; the first that matches
// counts. The code is for people and for what stands between: a Client goes by the detail.
var statusCodes = []struct {
	class error
	code  codes.Code
}{
	{ErrUnauthenticated, codes.Unauthenticated},
	{ErrPermissionDenied, codes.PermissionDenied},
	{errInvalid, codes.InvalidArgument},
	{ErrNoRoom, codes.ResourceExhausted},
	{ErrNotReady, codes.Unavailable},
	{domain.ErrBufferFull, codes.ResourceExhausted},
	{domain.ErrWouldBlock, codes.ResourceExhausted},
	{domain.ErrTopicNotFound, codes.NotFound},
	{ports.ErrAgentNotFound, codes.NotFound},
	{domain.ErrTopicExists, codes.AlreadyExists},
	{domain.ErrInvalidPartition, codes.InvalidArgument},
	{domain.ErrInvalidName, codes.InvalidArgument},
	{domain.ErrConfig, codes.InvalidArgument},
	{domain.ErrRecordTooLarge, codes.InvalidArgument},
	{domain.ErrSerialization, codes.InvalidArgument},
	{domain.ErrCompression, codes.InvalidArgument},
	{domain.ErrOutOfRange, codes.OutOfRange},
	{domain.ErrCorrupt, codes.DataLoss},
	{domain.ErrFenced, codes.FailedPrecondition},
	{domain.ErrSessionExpired, codes.FailedPrecondition},
	{domain.ErrOutOfOrder, codes.Aborted},
	{domain.ErrOffsetUnknown, codes.AlreadyExists},
	{domain.ErrClosed, codes.Unavailable},
	{domain.ErrNoAgentsAvailable, codes.Unavailable},
	{domain.ErrInternal, codes.Internal},
	{domain.ErrTimeout, codes.DeadlineExceeded},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
	{domain.ErrOutcomeUnknown, codes.Unknown},
}

// codeOf returns the status code of err.
func codeOf(err error) codes.Code {
	for _, c := range statusCodes {
		if errors.Is(err, c.class) {
			return c.code
		}
	}
	switch ports.KindOf(err) {
	case ports.Transient:
		return codes.Unavailable
	case ports.Definite:
		return codes.FailedPrecondition
	case ports.Fatal:
		return codes.Internal
	default:
		return codes.Unknown
	}
}

// statusOf makes the status that answers a call that failed with err. An error
// that is a status already stays as it is.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	plain := status.New(codeOf(err), clip(err.Error()))
	s, detailErr := plain.WithDetails(encodeError(err))
	if detailErr != nil {
		return plain.Err()
	}
	return s.Err()
}

// errInvalid is the class of messages that no client of ours sends.
var errInvalid = errors.New("invalid request")

// invalidError says what is wrong with one.
type invalidError struct{ what string }

func (e *invalidError) Error() string        { return e.what }
func (e *invalidError) Is(target error) bool { return target == errInvalid }

// invalid is the status of a message that no client of ours sends.
func invalid(format string, args ...any) error {
	return statusOf(agentError("check request", ports.Definite, &invalidError{fmt.Sprintf(format, args...)}))
}

// callError turns the end of a call on an agent into an error of the ports. Kind
// is what it is if the agent gave no reason of its own: Ambiguous for a call with an
// effect that was sent.
func callError(ctx context.Context, op string, kind ports.Kind, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); ctx.Err() != nil {
		return agentError(op, kind, fmt.Errorf("%w (%s)", cause, status.Convert(err).Message()))
	}
	s, ok := status.FromError(err)
	if !ok {
		return connectionError(op, kind, err)
	}
	if detail := detailOf(s); detail != nil {
		return ours(op, decodeError(detail))
	}
	cause := fmt.Errorf("%s: %s", s.Code(), s.Message())
	switch s.Code() {
	case codes.Unauthenticated:
		return agentError(op, ports.Definite, fmt.Errorf("%w: %s", ErrUnauthenticated, s.Message()))
	case codes.PermissionDenied:
		return agentError(op, ports.Definite, fmt.Errorf("%w: %s", ErrPermissionDenied, s.Message()))
	case codes.InvalidArgument, codes.Unimplemented:
		return agentError(op, ports.Definite, cause)
	case codes.ResourceExhausted:
		return agentError(op, ports.Transient, fmt.Errorf("%w: %s", ErrNoRoom, s.Message()))
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return connectionError(op, kind, cause)
	}
	return agentError(op, kind, cause)
}

// detailOf returns the Error that an agent put into s, nil if there is none.
func detailOf(s *status.Status) *agentv1.Error {
	for _, d := range s.Details() {
		if e, ok := d.(*agentv1.Error); ok {
			return e
		}
	}
	return nil
}

// ours takes an agent's error for what it means to a client that can go to
// another agent: what is the end of that agent is not the end of the client.
func ours(op string, err error) error {
	switch {
	case errors.Is(err, domain.ErrFenced), errors.Is(err, domain.ErrSessionExpired):
		return err
	case errors.Is(err, domain.ErrClosed):
		return agentError(op, kindOf(domain.FateOf(err).Stored != domain.StoredNo), errors.New("the agent ends: "+err.Error()))
	case domain.FateOf(err).Fatal:
		return agentError(op, ports.Ambiguous, errors.New("the agent is broken: "+err.Error()))
	}
	return err
}
