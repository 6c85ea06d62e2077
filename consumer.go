package streamhouse

import (
	"context"
	"errors"
	"time"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/app/consumer"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// FromOffset begins at the record of the given offset. If there is none, reading
// says so with *OutOfRangeError.
func FromOffset(o Offset) Position { return consumer.At(o) }

// FromTime begins at the first record with a timestamp of t or later.
func FromTime(t time.Time) Position { return consumer.Since(t) }

// ConsumerBuilder gathers what a consumer needs. Setters never fail; Build
// reports every fault at once.
type ConsumerBuilder struct {
	metadata  ports.MetadataStore
	segments  ports.SegmentStore
	fetcher   ports.Fetcher
	agents    ports.AgentClient
	telemetry ports.Telemetry
	assigned  []assignment
	cfg       consumer.Config
}

type assignment struct {
	topic      string
	from       Position
	partitions []PartitionID
}

// NewConsumerBuilder returns a builder with the defaults.
func NewConsumerBuilder() *ConsumerBuilder {
	cfg := consumer.DefaultConfig()
	cfg.Codecs = append(cfg.Codecs, codec.NewLZ4())
	return &ConsumerBuilder{telemetry: ports.NoTelemetry{}, cfg: cfg}
}

// Cluster gives the metadata store and the segment store together.
func (b *ConsumerBuilder) Cluster(c Cluster) *ConsumerBuilder {
	if c == nil {
		return b
	}
	return b.MetadataStore(c.Metadata()).SegmentStore(c.Segments())
}

// MetadataStore knows where the records are. Required, here or by Cluster, unless
// there are Agents. The consumer does not close it.
func (b *ConsumerBuilder) MetadataStore(m MetadataStore) *ConsumerBuilder {
	b.metadata = m
	return b
}

// SegmentStore holds the records. Required, here or by Cluster, unless a
// Fetcher is given. The consumer does not close it.
func (b *ConsumerBuilder) SegmentStore(s SegmentStore) *ConsumerBuilder {
	b.segments = s
	return b
}

// Fetcher replaces direct reads of the segment store.
func (b *ConsumerBuilder) Fetcher(f Fetcher) *ConsumerBuilder {
	b.fetcher = f
	return b
}

// Agents reads through a group of agents, which take the place of both stores:
// adapters/grpc.Dial makes the client. The consumer does not close it. Stores that are given
// as well are used for what they are.
func (b *ConsumerBuilder) Agents(a AgentClient) *ConsumerBuilder {
	b.agents = a
	return b
}

// Telemetry is told what happens inside. Default: nothing. One of adapters/prom
// makes metrics of it, one of adapters/otel also spans.
func (b *ConsumerBuilder) Telemetry(t Telemetry) *ConsumerBuilder {
	b.telemetry = t
	return b
}

// Assign reads the given partitions of topic from the position on, or all of
// them if none is given; then those added later by widening are read too, from their
// start. It may be called for several topics, and Consumer.Assign adds more later.
func (b *ConsumerBuilder) Assign(topic string, from Position, partitions ...PartitionID) *ConsumerBuilder {
	b.assigned = append(b.assigned, assignment{topic, from, partitions})
	return b
}

// FetchBytes bounds what one fetch reads, in stored bytes; default 8 MiB. Two
// fetches are held at most.
func (b *ConsumerBuilder) FetchBytes(n int64) *ConsumerBuilder {
	b.cfg.FetchBytes = n
	return b
}

// FetchMaxWait is how long a fetch waits at the end of the log before it asks
// again; default 10 min. It delays nothing: a new record ends the wait.
func (b *ConsumerBuilder) FetchMaxWait(d time.Duration) *ConsumerBuilder {
	b.cfg.FetchMaxWait = d
	return b
}

// TopicRefresh is how often a consumer of all partitions looks whether its topic
// was widened; default 5 s. While no record comes the time doubles with each look, up to
// FetchMaxWait.
func (b *ConsumerBuilder) TopicRefresh(d time.Duration) *ConsumerBuilder {
	b.cfg.TopicRefresh = d
	return b
}

// RetryBackoff is the wait before a read that failed is tried again; default
// 100 ms, doubling up to 5 s.
func (b *ConsumerBuilder) RetryBackoff(d time.Duration) *ConsumerBuilder {
	b.cfg.RetryBackoff = d
	return b
}

// MaxPoll is how many messages a Poll returns that names no number; default 1000.
func (b *ConsumerBuilder) MaxPoll(n int) *ConsumerBuilder {
	b.cfg.MaxPoll = n
	return b
}

// Build opens the consumer and makes its assignments. It must be closed.
//
// ErrConfig: something is missing or not valid; the error joins every fault.
// ErrTopicNotFound, ErrInvalidPartition: an assignment names what does not exist.
func (b *ConsumerBuilder) Build(ctx context.Context) (*Consumer, error) {
	if err := errors.Join(b.missing(), b.cfg.Validate()); err != nil {
		return nil, err
	}
	c, err := consumer.New(b.ports(), b.cfg)
	if err != nil {
		return nil, err
	}
	for _, a := range b.assigned {
		if err := c.Assign(ctx, a.topic, a.from, a.partitions...); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// ports chooses what to read with, of what is there.
func (b *ConsumerBuilder) ports() consumer.Ports {
	p := consumer.Ports{Topics: b.metadata, Fetcher: b.fetcher, Telemetry: b.telemetry}
	if b.metadata == nil {
		p.Topics = b.agents
	}
	switch {
	case p.Fetcher != nil:
	case b.metadata != nil && b.segments != nil:
		p.Fetcher = direct.NewReader(b.metadata, b.segments, b.telemetry, direct.DefaultReaderConfig(b.cfg.Codecs...))
	default:
		p.Fetcher = b.agents
	}
	return p
}

func (b *ConsumerBuilder) missing() error {
	var errs []error
	if b.metadata == nil && b.agents == nil {
		errs = append(errs, &domain.ConfigError{Field: "MetadataStore", Want: "a metadata store, a Cluster, or Agents"})
	}
	if (b.segments == nil || b.metadata == nil) && b.fetcher == nil && b.agents == nil {
		errs = append(errs, &domain.ConfigError{Field: "SegmentStore", Want: "a segment store, a Cluster, or Agents"})
	}
	if b.telemetry == nil {
		errs = append(errs, &domain.ConfigError{Field: "Telemetry", Value: "nil", Want: "a telemetry, or leave it out"})
	}
	return errors.Join(errs...)
}
