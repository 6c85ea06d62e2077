// Package producer sends records: it gathers them into batches, hands the
// batches to a transport, and tells each record's fate once it is durable or has failed.
//
// Records of one partition stay in the order in which they were accepted, through
// all retries. A partition whose batch failed sends nothing until that batch is stored or
// given up; the other partitions go on meanwhile.
package producer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// Ports is what a producer works with. All are required. The producer closes
// the transport; the rest is the caller's.
type Ports struct {
	Topics    ports.Topics
	Producers ports.Producers
	Transport ports.Transport
	Telemetry ports.Telemetry
}

// session is what numbers this producer's batches.
type session struct {
	ports.ProducerSession
}

// Producer sends records to topics. Its methods may be called from several
// goroutines. It must be closed.
type Producer struct {
	cfg       Config
	metadata  ports.Topics
	producers ports.Producers
	transport ports.Transport
	telemetry ports.Telemetry
	tracer    ports.Tracer // nil: no spans

	life  context.Context // ends with the producer
	end   context.CancelFunc
	began time.Time

	topics      topics
	budget      budget
	retained    atomic.Int64 // of the budget: settled records whose callbacks have not run
	buffers     buffers
	slots       slots
	stages      stages
	pendings    pendings
	callers     callers
	generations *generations
	dispatcher  dispatcher
	reaper      reaper

	session    atomic.Pointer[session] // nil without idempotence
	superseded atomic.Pointer[session] // which a registration of ours has replaced, or may have
	renewing   chan struct{}           // holds a token while nobody registers
	failure    atomic.Pointer[error]   // why this producer is of no further use
	lookUps    lookUps                 // for TrySend

	randomMu sync.Mutex
	rng      *rand.Rand

	work    sync.WaitGroup
	closing sync.Mutex // guards the three below
	closed  bool
	over    chan struct{} // closed when Close has done its work
	overErr error
	stopped bool // work is waited for: nothing joins it any more
}

// New opens a producer. With idempotence it registers a session, which fences
// earlier ones of the same name.
//
// domain.ErrConfig: cfg is not valid; every fault is in the error.
func New(ctx context.Context, to Ports, cfg Config) (*Producer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	seed := cfg.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	p := &Producer{
		cfg: cfg, metadata: to.Topics, producers: to.Producers, transport: to.Transport, telemetry: to.Telemetry, tracer: ports.TracerOf(to.Telemetry),
		began: time.Now(), generations: newGenerations(), renewing: make(chan struct{}, 1),
		rng: rand.New(rand.NewPCG(seed, 0)), over: make(chan struct{}),
	}
	p.life, p.end = context.WithCancel(context.WithoutCancel(ctx))
	p.budget.limit, p.budget.onWait = cfg.BufferBytes, p.dispatcher.signal
	p.buffers.limit = cfg.BufferBytes / 4 * 5 // in use: at most BufferBytes and what open batches do not fill yet
	p.renewing <- struct{}{}
	if cfg.Idempotence {
		if _, err := p.register(ctx); err != nil {
			p.end()
			return nil, fmt.Errorf("open producer session: %w", err)
		}
	}
	p.dispatcher.p, p.dispatcher.wake = p, make(chan struct{}, 1)
	p.dispatcher.waterline.Store(p.share())
	p.reaper.p, p.callers.p = p, p
	p.reaper.at.Store(never)
	p.spawn(p.dispatcher.run)
	return p, nil
}

// Send writes r and returns once it is durable: in the segment store, and with
// its offset committed in the metadata store. It does not wait for company when nothing
// else is in flight.
//
// Records sent by one goroutine to one partition get rising offsets. Send does
// not keep r.Key, r.Value or r.Headers after it returns.
//
// If ctx ends first, the error matches ErrOutcomeUnknown if the record was accepted: it stays
// on its way. domain.FateOf tells for every error whether the record was stored.
func (p *Producer) Send(ctx context.Context, r domain.Record) (domain.SendResult, error) {
	if p.tracer != nil {
		return p.sendTraced(ctx, r)
	}
	pending, err := p.accept(ctx, &r, nil, true, nil)
	if err != nil {
		return domain.SendResult{Offset: -1}, err
	}
	return pending.Wait(ctx)
}

// SendAsync accepts r and returns at once; the Pending, which is never nil,
// tells its fate. If callback is not nil it is called once with that fate. It
// copies r's bytes.
//
// SendAsync blocks while the buffer is full or the topic has to be looked up;
// if ctx ends meanwhile the record is not accepted. Once accepted it is not withdrawn by ctx.
//
// Callbacks of one partition run in order, one at a time: a slow one delays those of
// its partition only, and no delivery until the buffer is full of records that wait for theirs. A
// record that is not accepted has its callback called before SendAsync returns. A
// callback may send, but not Flush or Close.
func (p *Producer) SendAsync(ctx context.Context, r domain.Record, callback Callback) *Pending {
	pending, err := p.acceptAsync(ctx, r, callback, true)
	if err != nil {
		if callback != nil {
			callback(domain.SendResult{Offset: -1}, err)
		}
		return refused(err)
	}
	return pending
}

// TrySend is SendAsync that never blocks. ErrBufferFull: there is no room now.
// ErrWouldBlock: the topic is not known yet; its look-up has begun. On any error the record
// was not accepted and callback is not called.
func (p *Producer) TrySend(r domain.Record, callback Callback) (*Pending, error) {
	return p.acceptAsync(context.Background(), r, callback, false)
}

