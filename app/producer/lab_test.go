package producer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// rates says how often something goes wrong, from 0 to 1.
type rates struct {
	AppendRefused, AppendBlocks               float64
	Drop, LoseAnswer, LoseBatch, Twice, Wrong float64
	Slow, Hang                                float64
	Sync                                      float64 // answers within Append
	MetaAway, MetaLost, MetaHang              float64
}

// lab is a transport and a metadata store that keep their contracts in the
// most awkward ways, until healed. It keeps what is stored.
type lab struct {
	*memory.Metadata

	mu      sync.Mutex
	rates   rates
	random  *rand.Rand
	queues  map[commit.PartitionKey]chan *job
	pending map[commit.PartitionKey]int
	log     map[commit.PartitionKey][]storedRecord
	faults  []string // broken promises of the producer
	decoder *batch.Decoder
	closed  chan struct{}
	work    sync.WaitGroup
}

type storedRecord struct {
	value  string
	offset domain.Offset
}

// job is one batch that was taken over.
type job struct {
	batch  ports.Batch
	header batch.Header
	sum    [sha256.Size]byte
	values []string
	ctx    context.Context
	once   sync.Once
	tell   func(ports.AppendResult)
}

func newLab(seed uint64, r rates) *lab {
	return &lab{
		Metadata: memory.NewMetadata(memory.MetadataOptions{Seed: seed}),
		rates:    r, random: rand.New(rand.NewPCG(seed, 1)),
		queues: map[commit.PartitionKey]chan *job{}, pending: map[commit.PartitionKey]int{}, log: map[commit.PartitionKey][]storedRecord{},
		decoder: batch.NewDecoder(), closed: make(chan struct{}),
	}
}

// heal ends all faults; what was taken over before may still come late.
func (l *lab) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rates = rates{}
}

// happens draws whether something of a rate happens now.
func (l *lab) happens(rate func(*rates) float64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.Float64() < rate(&l.rates)
}

// moment draws a duration up to limit, mostly short.
func (l *lab) moment(limit time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.random.Float64()
	return time.Duration(f * f * f * float64(limit))
}

func (l *lab) broken(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

// wait waits for d or the end of ctx, and reports which.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

var errAway = ports.MetadataError("call", ports.Transient, errors.New("store is away"))

// meta calls f, or fails in one of the ways in which a metadata store may.
func (l *lab) meta(ctx context.Context, f func() error) error {
	wait(context.Background(), l.moment(20*time.Millisecond))
	switch {
	case l.happens(func(r *rates) float64 { return r.MetaAway }):
		return errAway
	case l.happens(func(r *rates) float64 { return r.MetaHang }):
		<-ctx.Done()
		return context.Cause(ctx)
	case l.happens(func(r *rates) float64 { return r.MetaLost }):
		if l.happens(func(*rates) float64 { return 0.5 }) {
			_ = f()
		}
		return errLost
	}
	return f()
}

func (l *lab) Topic(ctx context.Context, name string) (t domain.Topic, err error) {
	err = l.meta(ctx, func() (err error) { t, err = l.Metadata.Topic(context.Background(), name); return err })
	wait(context.Background(), l.moment(20*time.Millisecond)) // what was read grows old
	return t, err
}

func (l *lab) RegisterProducer(ctx context.Context, name string) (s ports.ProducerSession, err error) {
	err = l.meta(ctx, func() (err error) { s, err = l.Metadata.RegisterProducer(context.Background(), name); return err })
	return s, err
}

func (l *lab) AbandonBatch(ctx context.Context, b ports.AbandonedBatch) (o commit.Outcome, err error) {
	err = l.meta(ctx, func() (err error) { o, err = l.Metadata.AbandonBatch(context.Background(), b); return err })
	return o, err
}

func (l *lab) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	if l.happens(func(r *rates) float64 { return r.AppendBlocks }) && !wait(ctx, l.moment(time.Minute)) {
		return ports.StorageError("append", ports.Transient, context.Cause(ctx))
	}
	if l.happens(func(r *rates) float64 { return r.AppendRefused }) {
		return errDropped
	}
	select {
	case <-l.closed:
		return domain.ErrClosed
	default:
	}
	for i, b := range batches {
		h, err := batch.Verify(b.Bytes)
		if err != nil {
			l.broken("batch %d does not verify: %v", i, err)
		}
		j := &job{batch: b, header: h, sum: sha256.Sum256(b.Bytes), values: l.values(b.Bytes), ctx: ctx}
		j.tell = func(r ports.AppendResult) {
			j.once.Do(func() {
				if sha256.Sum256(b.Bytes) != j.sum {
					l.broken("bytes of a batch in flight changed")
				}
				settle(i, r)
			})
		}
		l.enqueue(j)
	}
	return nil
}

