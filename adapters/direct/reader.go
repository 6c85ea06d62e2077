package direct

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// Reader fills ports.Fetcher from the two stores. It keeps nothing between
// calls but whose turn it is, and runs no goroutine outside of a call.
type Reader struct {
	log     ports.Log
	store   ports.SegmentStore
	memory  ports.Forgetter // the store, if it keeps bytes; else nil
	tel     ports.Telemetry
	cfg     ReaderConfig
	decoder *batch.Decoder
	turn    atomic.Uint64
}

var _ ports.Fetcher = (*Reader)(nil)

// NewReader makes a Reader on the two stores. It takes a cfg that passes
// Validate. From a store that keeps bytes in memory, see ports.Forgetter, it reads
// once more what it finds damaged.
func NewReader(log ports.Log, store ports.SegmentStore, tel ports.Telemetry, cfg ReaderConfig) *Reader {
	r := &Reader{log: log, store: store, tel: tel, cfg: cfg, decoder: batch.NewDecoder(cfg.Codecs...)}
	r.memory, _ = store.(ports.Forgetter)
	return r
}

// Fetch implements ports.Fetcher. An error of a partition is an answer, too: it
// ends the wait.
func (r *Reader) Fetch(ctx context.Context, req ports.FetchRequest) ([]ports.FetchedPartition, error) {
	if len(req.Partitions) == 0 {
		return nil, ctx.Err()
	}
	start := time.Now()
	f := r.newFetch(req)
	if err := f.plan(ctx); err != nil {
		return nil, err
	}
	if !f.found && req.MaxWait > 0 && req.MaxBytes > 0 {
		if err := f.wait(ctx, start.Add(req.MaxWait)); err != nil {
			return nil, err
		}
	}
	f.read(ctx)
	r.tel.Record(ports.Event{Kind: ports.Fetched, Duration: time.Since(start), Bytes: f.bytes, Count: f.reads, Err: ctx.Err()})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return f.answers, nil
}

// fetch is one call of Fetch.
type fetch struct {
	r   *Reader
	req ports.FetchRequest
	// order is in which order the partitions get their share of MaxBytes.
	order   []int
	answers []ports.FetchedPartition
	extents [][]ports.ExtentRef // to read, by partition
	planned int64               // bytes in extents
	found   bool                // there is something to return
	bytes   int64               // read
	reads   int                 // ranged reads made
}

func (r *Reader) newFetch(req ports.FetchRequest) *fetch {
	n := len(req.Partitions)
	f := &fetch{r: r, req: req, order: make([]int, n)}
	first := int(r.turn.Add(1) % uint64(n))
	for i := range f.order {
		f.order[i] = (first + i) % n
	}
	return f
}

// wait plans again at every wake-up, until there is something to return or the
// deadline has passed.
func (f *fetch) wait(ctx context.Context, deadline time.Time) error {
	wake := make(chan struct{}, 1) // holds the one wake-up that was not looked at
	cancel := f.r.log.Subscribe(func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	defer cancel()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		// What was committed before Subscribe woke nobody.
		if err := f.plan(ctx); err != nil || f.found || !time.Now().Before(deadline) {
			return err
		}
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leastShare is the least that one partition is planned for, in bytes.
const leastShare = 64 << 10

// plan asks for the extents of all partitions and chooses those to read. Each
// partition is asked for its share of MaxBytes; if that leaves much of it over, those that
// have more are asked again.
func (f *fetch) plan(ctx context.Context) error {
	f.answers = make([]ports.FetchedPartition, len(f.order))
	f.extents = make([][]ports.ExtentRef, len(f.order))
	f.planned, f.found = 0, false
	more, err := f.planFor(ctx, f.order)
	if err != nil {
		return err
	}
	if len(more) > 0 && f.planned < f.req.MaxBytes/2 {
		_, err = f.planFor(ctx, more)
	}
	return err
}

// planFor plans for the partitions of the given indexes, behind what is planned
// already, and returns those that have more than they were asked for.
func (f *fetch) planFor(ctx context.Context, indexes []int) (more []int, err error) {
	left := max(f.req.MaxBytes-f.planned, 0)
	share := min(left, max(left/int64(len(indexes)), leastShare))
	requests := make([]ports.PlanRequest, len(indexes))
	for i, index := range indexes {
		p := f.req.Partitions[index]
		requests[i] = ports.PlanRequest{PartitionKey: p.PartitionKey, From: f.next(index), MaxBytes: share}
	}
	plans, err := f.r.log.Plan(ctx, requests)
	if err != nil {
		return nil, err
	}
	for i, index := range indexes {
		if f.accept(index, plans[i]) {
			more = append(more, index)
		}
	}
	return more, nil
}

// next is the offset from which on partition index is not planned yet.
func (f *fetch) next(index int) domain.Offset {
	if planned := f.extents[index]; len(planned) > 0 {
		return planned[len(planned)-1].Last + 1
	}
	return f.req.Partitions[index].Offset
}

// accept takes over the plan for one partition, and reports whether it has more.
// It may be the second one of this fetch: what the first one said holds, whatever retention and
// compaction have done since.
func (f *fetch) accept(index int, p ports.Plan) (more bool) {
	a, from, first := &f.answers[index], f.next(index), len(f.extents[index]) == 0
	a.LogStart, a.HighWatermark = p.LogStart, p.HighWatermark
	switch {
	case p.Err != nil:
		a.Err = p.Err
	case from < p.LogStart || from > p.HighWatermark:
		a.Err = &domain.OutOfRangeError{
			Partition: f.req.Partitions[index].Partition, Offset: from, LogStart: p.LogStart, HighWatermark: p.HighWatermark,
		}
	case !first && len(p.Extents) > 0 && p.Extents[0].Base < from && from <= p.Extents[0].Last:
		return false // put together with what is planned already: the next fetch has it
	default:
		if err := checkPlan(p, from, first, f.req.MaxBytes > 0); err != nil {
			f.r.tel.Record(ports.Event{Kind: ports.CorruptionFound, Err: err})
			a.Err = err
		}
	}
	if a.Err != nil {
		f.found = true
		return false
	}
	for _, e := range p.Extents {
		if f.planned > 0 && f.planned+e.Length > f.req.MaxBytes {
			return false
		}
		f.planned += e.Length
		f.extents[index] = append(f.extents[index], e)
		f.found = true
	}
	return f.next(index) < p.HighWatermark
}

// checkPlan finds out whether the extents of p hold the offset from, which is not
// below the log start, and what follows it without a gap. The first may begin before
// from, if first says so. Without the check a reader would wait for ever where metadata
// has lost an extent.
func checkPlan(p ports.Plan, from domain.Offset, first, wanted bool) error {
	next := from
	for i, e := range p.Extents {
		begins := e.Base == next || i == 0 && first && e.Base < next
		if !begins || e.Last < next || e.Position < 0 || e.Length <= 0 {
			return damaged(e, "metadata gives it offsets %d to %d where %d was due, in %d bytes at %d", e.Base, e.Last, next, e.Length, e.Position)
		}
		next = e.Last + 1
	}
	if next > p.HighWatermark || wanted && len(p.Extents) == 0 && next < p.HighWatermark {
		return &domain.CorruptError{What: fmt.Sprintf("metadata has no segment for offset %d, and the high watermark %d", next, p.HighWatermark)}
	}
	return nil
}