func (p *Producer) acceptAsync(ctx context.Context, r domain.Record, callback Callback, wait bool) (*Pending, error) {
	if p.tracer != nil {
		return p.sendAsyncTraced(ctx, r, callback, wait)
	}
	return p.accept(ctx, &r, callback, wait, nil)
}

// SendBatch sends records, in order, and waits for all of them. It returns one
// result for each. If any failed the error is a *BatchError with the error of each; the
// others are durable.
func (p *Producer) SendBatch(ctx context.Context, records []domain.Record) ([]domain.SendResult, error) {
	results := make([]domain.SendResult, len(records))
	errs := make([]error, len(records))
	pendings := make([]*Pending, len(records))
	if p.tracer != nil {
		end := p.acceptTraced(ctx, records, pendings, errs)
		defer func() { end(results) }()
	} else {
		for i := range records {
			pendings[i], errs[i] = p.accept(ctx, &records[i], nil, true, nil)
		}
	}
	failed := 0
	for i, pending := range pendings {
		results[i].Offset = -1
		if errs[i] == nil {
			results[i], errs[i] = pending.Wait(ctx)
		}
		if errs[i] != nil {
			failed++
		}
	}
	if failed > 0 {
		return results, &BatchError{Errors: errs}
	}
	return results, nil
}

// BatchError is how a SendBatch ends of which some records failed.
type BatchError struct {
	// Errors holds one entry a record, nil for those that are durable.
	Errors []error
}

func (e *BatchError) Error() string {
	failed, first := 0, -1
	for i, err := range e.Errors {
		if err != nil {
			if first < 0 {
				first = i
			}
			failed++
		}
	}
	return fmt.Sprintf("%d of %d records failed, first record %d: %v", failed, len(e.Errors), first, e.Errors[first])
}

// Unwrap returns the errors that are not nil.
func (e *BatchError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errors {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// accept takes r over, or returns why not: then it is definitely not stored.
// Trace is that of the record's span, nil if it has none that is sampled.
func (p *Producer) accept(ctx context.Context, r *domain.Record, callback Callback, wait bool, trace *ports.TraceContext) (*Pending, error) {
	if err := p.usable(); err != nil {
		return nil, err
	}
	bound := batch.RecordBound(r.Key, r.Value, r.Headers)
	held := int64(bound) + recordOverhead
	if err := p.checkSize(r, held); err != nil {
		return nil, err
	}
	if trace != nil {
		held = min(held+spanOverhead, p.cfg.BufferBytes)
	}
	part, err := p.route(ctx, r, wait)
	if err != nil {
		return nil, err
	}
	if !p.budget.try(held) {
		if !wait {
			p.dispatcher.refuse(held)
			return nil, domain.ErrBufferFull
		}
		if err := p.budget.acquire(ctx, held); err != nil {
			return nil, notAccepted(r.Topic, err)
		}
	}
	pending, err := part.append(r, bound, held, callback, trace)
	for errors.Is(err, errTopicReplaced) {
		if part, err = p.route(ctx, r, wait); err == nil {
			pending, err = part.append(r, bound, held, callback, trace)
		}
	}
	if err != nil {
		p.budget.release(held)
		return nil, err
	}
	return pending, nil
}

// usable returns why no record can be taken, or nil.
func (p *Producer) usable() error {
	if f := p.failure.Load(); f != nil {
		return *f
	}
	if p.life.Err() != nil {
		return domain.ErrClosed
	}
	return nil
}

func (p *Producer) checkSize(r *domain.Record, held int64) error {
	if len(r.Headers) > domain.MaxHeaders {
		return &domain.RecordTooLargeError{Topic: r.Topic, What: "headers", Size: len(r.Headers), Limit: domain.MaxHeaders}
	}
	size := recordSize(r)
	if size > domain.MaxRecordBytes {
		return &domain.RecordTooLargeError{Topic: r.Topic, What: "bytes", Size: size, Limit: domain.MaxRecordBytes}
	}
	if held > p.cfg.BufferBytes {
		return &domain.RecordTooLargeError{Topic: r.Topic, What: "bytes with its bookkeeping, which the whole BufferBytes do not hold", Size: int(held), Limit: int(p.cfg.BufferBytes)}
	}
	return nil
}

func recordSize(r *domain.Record) int {
	size := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		size += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return size
}

// share is how much of the budget one request takes.
func (p *Producer) share() int64 { return min(flushBytes, p.cfg.BufferBytes/4) }

// ripe is how much waiting data of so many partitions makes a request by itself,
// while so much of the budget is held by what does not wait: never all that is left.
func (p *Producer) ripe(partitions int, held int64) int64 {
	return max(p.share(), min(int64(partitions)*gatherBytes, (p.cfg.BufferBytes-held)/16*15))
}

// finished takes a batch off the books, once its callbacks have run.
func (p *Producer) finished(o *outgoing) { p.generations.end(o.group) }

// random returns a number in [0,1).
func (p *Producer) random() float64 {
	p.randomMu.Lock()
	defer p.randomMu.Unlock()
	return p.rng.Float64()
}

// spawn runs f on a goroutine that Close waits for.
func (p *Producer) spawn(f func()) {
	p.closing.Lock()
	defer p.closing.Unlock()
	if p.stopped {
		go f() // Close gave up waiting; f sees the end of p.life and returns
		return
	}
	p.work.Go(f)
}
