package direct

import (
	"errors"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

// Limits that are not worth an option.
const (
	// readyLimit bounds the segments that wait for the commit in progress. While
	// it is reached, batches gather in the queue and leave in fewer, larger segments.
	readyLimit = 16
	// reserveFirst and reserveMost bound how many segment ids are reserved at
	// once: the first time, doubling from then on.
	reserveFirst = 4
	reserveMost  = 64
	// reserveAge is how long a reserved id is used. The collector deletes
	// pending segments after a much longer grace.
	reserveAge = 5 * time.Minute
	// closeGrace is how long Close waits for goroutines after its context ended.
	closeGrace = 500 * time.Millisecond
)

// Config says how a Writer works. Start from DefaultConfig.
type Config struct {
	// FlushBytes is the size, in bytes, from which a segment takes no more
	// batches. A larger single batch makes a larger segment.
	FlushBytes int
	// FlushInterval is how long batches wait for company. 0 waits only for an
	// upload slot.
	FlushInterval time.Duration
	// MaxUploads is how many uploads may run at once. It bounds the memory for
	// segment buffers to about MaxUploads * FlushBytes.
	MaxUploads int
	// InFlightBytes bounds the encoded bytes taken over and not settled yet;
	// Append blocks while they are reached. A single larger Append gets through alone.
	InFlightBytes int64
	// CommitTimeout bounds one attempt of a commit, CommitBudget all attempts
	// after one whose outcome is unknown. They are not bound to any Append's context.
	CommitTimeout time.Duration
	CommitBudget  time.Duration
	// RetryBackoff is the pause before the second attempt of an upload or a
	// commit. It doubles up to MaxRetryBackoff; each pause is drawn from its upper half.
	RetryBackoff    time.Duration
	MaxRetryBackoff time.Duration
	// StallAfter is the age from which an unfinished upload counts as stalled.
	// Batches that must follow a stalled one stay in the queue.
	StallAfter time.Duration
	// Seed makes the pauses repeatable. 0 makes them random.
	Seed uint64
}

// DefaultConfig suits the library: no waiting, 8 MiB segments, 32 MiB in flight.
func DefaultConfig() Config {
	return Config{
		FlushBytes:      8 << 20,
		MaxUploads:      4,
		InFlightBytes:   32 << 20,
		CommitTimeout:   30 * time.Second,
		CommitBudget:    2 * time.Minute,
		RetryBackoff:    20 * time.Millisecond,
		MaxRetryBackoff: 2 * time.Second,
		StallAfter:      time.Second,
	}
}

// Validate reports every field that cannot be used, as *domain.ConfigErrors
// joined.
func (c Config) Validate() error {
	return errors.Join(
		wantInt("FlushBytes", int64(c.FlushBytes), 1<<30),
		wantDuration("FlushInterval", c.FlushInterval, 0),
		wantInt("MaxUploads", int64(c.MaxUploads), 256),
		wantInt("InFlightBytes", c.InFlightBytes, 1<<40),
		wantDuration("CommitTimeout", c.CommitTimeout, 1),
		wantDuration("CommitBudget", c.CommitBudget, 1),
		wantDuration("RetryBackoff", c.RetryBackoff, 1),
		wantDuration("MaxRetryBackoff", c.MaxRetryBackoff, c.RetryBackoff),
		wantDuration("StallAfter", c.StallAfter, 1),
	)
}

// ReaderConfig says how a Reader works. Start from DefaultReaderConfig.
type ReaderConfig struct {
	// MaxReads is how many ranged reads of one Fetch may run at once.
	MaxReads int
	// Codecs are those that OffsetAt can look into; batches that are not
	// compressed need none.
	Codecs []batch.Codec
}

// DefaultReaderConfig reads four ranges at once and knows the given codecs.
func DefaultReaderConfig(codecs ...batch.Codec) ReaderConfig {
	return ReaderConfig{MaxReads: 4, Codecs: codecs}
}

// Validate reports every field that cannot be used, as *domain.ConfigErrors
// joined.
func (c ReaderConfig) Validate() error {
	errs := []error{wantInt("MaxReads", int64(c.MaxReads), 256)}
	for _, codec := range c.Codecs {
		if codec == nil {
			errs = append(errs, &domain.ConfigError{Field: "Codecs", Value: "nil", Want: "codecs"})
		}
	}
	return errors.Join(errs...)
}

func wantInt(field string, value, most int64) error {
	if 1 <= value && value <= most {
		return nil
	}
	want := "1 to " + strconv.FormatInt(most, 10)
	return &domain.ConfigError{Field: field, Value: strconv.FormatInt(value, 10), Want: want}
}

func wantDuration(field string, value, least time.Duration) error {
	if value >= least {
		return nil
	}
	return &domain.ConfigError{Field: field, Value: value.String(), Want: least.String() + " or more"}
}
