package producer

import (
	"errors"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

// Unlimited, as Config.MaxRetries, leaves the end of retrying to
// DeliveryTimeout alone.
const Unlimited = -1

// maxBackoff is where the doubling of RetryBackoff stops.
const maxBackoff = 5 * time.Second

// Config holds what a producer may be told. Begin with DefaultConfig.
type Config struct {
	// BatchSize is a trigger, default 100 records: that many records waiting for
	// one partition are sent at once, though one request is under way already. It is no
	// cap: while earlier batches are in flight a batch grows up to BatchBytes.
	BatchSize int

	// BatchBytes caps the records of one partition's batch, before compression;
	// default 1 MiB. A single record may be larger and then travels alone.
	BatchBytes int

	// BatchTimeout is the longest a record waits for company; default 100 ms.
	// It is a bound, not a delay: with nothing in flight a lone record leaves at once. While
	// records of more than 512 partitions wait, the bound is twice the time that requests
	// take, up to a second, if that is more; and while more of them wait than one request
	// takes, ten times BatchTimeout, likewise.
	BatchTimeout time.Duration

	// Codec compresses batches; nil sends them as they are. A batch that does
	// not shrink is sent as it is.
	Codec batch.Codec

	// RequestTimeout bounds one attempt to deliver a batch; default 30 s.
	RequestTimeout time.Duration

	// DeliveryTimeout bounds all attempts of a record together, counted from
	// the acceptance of its batch's first record; default 2 min.
	DeliveryTimeout time.Duration

	// MaxRetries bounds how often a batch is sent again; the default is
	// Unlimited. A small number gives up early: three retries with the default backoff
	// are over 0.7 s after the first failure, which is less than most outages last. What is
	// sent again because the session had expired is not counted.
	MaxRetries int

	// RetryBackoff is how long a partition waits after its first failure, at
	// most; default 100 ms. It doubles with each further one up to 5 s, and each wait is a random
	// part of that (full jitter).
	RetryBackoff time.Duration

	// BufferBytes bounds the memory of records that are accepted and not yet
	// settled, bookkeeping included; default 64 MiB. A batch on its way counts with its compressed
	// size. When it is full, Send and SendAsync block and TrySend fails.
	BufferBytes int64

	// Idempotence, on by default, numbers every batch so that no retry can
	// store it twice or out of order. Without it a retry after an unclear failure may
	// store a batch twice, and one batch per partition is in flight at a time.
	Idempotence bool

	// Name, if set, is this producer's durable identity: opening it again, here or
	// elsewhere, fences the earlier session. It needs Idempotence.
	Name string

	// Partitioner chooses the partition of records that name none.
	Partitioner domain.Partitioner

	// Seed makes the jitter of retries repeatable, for simulations; 0 takes a
	// random one.
	Seed uint64
}

// DefaultConfig returns the defaults, without a codec.
func DefaultConfig() Config {
	return Config{
		BatchSize:       100,
		BatchBytes:      1 << 20,
		BatchTimeout:    100 * time.Millisecond,
		RequestTimeout:  30 * time.Second,
		DeliveryTimeout: 2 * time.Minute,
		MaxRetries:      Unlimited,
		RetryBackoff:    100 * time.Millisecond,
		BufferBytes:     64 << 20,
		Idempotence:     true,
		Partitioner:     domain.NewSipHashPartitioner(),
	}
}

// Validate reports every fault, each as a *domain.ConfigError.
func (c Config) Validate() error {
	var errs []error
	require := func(ok bool, field, value, want string) {
		if !ok {
			errs = append(errs, &domain.ConfigError{Field: field, Value: value, Want: want})
		}
	}
	const maxBatch = domain.MaxBatchBytes - 2*domain.MaxRecordBytes
	require(c.BatchSize >= 1, "BatchSize", strconv.Itoa(c.BatchSize), "1 record or more")
	require(c.BatchBytes >= 1 && c.BatchBytes <= maxBatch, "BatchBytes", strconv.Itoa(c.BatchBytes), "1 to "+strconv.Itoa(maxBatch)+" bytes")
	require(c.BatchTimeout > 0, "BatchTimeout", c.BatchTimeout.String(), "more than zero")
	require(c.RequestTimeout > 0, "RequestTimeout", c.RequestTimeout.String(), "more than zero")
	require(c.DeliveryTimeout > 0, "DeliveryTimeout", c.DeliveryTimeout.String(), "more than zero")
	require(c.MaxRetries >= Unlimited, "MaxRetries", strconv.Itoa(c.MaxRetries), "zero or more, or Unlimited (-1)")
	require(c.RetryBackoff > 0, "RetryBackoff", c.RetryBackoff.String(), "more than zero")
	require(c.BufferBytes >= 1 && c.BufferBytes <= 1<<40, "BufferBytes", strconv.FormatInt(c.BufferBytes, 10), "1 byte to 1 TiB")
	require(c.Partitioner != nil, "Partitioner", "nil", "a partitioner")
	require(c.Name == "" || c.Idempotence, "Name", strconv.Quote(c.Name), "Idempotence on for a named producer")
	if c.Name != "" {
		if err := domain.ValidateName("producer", c.Name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
