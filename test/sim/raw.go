package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/streamhouse/streamhouse/adapters/direct"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// raw is a client that numbers its batches itself, on one partition. It knows
// what each of them must be answered.
type raw struct {
	world     *world
	plan      rawPlan
	name      string
	random    *rand.Rand
	process   *process
	transport *direct.Writer
	topic     domain.Topic
	key       commit.PartitionKey

	generation int
	session    ports.ProducerSession
	sessionID  string
	next       domain.Sequence
	stored     []*rawBatch // of this session, oldest first
	made       int
	over       bool // the topic is gone
}

// rawBatch is one batch and what its records are called.
type rawBatch struct {
	bytes []byte
	ids   []string
	first domain.Sequence
	base  domain.Offset
	doubt bool // an attempt may have stored it
}

func (b *rawBatch) records() int32 { return int32(len(b.ids)) }

func (r *raw) run() {
	defer func() {
		r.world.awaitHeal()
		ctx, cancel := context.WithTimeout(context.Background(), settleBound)
		defer cancel()
		if err := r.transport.Close(ctx); err != nil {
			r.world.violate("%s: close transport: %v", r.name, err)
		}
	}()
	r.topic = r.world.topic(r.world.plan.topics[0].name).topic
	r.key = commit.PartitionKey{Topic: r.topic.ID, Partition: domain.PartitionID(r.random.Int32N(r.topic.Partitions))}
	if !r.open() {
		return
	}
	for range r.plan.batches {
		if !r.process.step("raw") || r.over {
			return
		}
		r.act()
	}
}

func (r *raw) start() error {
	r.process = r.world.newProcess(r.name, false)
	cfg := direct.DefaultConfig()
	cfg.Seed = r.world.plan.Seed + 1
	var err error
	r.transport, err = direct.NewWriter(r.process.metadata, r.process.segments, ports.NoTelemetry{}, cfg)
	return err
}

// retry makes a call until it is answered, and reports whether it was.
func (r *raw) retry(call func(context.Context) error) bool {
	for range 60 {
		ctx, cancel := context.WithTimeout(r.process.ctx, 10*time.Second)
		err := call(ctx)
		cancel()
		if err == nil {
			return true
		}
		time.Sleep(time.Second)
	}
	return false
}

// open begins a new session: of the same name, if the client has one.
func (r *raw) open() bool {
	ok := r.retry(func(ctx context.Context) (err error) {
		r.session, err = r.process.metadata.RegisterProducer(ctx, r.plan.producer)
		return err
	})
	if !ok {
		return false
	}
	r.generation++
	r.sessionID = fmt.Sprintf("%s.%d", r.name, r.generation)
	r.next, r.stored = 0, nil
	r.world.observe(r.process, history.Event{Kind: history.Open, Session: r.sessionID, Name: r.plan.producer})
	if r.generation == 1 {
		r.world.observe(r.process, history.Event{Kind: history.Open, Session: r.name + ".plain", Weak: true})
	}
	return !r.plan.wrap || r.skipToWrap()
}

// skipToWrap spends all sequences but the last few, without faults: what is on
// its way since 2^31 records ago could not be told from what comes now. A batch is never
// larger than half of them, or an earlier one could not be told from a later.
func (r *raw) skipToWrap() bool {
	const quarter = 1 << 29
	for _, n := range []int32{quarter, quarter, quarter, quarter - 1 - int32(r.random.IntN(12))} {
		if !r.skipBy(r.world.metadata, n) {
			return false
		}
	}
	return true
}

// skip abandons n sequences that are never sent.
func (r *raw) skip(n int32) bool { return r.skipBy(r.process.metadata, n) }

func (r *raw) skipBy(store ports.Producers, n int32) bool {
	var o commit.Outcome
	ok := r.retry(func(ctx context.Context) (err error) {
		o, err = store.AbandonBatch(ctx, ports.AbandonedBatch{
			StreamKey: commit.StreamKey{Producer: r.session.ID, PartitionKey: r.key},
			Epoch:     r.session.Epoch, FirstSequence: r.next, Records: n,
		})
		return err
	})
	if !ok {
		r.over = true
		return false
	}
	switch o.Status {
	case commit.Accepted:
		r.next = r.next.Add(n)
	case commit.NoPartition, commit.Fenced, commit.UnknownProducer:
		r.over = true
	default:
		r.world.violate("%s abandoned sequences never sent, and was answered %v", r.sessionID, o)
	}
	return !r.over
}

