package producer

import (
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/domain"
)

// notAccepted says that a record was not taken over, for cause.
func notAccepted(topic string, cause error) error {
	if errors.Is(cause, domain.ErrClosed) {
		return cause
	}
	return &notAcceptedError{topic, cause}
}

// notAcceptedError is definite whatever its cause says: nothing was sent.
type notAcceptedError struct {
	topic string
	cause error
}

func (e *notAcceptedError) Error() string {
	return fmt.Sprintf("record for topic %q was not accepted: %v", e.topic, e.cause)
}
func (e *notAcceptedError) Unwrap() []error {
	if e.Fate().Fatal {
		return []error{e.cause}
	}
	return []error{e.cause, domain.ErrTimeout}
}
func (e *notAcceptedError) Fate() domain.Fate {
	fatal := domain.FateOf(e.cause).Fatal
	return domain.Fate{Stored: domain.StoredNo, Retry: !fatal, Fatal: fatal}
}

// endedError is why a producer is of no further use. Whatever its cause says
// about another record, the one that is refused for it was not stored.
type endedError struct{ cause error }

func (e *endedError) Error() string     { return fmt.Sprintf("producer has ended: %v", e.cause) }
func (e *endedError) Unwrap() error     { return e.cause }
func (e *endedError) Fate() domain.Fate { return domain.Fate{Stored: domain.StoredNo, Fatal: true} }

// sessionLost is the cause of a failure that a lost session brought about: the
// producer itself goes on with another one.
func sessionLost(cause error) error {
	if cause == nil {
		return nil
	}
	return &sessionLostError{cause}
}

type sessionLostError struct{ cause error }

func (e *sessionLostError) Error() string     { return fmt.Sprintf("producer session lost: %v", e.cause) }
func (e *sessionLostError) Unwrap() error     { return e.cause }
func (e *sessionLostError) Fate() domain.Fate { return domain.Fate{} }
