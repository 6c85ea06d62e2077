package grpc

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// Limits that both ends keep.
const (
	// largestBatch is the most bytes of one encoded batch.
	largestBatch = domain.MaxBatchBytes + batch.HeaderSize
	// largestMessage is the most bytes of one message in either direction: one
	// batch and what is around it.
	largestMessage = largestBatch + 1<<20
	// requestBytes is how many bytes of batches a request with more than one has
	// at most. Larger ones only delay what stands behind them.
	requestBytes = 4 << 20
	// streamWindow and connWindow are how many bytes may be under way on a
	// stream and on a connection, for links with a long round trip.
	streamWindow = 4 << 20
	connWindow   = 8 << 20
	// socketBuffer is how many bytes are read or written at once. An idle
	// connection holds none of them.
	socketBuffer = 128 << 10
	// headerBytes bounds the headers of a call.
	headerBytes = 16 << 10
)

// Backend is what a Server puts a network in front of. All but Describe are
// required. The server closes none of them.
type Backend struct {
	Transport ports.Transport
	Fetcher   ports.Fetcher
	Topics    ports.Topics
	Producers ports.Producers
	Agents    ports.AgentDiscovery
	// Describe says of the agent what the server does not know by itself: NotReady
	// and Loops. Nil: nothing.
	Describe func() ports.AgentStatus
}

// ServerConfig says how a Server works. Start from DefaultServerConfig.
type ServerConfig struct {
	// Version is that of the program, told to clients.
	Version string
	// TLS secures the connections; with ClientAuth set it asks clients for
	// certificates. Nil: none, for a loopback address or a network that is secured otherwise.
	TLS *tls.Config
	// Authorizer says who a caller is and what it may do. Nil lets everybody do
	// everything.
	Authorizer Authorizer
	// Log is told of bad requests: of each peer one in ComplainEvery, with how many
	// more there were. Nil: nobody.
	Log           *slog.Logger
	ComplainEvery time.Duration
	// Reflection lets callers ask for the services' descriptions.
	Reflection bool

	// ClientBytes, TopicBytes and TotalBytes bound the bytes of batches that are
	// taken over and not settled: of one connection, for one topic, and in all. What is over a bound is
	// refused as Transient and ErrNoRoom. TotalBytes must not be above what Backend.Transport takes
	// without blocking, so that one slow topic or client cannot hold up the others.
	ClientBytes, TopicBytes, TotalBytes int64
	// MaxBatches is the most batches of one request, MaxUnread how many outcomes
	// may be due to a stream: a client that reads no answers is cut off.
	MaxBatches, MaxUnread int
	// RetryAfter is the hint that goes with ErrNoRoom.
	RetryAfter time.Duration

	// FetchBytes bounds one answer of a Fetch, except that its first batch is
	// always whole; FetchTotalBytes bounds all answers that are being put together or sent. A quarter
	// of it is kept for consumers near the log's end, and one client gets no more than a part.
	// Fetches that wait for records may take as much again.
	FetchBytes, FetchTotalBytes int64
	// FetchMaxWait is the longest that a Fetch waits for records.
	FetchMaxWait time.Duration

	// DefaultTimeout is how long a call or a batch without a deadline may take,
	// MaxTimeout the longest for one with any.
	DefaultTimeout, MaxTimeout time.Duration
	// SlowReader is how long a client may take to accept one answer of a Produce
	// stream before it is cut off.
	SlowReader time.Duration
	// DrainGrace is how long a draining server takes what clients have sent
	// before they knew of it.
	DrainGrace time.Duration

	// MaxConnections bounds the connections, MaxStreams the calls in progress on
	// each.
	MaxConnections, MaxStreams int
	// KeepaliveTime is how long a connection is silent before it is asked
	// whether it lives, KeepaliveTimeout how long it has to answer. KeepaliveMinimum is how often
	// a client may ask.
	KeepaliveTime, KeepaliveTimeout, KeepaliveMinimum time.Duration
}