func (r *raw) act() {
	switch r.random.IntN(12) {
	case 0, 1, 2:
		r.pipeline()
	case 3:
		r.gap()
	case 4:
		r.outdate()
	case 5:
		r.corrupt()
	case 6:
		r.mixed()
	case 7:
		r.skip(1 + r.random.Int32N(3))
	case 8:
		r.abandonStored()
	default:
		r.repeat()
	}
}

// make makes a batch of 1 to 3 records and notes that it is being sent.
func (r *raw) make(session string, p batch.Producer) *rawBatch {
	b := &rawBatch{first: p.Sequence, base: -1}
	var builder batch.Builder
	for range 1 + r.random.IntN(3) {
		r.made++
		id := fmt.Sprintf("%s-%d", session, r.made)
		record := newRecord(r.random, id, r.topic.Name)
		record.Partition = domain.ToPartition(r.key.Partition)
		if record.Timestamp.IsZero() {
			record.Timestamp = time.UnixMilli(time.Now().UnixMilli())
		}
		builder.Append(record.Timestamp.UnixMilli(), record.Key, record.Value, record.Headers)
		b.ids = append(b.ids, id)
		r.world.sending(r.process, session, id, record)
	}
	var err error
	if b.bytes, err = builder.Encode(nil, nil, p); err != nil {
		r.world.violate("%s: encode: %v", session, err)
	}
	return b
}

func (r *raw) numbered(s domain.Sequence) batch.Producer {
	return batch.Producer{ID: r.session.ID, Epoch: r.session.Epoch, Sequence: s}
}

// fresh makes the next batch of the session.
func (r *raw) fresh() *rawBatch {
	b := r.make(r.sessionID, r.numbered(r.next))
	r.next = r.next.Add(b.records())
	return b
}

// try appends batches once, together, and returns their answers.
func (r *raw) try(batches ...*rawBatch) []error {
	ctx, cancel := context.WithTimeout(r.process.ctx, 10*time.Second)
	defer cancel()
	wire, errs := make([]ports.Batch, len(batches)), make([]error, len(batches))
	for i, b := range batches {
		wire[i] = ports.Batch{PartitionKey: r.key, Bytes: b.bytes}
	}
	type answer struct {
		i int
		ports.AppendResult
	}
	answers := make(chan answer, len(batches))
	if err := r.transport.Append(ctx, wire, func(i int, a ports.AppendResult) { answers <- answer{i, a} }); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	seen := make([]bool, len(batches))
	for range batches {
		a := <-answers
		if seen[a.i] {
			r.world.violate("%s: batch settled twice", r.sessionID)
		}
		seen[a.i] = true
		errs[a.i] = a.Err
		if a.Err == nil {
			batches[a.i].base = a.Base
			r.report(batches[a.i], history.Ack)
		}
		batches[a.i].doubt = batches[a.i].doubt || a.Err != nil && domain.FateOf(a.Err).Stored == domain.StoredUnknown
	}
	return errs
}

// report notes how the sending of b ended.
func (r *raw) report(b *rawBatch, kind history.Kind) {
	for i, id := range b.ids {
		e := history.Event{Kind: kind, ID: id}
		if kind == history.Ack {
			e.Partition, e.Offset = int32(r.key.Partition), int64(b.base)+int64(i)
		}
		r.world.observe(r.process, e)
	}
}

// replaced reports whether err may be due to the end of the client's session: to
// a registration of its own that arrived late, after it had made another, or to a day
// without use.
func (r *raw) replaced(err error) bool {
	late := errors.Is(err, domain.ErrFenced) && r.plan.producer != "" && !r.world.quiet()
	return late || errors.Is(err, domain.ErrSessionExpired) && r.world.plan.rates.day > 0
}

// unclear reports whether the answer says nothing about b but that a store or
// the network failed.
func unclear(err error) bool {
	var failed *ports.Error
	return errors.As(err, &failed) && failed.Kind != ports.Definite
}

// settle sends b until the answer is clear. False ends the client's work.
func (r *raw) settle(b *rawBatch, err error) bool {
	for tries := 0; err != nil; tries++ {
		if !unclear(err) && !errors.Is(err, domain.ErrOutOfOrder) || tries == 60 {
			r.failed(b, err)
			return false
		}
		time.Sleep(time.Second)
		err = r.try(b)[0]
	}
	r.stored = append(r.stored, b)
	return true
}

// failed notes the last answer about b, which ends the client's work on this
// topic.
func (r *raw) failed(b *rawBatch, err error) {
	r.over = true
	deleted := r.world.topic(r.topic.Name).deletions > 0
	switch {
	case errors.Is(err, domain.ErrTopicNotFound) && deleted:
		if !b.doubt {
			r.report(b, history.Fail)
		}
	case unclear(err) && !r.world.quiet(), r.replaced(err):
	default:
		r.world.violate("%s: a batch in order was answered %v", r.sessionID, err)
	}
}

