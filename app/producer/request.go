package producer

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// parallelBytes is how much makes it worth encoding on several cores.
const parallelBytes = 128 << 10

// request is one Append of batches to the transport.
type request struct {
	p       *Producer
	started time.Time
	batches []*outgoing
	charge  int64 // of the budget
	bytes   int   // before compression
	records int
	left    atomic.Int32 // batches that are not settled
	cancel  context.CancelFunc
	traces  []ports.TraceContext  // of sampled records in it, the first ones
	span    ports.Span            // nil if there are none
	sent    int64                 // encoded bytes
	failure atomic.Pointer[error] // the first of a batch, for the span
}

func (r *request) add(o *outgoing) {
	r.batches = append(r.batches, o)
	r.charge += o.charge
	r.bytes += o.builder.Len()
	r.records += int(o.count)
	for _, t := range o.traces {
		r.traces = ports.AddTrace(r.traces, t)
	}
}

// encode gives every batch its final bytes, on all cores if there is much to do.
func (r *request) encode() {
	var next atomic.Int32
	work := func() {
		for i := int(next.Add(1)) - 1; i < len(r.batches); i = int(next.Add(1)) - 1 {
			r.batches[i].encode()
		}
	}
	var others sync.WaitGroup
	if r.bytes >= parallelBytes {
		for range min(runtime.GOMAXPROCS(0), len(r.batches)) - 1 {
			others.Go(work)
		}
	}
	work()
	others.Wait()
	r.charge = 0
	for _, o := range r.batches {
		r.charge += o.charge
	}
}

// send hands the batches to the transport. Those that could not be encoded fail
// here.
func (r *request) send() {
	deadline := r.started.Add(r.p.cfg.RequestTimeout)
	wire := make([]ports.Batch, 0, len(r.batches))
	sent := make([]*outgoing, 0, len(r.batches))
	var bad []*outgoing
	for _, o := range r.batches {
		deadline = earlier(deadline, o.deadline())
		if o.encoded == nil {
			bad = append(bad, o)
			continue
		}
		wire = append(wire, ports.Batch{PartitionKey: o.part.key(), Bytes: o.encoded, Checked: o.attempts == 0})
		sent = append(sent, o)
		r.sent += int64(len(o.encoded))
	}
	r.left.Store(int32(len(r.batches)))
	var ctx context.Context
	ctx, r.cancel = context.WithDeadline(r.p.life, deadline)
	if r.span = r.publishSpan(); r.span != nil {
		ctx = ports.ContextWithTrace(ctx, r.span.Trace())
	}
	for _, o := range bad {
		r.settle(o, ports.AppendResult{Base: -1, Err: o.lastErr})
	}
	if len(wire) == 0 {
		return
	}
	if err := r.p.transport.Append(ctx, wire, func(i int, result ports.AppendResult) { r.settle(sent[i], result) }); err != nil {
		for _, o := range sent {
			r.settle(o, ports.AppendResult{Base: -1, Err: err})
		}
	}
}

// split puts the batches whose delivery deadline is near into a request of their
// own, which goes first: its context ends with the earliest of them, and the others shall
// have their full RequestTimeout.
func (r *request) split() []*request {
	near := r.started.Add(min(r.p.cfg.RequestTimeout, r.p.cfg.DeliveryTimeout) / 2)
	hurried := 0
	for _, o := range r.batches {
		if o.deadline().Before(near) {
			hurried++
		}
	}
	if hurried == 0 || hurried == len(r.batches) {
		return []*request{r}
	}
	first, second := &request{p: r.p, started: r.started}, &request{p: r.p, started: r.started}
	for _, o := range r.batches {
		if o.deadline().Before(near) {
			first.add(o)
		} else {
			second.add(o)
		}
	}
	return []*request{first, second}
}

func (r *request) settle(o *outgoing, result ports.AppendResult) {
	charge := o.charge
	if r.span != nil && result.Err != nil {
		r.note(result.Err)
	}
	o.part.settle(o, result)
	r.p.dispatcher.settled(charge)
	if r.left.Add(-1) == 0 {
		r.cancel()
		r.endSpan()
		r.p.dispatcher.done(r)
	}
}

// encode makes the bytes that all attempts send, in memory of their size or in
// that of the records. If the codec fails, encoded stays nil and lastErr says why.
func (o *outgoing) encode() {
	if o.encoded != nil {
		if mutant.On(mutantRetryUnnumbered) {
			batch.SetProducer(o.encoded, batch.NoProducer)
		}
		return
	}
	o.part.p.buffers.borrow(func(s *scratch) {
		held, inPieces := o.builder.Cap(), o.builder.InPieces()
		if inPieces {
			o.builder.Gather(slices.Grow(s.records[:0], o.builder.Len()), o.part.p.buffers.put)
			s.records = o.builder.Buffer()
		}
		encoded, err := o.builder.Encode(s.encoded[:0], o.part.p.cfg.Codec, o.producer())
		s.encoded = encoded
		switch {
		case err == nil:
			o.keep(encoded, held, inPieces)
		case inPieces:
			o.builder.Gather(o.part.p.buffers.take(o.builder.Len()), func([]byte) {}) // s is not o's
			o.lastErr = err
		default:
			o.lastErr = err
		}
	})
}

// keep copies the encoded batch into a buffer of its size, or into the one that
// its records are in if that is all that o has and no larger. The rest of the held bytes is
// given back.
func (o *outgoing) keep(encoded []byte, held int, inPieces bool) {
	p, records := o.part.p, o.builder.Buffer()
	into := records[:0] // never longer than the records were
	if inPieces || held > cap(records) || bufferClass(len(encoded)) < bufferClass(cap(records)) {
		into = p.buffers.fit(len(encoded))
		if !inPieces { // else the pieces are back, and records is a scratch's
			o.builder.Release(p.buffers.put)
		}
	}
	o.encoded = append(into, encoded...)
	o.builder.Reset(nil)
	saved := int64(held - cap(o.encoded))
	o.charge -= saved
	p.budget.release(saved)
}

// producer is what o's header says of its sender.
func (o *outgoing) producer() batch.Producer {
	if !o.sequenced {
		return batch.NoProducer
	}
	return batch.Producer{ID: o.session.ID, Epoch: o.session.Epoch, Sequence: o.sequence}
}
