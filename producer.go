package streamhouse

import (
	"context"
	"errors"
	"time"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// ProducerBuilder gathers what a producer needs. Setters never fail; Build
// reports every fault at once. Defaults are in place from the start, so an explicit zero
// is an error, not a default.
type ProducerBuilder struct {
	metadata   ports.MetadataStore
	segments   ports.SegmentStore
	transport  ports.Transport
	agents     ports.AgentClient
	telemetry  ports.Telemetry
	agentGroup string
	compress   bool
	cfg        producer.Config
}

// NewProducerBuilder returns a builder with the defaults.
func NewProducerBuilder() *ProducerBuilder {
	return &ProducerBuilder{
		telemetry: ports.NoTelemetry{}, agentGroup: "default", compress: true, cfg: producer.DefaultConfig(),
	}
}

// Cluster gives the metadata store and the segment store together.
func (b *ProducerBuilder) Cluster(c Cluster) *ProducerBuilder {
	if c == nil {
		return b
	}
	return b.MetadataStore(c.Metadata()).SegmentStore(c.Segments())
}

// MetadataStore keeps topics and offsets. Required, here or by Cluster, unless
// there are Agents. The producer does not close it.
func (b *ProducerBuilder) MetadataStore(m MetadataStore) *ProducerBuilder {
	b.metadata = m
	return b
}

// SegmentStore takes the records: the producer writes to it directly. The
// producer does not close it.
func (b *ProducerBuilder) SegmentStore(s SegmentStore) *ProducerBuilder {
	b.segments = s
	return b
}

// Transport replaces direct writes to the segment store. The producer closes it.
func (b *ProducerBuilder) Transport(t Transport) *ProducerBuilder {
	b.transport = t
	return b
}

// Agents sends through a group of agents, which take the place of both stores:
// adapters/grpc.Dial makes the client. The producer does not close it. Stores that are given
// as well are used for what they are.
func (b *ProducerBuilder) Agents(a AgentClient) *ProducerBuilder {
	b.agents = a
	return b
}

// Telemetry is told what happens inside. Default: nothing. One of adapters/prom
// makes metrics of it, one of adapters/otel also spans.
func (b *ProducerBuilder) Telemetry(t Telemetry) *ProducerBuilder {
	b.telemetry = t
	return b
}

// AgentGroup is the group of agents that the producer is meant to send to;
// default "default". Without Agents and without a segment store to write to directly Build
// returns *NoAgentsAvailableError with it.
func (b *ProducerBuilder) AgentGroup(group string) *ProducerBuilder {
	b.agentGroup = group
	return b
}

// BatchSize is how many records waiting for a partition are sent at once, though
// one request is under way; default 100. It is a trigger, not a cap.
func (b *ProducerBuilder) BatchSize(records int) *ProducerBuilder {
	b.cfg.BatchSize = records
	return b
}

// BatchBytes caps a partition's batch before compression; default 1 MiB.
func (b *ProducerBuilder) BatchBytes(n int) *ProducerBuilder {
	b.cfg.BatchBytes = n
	return b
}

// BatchTimeout is the longest a record waits for company; default 100 ms. With
// nothing in flight a lone record leaves at once. While records of more than 512
// partitions wait, it may be longer, up to a second.
func (b *ProducerBuilder) BatchTimeout(d time.Duration) *ProducerBuilder {
	b.cfg.BatchTimeout = d
	return b
}

// CompressionEnabled switches LZ4 on or off; default on. A batch that does not
// shrink is sent as it is.
func (b *ProducerBuilder) CompressionEnabled(on bool) *ProducerBuilder {
	b.compress = on
	return b
}

// RequestTimeout bounds one attempt; default 30 s.
func (b *ProducerBuilder) RequestTimeout(d time.Duration) *ProducerBuilder {
	b.cfg.RequestTimeout = d
	return b
}

// DeliveryTimeout bounds all attempts of a record together; default 2 min.
func (b *ProducerBuilder) DeliveryTimeout(d time.Duration) *ProducerBuilder {
	b.cfg.DeliveryTimeout = d
	return b
}

// MaxRetries bounds how often a batch is sent again; default UnlimitedRetries,
// within DeliveryTimeout. Three retries with the default backoff give up 0.7 s after the
// first failure at the latest: shorter than most outages.
func (b *ProducerBuilder) MaxRetries(n int) *ProducerBuilder {
	b.cfg.MaxRetries = n
	return b
}

// RetryBackoff bounds the pause after a first failure; default 100 ms. It
// doubles up to 5 s, with full jitter.
func (b *ProducerBuilder) RetryBackoff(d time.Duration) *ProducerBuilder {
	b.cfg.RetryBackoff = d
	return b
}

// BufferBytes bounds the memory of records that are not settled; default 64
// MiB. A batch on its way counts with its compressed size. When it is full, Send and
// SendAsync block and TrySend fails.
func (b *ProducerBuilder) BufferBytes(n int64) *ProducerBuilder {
	b.cfg.BufferBytes = n
	return b
}

// Idempotence lets no retry store a record twice or out of order; default on.
func (b *ProducerBuilder) Idempotence(on bool) *ProducerBuilder {
	b.cfg.Idempotence = on
	return b
}

// Name is a durable identity: building a producer of the same name anywhere
// fences the earlier one. Default: none.
func (b *ProducerBuilder) Name(name string) *ProducerBuilder {
	b.cfg.Name = name
	return b
}

// Partitioner chooses the partition of records that name none; default
// NewSipHashPartitioner.
func (b *ProducerBuilder) Partitioner(p Partitioner) *ProducerBuilder {
	b.cfg.Partitioner = p
	return b
}

// Build opens the producer. It must be closed.
//
// ErrConfig, ErrInvalidName: something is missing or not valid; the error joins every fault.
// *NoAgentsAvailableError: there is neither a segment store nor an agent.
func (b *ProducerBuilder) Build(ctx context.Context) (*Producer, error) {
	cfg := b.cfg
	if b.compress {
		cfg.Codec = codec.NewLZ4()
	}
	if err := errors.Join(b.missing(), domain.ValidateName("agent group", b.agentGroup), cfg.Validate()); err != nil {
		return nil, err
	}
	transport, err := b.open()
	if err != nil {
		return nil, err
	}
	to := producer.Ports{Topics: b.metadata, Producers: b.metadata, Transport: transport, Telemetry: b.telemetry}
	if b.metadata == nil {
		to.Topics, to.Producers = b.agents, b.agents
	}
	p, err := producer.New(ctx, to, cfg)
	if err != nil {
		return nil, errors.Join(err, transport.Close(ctx))
	}
	return p, nil
}

func (b *ProducerBuilder) missing() error {
	var errs []error
	if b.metadata == nil && b.agents == nil {
		errs = append(errs, &domain.ConfigError{Field: "MetadataStore", Want: "a metadata store, a Cluster, or Agents"})
	}
	if b.telemetry == nil {
		errs = append(errs, &domain.ConfigError{Field: "Telemetry", Value: "nil", Want: "a telemetry, or leave it out"})
	}
	return errors.Join(errs...)
}

func (b *ProducerBuilder) open() (ports.Transport, error) {
	switch {
	case b.transport != nil:
		return b.transport, nil
	case b.segments == nil && b.agents != nil:
		return b.agents.NewTransport(), nil
	case b.segments == nil || b.metadata == nil:
		return nil, &domain.NoAgentsAvailableError{Group: b.agentGroup}
	}
	return direct.NewWriter(b.metadata, b.segments, b.telemetry, direct.DefaultConfig())
}