// DefaultServerConfig suits an agent whose transport takes 64 MiB or more.
func DefaultServerConfig() ServerConfig {
	return ServerConfig{
		Version: "unknown", ComplainEvery: time.Second,
		ClientBytes: 32 << 20, TopicBytes: 48 << 20, TotalBytes: 64 << 20,
		MaxBatches: 16384, MaxUnread: 131072, RetryAfter: 100 * time.Millisecond,
		FetchBytes: 16 << 20, FetchTotalBytes: 128 << 20, FetchMaxWait: 30 * time.Second,
		DefaultTimeout: 30 * time.Second, MaxTimeout: 5 * time.Minute,
		SlowReader: 10 * time.Second, DrainGrace: time.Second,
		MaxConnections: 10_000, MaxStreams: 256,
		KeepaliveTime: 30 * time.Second, KeepaliveTimeout: 10 * time.Second, KeepaliveMinimum: 5 * time.Second,
	}
}

// Validate reports every field that cannot be used, as *domain.ConfigErrors
// joined.
func (c ServerConfig) Validate() error {
	const most = 1 << 40
	return errors.Join(
		wantDuration("ComplainEvery", c.ComplainEvery, time.Millisecond),
		wantInt("ClientBytes", c.ClientBytes, 1, most),
		wantInt("TopicBytes", c.TopicBytes, 1, most),
		wantInt("TotalBytes", c.TotalBytes, 2*largestBatch, most),
		wantInt("MaxBatches", int64(c.MaxBatches), 1, 1<<20),
		wantInt("MaxUnread", int64(c.MaxUnread), int64(c.MaxBatches), 1<<30),
		wantDuration("RetryAfter", c.RetryAfter, time.Millisecond),
		wantInt("FetchBytes", c.FetchBytes, 1, largestBatch),
		wantInt("FetchTotalBytes", c.FetchTotalBytes, max(c.FetchBytes, 1), most),
		wantDuration("FetchMaxWait", c.FetchMaxWait, time.Millisecond),
		wantDuration("DefaultTimeout", c.DefaultTimeout, time.Millisecond),
		wantDuration("MaxTimeout", c.MaxTimeout, c.DefaultTimeout),
		wantDuration("SlowReader", c.SlowReader, time.Millisecond),
		wantDuration("DrainGrace", c.DrainGrace, 0),
		wantInt("MaxConnections", int64(c.MaxConnections), 1, 1<<20),
		wantInt("MaxStreams", int64(c.MaxStreams), 1, 1<<20),
		wantDuration("KeepaliveTime", c.KeepaliveTime, time.Second),
		wantDuration("KeepaliveTimeout", c.KeepaliveTimeout, time.Millisecond),
		wantDuration("KeepaliveMinimum", c.KeepaliveMinimum, time.Millisecond),
	)
}

func wantInt(field string, value, least, most int64) error {
	if least <= value && value <= most {
		return nil
	}
	want := strconv.FormatInt(least, 10) + " to " + strconv.FormatInt(most, 10)
	return &domain.ConfigError{Field: field, Value: strconv.FormatInt(value, 10), Want: want}
}

func wantDuration(field string, value, least time.Duration) error {
	if value >= least {
		return nil
	}
	return &domain.ConfigError{Field: field, Value: value.String(), Want: least.String() + " or more"}
}

func want(field string, there bool, what string) error {
	if there {
		return nil
	}
	return &domain.ConfigError{Field: field, Want: what}
}

func (b Backend) validate() error {
	return errors.Join(
		want("Backend.Transport", b.Transport != nil, "a transport"),
		want("Backend.Fetcher", b.Fetcher != nil, "a fetcher"),
		want("Backend.Topics", b.Topics != nil, "the topics of a metadata store"),
		want("Backend.Producers", b.Producers != nil, "the producers of a metadata store"),
		want("Backend.Agents", b.Agents != nil, "an agent discovery"),
	)
}
