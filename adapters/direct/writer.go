package direct

import (
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// Metadata is what a Writer needs of the metadata store.
type Metadata interface {
	ports.Log
	ClusterID() domain.ClusterID
}

// Writer fills ports.Transport by writing segments itself.
type Writer struct {
	log     Metadata
	store   ports.SegmentStore
	tel     ports.Telemetry
	tracer  ports.Tracer // nil: no spans
	cfg     Config
	cluster domain.ClusterID

	// ctx ends when Close has settled everything, or gives up; uploads, reserves and
	// pauses end with it. A commit that has begun does not.
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed once Close was called and no goroutine is left

	mu      sync.Mutex // guards all below, and the fields of calls, items, streams and segments
	jitter  *rand.Rand
	closed  bool
	fatal   error // why the writer refuses everything
	running int   // goroutines
	trouble error // the last failure of a store, nil after a commit

	room    int64   // bytes taken over and not settled
	waiters []*call // for room, first come first served

	queue   queue
	streams map[commit.StreamKey]*stream
	timer   *time.Timer // of the flush interval, nil if it is not running
	timerAt time.Time

	sequence   uint64            // of the newest segment
	segments   map[uint64]*draft // sealed, and neither committed nor failed
	uploading  int
	dependants int      // segments that wait for the upload of another
	ready      []*draft // clear, not yet handed to the metadata store
	committing bool     // a goroutine commits
	buffers    [][]byte // to build segments in, at most MaxUploads with those in use
	ids        reserve
}

var _ ports.Transport = (*Writer)(nil)

// NewWriter makes a Writer on the two stores, which the caller closes after it.
// It starts nothing. *domain.ConfigError: cfg cannot be used.
func NewWriter(log Metadata, store ports.SegmentStore, tel ports.Telemetry, cfg Config) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	seed := cmp.Or(cfg.Seed, rand.Uint64())
	w := &Writer{
		log: log, store: store, tel: tel, tracer: ports.TracerOf(tel), cfg: cfg,
		cluster:  log.ClusterID(),
		done:     make(chan struct{}),
		jitter:   rand.New(rand.NewPCG(seed, seed)),
		streams:  make(map[commit.StreamKey]*stream),
		segments: make(map[uint64]*draft),
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w, nil
}

// Append implements ports.Transport. A batch that is corrupt is settled with a
// *domain.CorruptError; the others are not affected.
//
// A batch whose ctx ends before its commit has begun is settled as not stored (Transient), and
// is left out of the commit.
func (w *Writer) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	if ctx.Err() != nil {
		return expired(context.Cause(ctx), nil, ports.Transient)
	}
	c := newCall(ctx, batches, settle)
	if w.tracer != nil {
		c.trace = ports.TraceOf(ctx)
	}
	granted, err := w.admit(c)
	if granted == nil {
		return err
	}
	return w.await(c, granted)
}

// newCall verifies the batches. The corrupt ones are settled apart.
func newCall(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) *call {
	c := &call{ctx: ctx, settle: settle, items: make([]item, 0, len(batches))}
	for i, b := range batches {
		parse := batch.Verify
		if b.Checked {
			parse = batch.ParseOne
		}
		h, err := parse(b.Bytes)
		if err == nil {
			err = batch.VerifyStored(b.Bytes)
		}
		if err != nil {
			c.corrupt.settlements = append(c.corrupt.settlements,
				settlement{&item{call: c, index: i}, ports.AppendResult{Base: -1, Err: err}})
			continue
		}
		c.items = append(c.items, newItem(c, i, b, h))
		c.bytes += int64(len(b.Bytes))
	}
	c.open = len(c.items)
	return c
}

// admit enqueues the call if there is room, and else has it wait its turn: then
// it returns the channel that is closed when it is enqueued.
func (w *Writer) admit(c *call) (granted chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refusal(); err != nil {
		return nil, err
	}
	if len(w.waiters) > 0 || !w.hasRoom(c) {
		c.granted = make(chan struct{})
		w.waiters = append(w.waiters, c)
		return c.granted, nil
	}
	w.enqueue(c)
	w.seal()
	return nil, nil
}

// await waits until the call is enqueued. An error means that it never is.
func (w *Writer) await(c *call, granted chan struct{}) error {
	select {
	case <-granted:
	case <-c.ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, other := range w.waiters {
		if other == c {
			w.waiters = append(w.waiters[:i:i], w.waiters[i+1:]...)
			w.admitWaiters()
			w.seal()
			return expired(context.Cause(c.ctx), w.trouble, ports.Transient)
		}
	}
	if c.granted == nil {
		return nil
	}
	return w.refusal()
}

// refusal is why nothing can be appended any more, nil if it can.
func (w *Writer) refusal() error {
	if w.fatal != nil {
		return w.fatal
	}
	if w.closed {
		return domain.ErrClosed
	}
	return nil
}

func (w *Writer) hasRoom(c *call) bool {
	return w.room == 0 || w.room+c.bytes <= w.cfg.InFlightBytes
}

// release gives back room, and enqueues the calls that wait for it. The caller
// seals afterwards.
func (w *Writer) release(n int64) {
	w.room -= n
	w.admitWaiters()
}

func (w *Writer) admitWaiters() {
	for len(w.waiters) > 0 && w.hasRoom(w.waiters[0]) {
		c := w.waiters[0]
		w.waiters = w.waiters[1:]
		granted := c.granted
		c.granted = nil
		w.enqueue(c)
		close(granted)
	}
}

// enqueue takes the call's batches over and begins to watch its context.
func (w *Writer) enqueue(c *call) {
	w.room += c.bytes
	if w.cfg.FlushInterval > 0 {
		c.enqueuedAt = time.Now()
	}
	for i := range c.items {
		it := &c.items[i]
		it.stream = w.stream(it.commit.Stream())
		it.stream.queued++
		w.queue.push(it)
	}
	if c.open > 0 && c.ctx.Done() != nil {
		c.stop = context.AfterFunc(c.ctx, func() { w.expire(c) })
	}
	if c.corrupt.settlements != nil { // from a goroutine: never inside the Append they belong to
		w.start(c.corrupt.deliver)
	}
}

func (w *Writer) stream(key commit.StreamKey) *stream {
	st := w.streams[key]
	if st == nil {
		st = &stream{key: key}
		w.streams[key] = st
	}
	return st
}

func (w *Writer) leaveQueue(st *stream) {
	st.queued--
	w.forget(st)
}

func (w *Writer) forget(st *stream) {
	if st.queued == 0 && st.tail == nil {
		delete(w.streams, st.key)
	}
}

// start runs f in a goroutine that Close waits for. The caller holds w.mu.
func (w *Writer) start(f func()) {
	w.running++
	go func() {
		f()
		w.mu.Lock()
		w.running--
		w.checkDone()
		w.mu.Unlock()
	}()
}