// pipeline sends up to a window of batches without waiting, by one Append or
// several, and then sees to it that each is stored.
func (r *raw) pipeline() {
	batches := make([]*rawBatch, 1+r.random.IntN(sequence.Window))
	for i := range batches {
		batches[i] = r.fresh()
	}
	errs := r.try(batches...)
	for i, b := range batches {
		if !r.settle(b, errs[i]) {
			return
		}
	}
}

// repeat sends a stored batch again. The newest five keep their offsets, what
// lies before them is known to be stored.
func (r *raw) repeat() {
	if len(r.stored) == 0 {
		r.pipeline()
		return
	}
	back := 1 + r.random.IntN(min(len(r.stored), sequence.Window+2))
	b := r.stored[len(r.stored)-back]
	first := b.base
	err := r.try(b)[0]
	switch {
	case unclear(err) && !r.world.quiet():
	case errors.Is(err, domain.ErrTopicNotFound), r.replaced(err):
		r.over = true
	case back <= sequence.Window && (err != nil || b.base != first):
		r.world.violate("%s: batch %d back, stored at %d, was answered %d, %v", r.sessionID, back, first, b.base, err)
	case back > sequence.Window && !errors.Is(err, domain.ErrOffsetUnknown):
		r.world.violate("%s: batch %d back, beyond the window, was answered %d, %v", r.sessionID, back, b.base, err)
	}
	b.base = first
}

// refuse demands that b is refused with want.
func (r *raw) refuse(b *rawBatch, err, want error) {
	switch {
	case unclear(err) && !r.world.quiet():
		return
	case errors.Is(err, domain.ErrTopicNotFound), !errors.Is(err, want) && r.replaced(err):
		r.over = true
	case !errors.Is(err, want):
		r.world.violate("%s: a batch that must be refused with %q was answered %d, %v", r.sessionID, want, b.base, err)
		return
	}
	if !b.doubt {
		r.report(b, history.Fail)
	}
}

// gap leaves sequences out.
func (r *raw) gap() {
	b := r.make(r.sessionID, r.numbered(r.next.Add(1000)))
	r.refuse(b, r.try(b)[0], domain.ErrOutOfOrder)
}

// outdate opens the next session, and then sends with the one before.
func (r *raw) outdate() {
	if r.plan.producer == "" {
		r.pipeline()
		return
	}
	old, id := r.numbered(r.next), r.sessionID
	if !r.open() {
		r.over = true
		return
	}
	b := r.make(id, old)
	r.refuse(b, r.try(b)[0], domain.ErrFenced)
}

// corrupt changes a bit that the checksum covers, or a field that it does not.
func (r *raw) corrupt() {
	b := r.make(r.sessionID, r.numbered(r.next))
	at := r.random.IntN(len(b.bytes))
	b.bytes[at] ^= 1 << r.random.IntN(8)
	r.refuse(b, r.try(b)[0], domain.ErrCorrupt)
}

// mixed puts a batch that is refused between two that are not, in one segment.
func (r *raw) mixed() {
	plain := r.name + ".plain"
	before := r.make(plain, batch.NoProducer)
	gap := r.make(r.sessionID, r.numbered(r.next.Add(1000)))
	after := r.make(plain, batch.NoProducer)
	errs := r.try(before, gap, after)
	r.refuse(gap, errs[1], domain.ErrOutOfOrder)
	for _, err := range []error{errs[0], errs[2]} {
		if err != nil && !unclear(err) && !errors.Is(err, domain.ErrTopicNotFound) {
			r.world.violate("%s: an unnumbered batch was answered %v", plain, err)
		}
	}
}

// abandonStored gives up a batch that is stored: the answer says where.
func (r *raw) abandonStored() {
	if len(r.stored) == 0 {
		return
	}
	b := r.stored[len(r.stored)-1]
	var o commit.Outcome
	ok := r.retry(func(ctx context.Context) (err error) {
		o, err = r.process.metadata.AbandonBatch(ctx, ports.AbandonedBatch{
			StreamKey: commit.StreamKey{Producer: r.session.ID, PartitionKey: r.key},
			Epoch:     r.session.Epoch, FirstSequence: b.first, Records: b.records(),
		})
		return err
	})
	if !ok || o.Status == commit.NoPartition || o.Status == commit.Fenced || o.Status == commit.UnknownProducer {
		r.over = true
		return
	}
	if o.Status != commit.Duplicate || o.Base != b.base {
		r.world.violate("%s: the abandonment of a batch stored at %d was answered %v", r.sessionID, b.base, o)
	}
}