// values returns the values of a batch's records, as they are now.
func (l *lab) values(b []byte) []string {
	records, err := l.decoder.Decode(b)
	if err != nil {
		l.broken("batch does not decode: %v", err)
		return nil
	}
	var values []string
	var r batch.Record
	for records.Next(&r) {
		values = append(values, string(r.Value))
	}
	return values
}

// enqueue serves j after all earlier jobs of its partition; now and then at
// once, if there are none.
func (l *lab) enqueue(j *job) {
	key := j.batch.PartitionKey
	l.mu.Lock()
	queue := l.queues[key]
	if queue == nil {
		queue = make(chan *job, 10_000)
		l.queues[key] = queue
		l.work.Go(func() { l.serveAll(queue) })
	}
	alone := l.pending[key] == 0
	l.pending[key]++
	l.mu.Unlock()
	if alone && l.happens(func(r *rates) float64 { return r.Sync }) {
		l.serve(j, 0)
		return
	}
	l.work.Go(func() {
		select {
		case <-j.ctx.Done():
		case <-l.closed:
		}
		j.tell(ports.AppendResult{Base: -1, Err: errLost})
	})
	queue <- j
}

func (l *lab) serveAll(queue chan *job) {
	for {
		select {
		case <-l.closed:
			return
		case j := <-queue:
			delay := l.moment(30 * time.Millisecond)
			switch {
			case l.happens(func(r *rates) float64 { return r.Hang }):
				delay = time.Minute
			case l.happens(func(r *rates) float64 { return r.Slow }):
				delay = l.moment(10 * time.Second)
			}
			l.serve(j, delay)
		}
	}
}

// serve decides the fate of j. A batch that was settled meanwhile may be stored
// all the same.
func (l *lab) serve(j *job, delay time.Duration) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.pending[j.batch.PartitionKey]--
	}()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-l.closed:
			return
		}
	}
	switch {
	case l.happens(func(r *rates) float64 { return r.Drop }):
		j.tell(ports.AppendResult{Base: -1, Err: errDropped})
		return
	case l.happens(func(r *rates) float64 { return r.Wrong }):
		j.tell(ports.AppendResult{Base: -1, Err: domain.ErrCorrupt})
		return
	case l.happens(func(r *rates) float64 { return r.LoseBatch }):
		j.tell(ports.AppendResult{Base: -1, Err: errLost})
		return
	}
	result := l.store(j)
	if j.header.Producer != batch.NoProducer && l.happens(func(r *rates) float64 { return r.Twice }) {
		result = l.store(j)
	}
	if l.happens(func(r *rates) float64 { return r.LoseAnswer }) {
		result = ports.AppendResult{Base: -1, Err: errLost}
	}
	j.tell(result)
}

func (l *lab) store(j *job) ports.AppendResult {
	o, err := commitOne(l.Metadata, j.batch, j.header)
	if err != nil {
		return ports.AppendResult{Base: -1, Err: err}
	}
	if o.Status == commit.Accepted {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, v := range j.values {
			l.log[j.batch.PartitionKey] = append(l.log[j.batch.PartitionKey], storedRecord{v, o.Base + domain.Offset(i)})
		}
	}
	return answer(o)
}

func (l *lab) Close(context.Context) error {
	close(l.closed)
	l.work.Wait()
	return nil
}
