package consumer

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// maxBackoff bounds the time between two tries of what fails.
const maxBackoff = 5 * time.Second

// Ports are what a consumer stands on. Topics and Fetcher are required; a nil
// Telemetry ignores every event.
type Ports struct {
	Topics    ports.Topics
	Fetcher   ports.Fetcher
	Telemetry ports.Telemetry
}

// Config is a consumer's settings. Take DefaultConfig and change it.
type Config struct {
	// FetchBytes bounds the stored (compressed) bytes that one fetch asks for.
	// A consumer holds two fetches at most: the one whose records it hands out and the
	// one after it. 8 MiB by default; a single extent that is larger comes whole.
	FetchBytes int64
	// FetchMaxWait is how long a fetch waits at the end of the log before it
	// asks again. It delays nothing: a new record ends the wait at once. 10 min by default.
	FetchMaxWait time.Duration
	// TopicRefresh is how often a consumer of all partitions of a topic looks
	// whether the topic was widened, while records come. 5 s by default. While none comes
	// the time doubles with each look, up to FetchMaxWait.
	TopicRefresh time.Duration
	// RetryBackoff is the wait before what failed is tried again. It doubles
	// with each failure, up to 5 s. 100 ms by default.
	RetryBackoff time.Duration
	// MaxPoll is how many messages a Poll returns at most that asks for less
	// than 1. 1000 by default.
	MaxPoll int
	// Codecs decompress batches. Uncompressed ones need none. None by default.
	Codecs []batch.Codec
}

// DefaultConfig returns the settings described at Config.
func DefaultConfig() Config {
	return Config{
		FetchBytes:   8 << 20,
		FetchMaxWait: 10 * time.Minute,
		TopicRefresh: 5 * time.Second,
		RetryBackoff: 100 * time.Millisecond,
		MaxPoll:      1000,
	}
}

// Validate returns every fault of the settings, each a *domain.ConfigError,
// joined; nil if there is none.
func (c Config) Validate() error {
	errs := []error{
		between("fetch bytes", c.FetchBytes, 1, 1<<30),
		within("fetch max wait", c.FetchMaxWait, time.Millisecond, time.Hour),
		within("topic refresh", c.TopicRefresh, 100*time.Millisecond, time.Hour),
		within("retry backoff", c.RetryBackoff, time.Millisecond, maxBackoff),
		between("max poll", int64(c.MaxPoll), 1, 1_000_000),
	}
	for _, codec := range c.Codecs {
		if codec == nil {
			errs = append(errs, &domain.ConfigError{Field: "codecs", Want: "no nil among them"})
		}
	}
	return errors.Join(errs...)
}

func (p Ports) validate() error {
	var errs []error
	if p.Topics == nil {
		errs = append(errs, &domain.ConfigError{Field: "metadata store", Want: "one: topics are found there"})
	}
	if p.Fetcher == nil {
		errs = append(errs, &domain.ConfigError{Field: "fetcher", Want: "one: records are read with it"})
	}
	return errors.Join(errs...)
}

func between(field string, value, least, most int64) error {
	if value < least || value > most {
		return &domain.ConfigError{Field: field, Value: strconv.FormatInt(value, 10), Want: fmt.Sprintf("%d to %d", least, most)}
	}
	return nil
}

func within(field string, value, least, most time.Duration) error {
	if value < least || value > most {
		return &domain.ConfigError{Field: field, Value: value.String(), Want: fmt.Sprintf("%s to %s", least, most)}
	}
	return nil
}
