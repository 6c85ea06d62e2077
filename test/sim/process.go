package sim

import (
	"context"
	"encoding/binary"
	"slices"
	"sync/atomic"

	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// process stands for one operating system process: it has its own producer,
// transport or consumer, reaches the shared stores through the scheduler only, and
// dies as a whole.
type process struct {
	name     string
	world    *world
	mortal   bool // may be killed
	reader   bool // has a consumer
	calls    int  // scheduler only
	dead     atomic.Bool
	ctx      context.Context // ends with the process
	cancel   context.CancelFunc
	metadata ports.MetadataStore
	segments ports.SegmentStore
	tamper   atomic.Pointer[tampering]
	lose     atomic.Bool                   // the next answer of the fetcher lacks a batch
	closers  []func(context.Context) error // in the order to call them

	agent   *agentProcess                 // what it runs, nil unless it is an agent's
	silence atomic.Pointer[chan struct{}] // nothing passes to and from it until closed
	stopped atomic.Bool                   // its calls wait too
}

func (w *world) newProcess(name string, mortal bool) *process {
	p := &process{name: name, world: w, mortal: mortal}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.metadata = fault.NewMetadata(w.metadata, w.scheduler.intercept(p))
	p.segments = fault.NewSegments(&tampered{w.segments, p}, w.scheduler.intercept(p))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.processes = append(w.processes, p)
	return p
}

func (p *process) die() {
	p.dead.Store(true)
	p.cancel()
	if agents := p.world.agents; agents != nil {
		agents.network.cut(p)
	}
}

// step takes a turn; see scheduler.step.
func (p *process) step(what string) bool { return p.world.scheduler.step(p, what) }

// tampering says how bytes are damaged on their way.
type tampering struct {
	kind tamperKind
	at   uint64
}

type tamperKind int

const (
	untouched tamperKind = iota
	flipBit
	cutShort
	changeUnsealed // a field that the batch's checksum leaves out
	changeCount    // of the first batch's records, in both of the header's fields

	tamperKinds = 4
)

// prepare has the call that is about to be carried out damaged.
func (p *process) prepare(c fault.Call, t tampering) {
	switch {
	case t.kind == untouched:
	case c.Method == "ReadRange", c.Method == "Put":
		p.tamper.Store(&t)
	case c.Method == "Fetch":
		p.lose.Store(true)
	}
}

// tampered damages what it reads and writes as its process is told.
type tampered struct {
	ports.SegmentStore
	process *process
}

// Put may leave a part of the object, or another one, under its key.
func (t *tampered) Put(ctx context.Context, key string, body []byte) error {
	if how := t.process.tamper.Swap(nil); how != nil {
		body = how.damage(body)
	}
	return t.SegmentStore.Put(ctx, key, body)
}

func (t *tampered) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	b, err := t.SegmentStore.ReadRange(ctx, key, position, length)
	if how := t.process.tamper.Swap(nil); how != nil && err == nil {
		b = how.damage(b)
	}
	return b, err
}

func (t *tampering) damage(b []byte) []byte {
	if len(b) < 20 {
		return b
	}
	b = slices.Clone(b)
	switch t.kind {
	case flipBit:
		b[t.at/8%uint64(len(b))] ^= 1 << (t.at % 8)
	case cutShort:
		b = b[:t.at%uint64(len(b))]
	case changeUnsealed:
		binary.BigEndian.PutUint64(b, 1+t.at%1000)
	case changeCount:
		if h, err := batch.ParseHeader(b); err == nil {
			records := uint32(1)
			if h.Records == 1 {
				records = 2
			}
			binary.BigEndian.PutUint32(b[lastOffsetDeltaAt:], records-1)
			binary.BigEndian.PutUint32(b[recordsAt:], records)
		}
	}
	return b
}

// Where a batch's header has its counts, by Kafka's format 2.
const (
	lastOffsetDeltaAt = 23
	recordsAt         = 57
)

// lossy leaves out the first batch of an answer when its process is told to, as
// a broken agent might.
type lossy struct {
	ports.Fetcher
	process *process
}

func (l *lossy) Fetch(ctx context.Context, r ports.FetchRequest) ([]ports.FetchedPartition, error) {
	got, err := l.Fetcher.Fetch(ctx, r)
	if l.process.lose.Swap(false) && err == nil {
		for i := range got {
			if h, err := batch.ParseHeader(got[i].Batches); err == nil {
				got[i].Batches = got[i].Batches[h.Length:]
			}
		}
	}
	return got, err
}
