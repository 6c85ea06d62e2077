package fault

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// NewTransport wraps t. A lost answer of Append settles its batches with the
// error, whatever becomes of them; an answer that lingers holds their settlement
// back; a repeated call settles them when both calls have. Close is not intercepted.
func NewTransport(t ports.Transport, f Interceptor) ports.Transport {
	return &transport{t, f}
}

type transport struct {
	ports.Transport
	intercept Interceptor
}

func (t *transport) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	s := &settlement{settle: settle, batches: make([]answers, len(batches))}
	batches = copies(batches)
	subject := ""
	if len(batches) > 0 {
		subject = partition(batches[0].PartitionKey)
	}
	_, err := intercept(ctx, t.intercept, Call{Transport, "Append", subject, true}, nil, func(ctx context.Context) (nothing, error) {
		err := t.Transport.Append(ctx, batches, s.add)
		if err == nil {
			s.taken()
		}
		return nothing{}, err
	})
	if !s.release(err) {
		return err
	}
	return nil
}

// copies makes the decorator the owner of the bytes, since it may settle a
// batch that the transport still works on.
func copies(batches []ports.Batch) []ports.Batch {
	batches = slices.Clone(batches)
	for i := range batches {
		batches[i].Bytes = bytes.Clone(batches[i].Bytes)
	}
	return batches
}

// settlement holds results back until the interceptor has returned, and gives
// each batch one answer for all the Appends that took it over.
type settlement struct {
	settle func(int, ports.AppendResult)

	mu       sync.Mutex
	appends  int // that took the batches over
	released bool
	refused  bool  // the caller was told that nothing was taken over: nothing may be settled
	lost     error // settles every batch, whatever its results
	batches  []answers
}

// answers are the results of one batch so far.
type answers struct {
	results []ports.AppendResult
	settled bool
}

func (s *settlement) taken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appends++
}

func (s *settlement) add(i int, r ports.AppendResult) {
	s.mu.Lock()
	s.batches[i].results = append(s.batches[i].results, r)
	deliver := s.due(i)
	s.mu.Unlock()
	deliver()
}

// release lets results through, and reports whether there are or will be any.
func (s *settlement) release(lost error) bool {
	var deliver []func()
	s.mu.Lock()
	s.released, s.lost = true, lost
	taken := s.appends > 0
	s.refused = !taken
	for i := range s.batches {
		deliver = append(deliver, s.due(i))
	}
	s.mu.Unlock()
	for _, f := range deliver {
		f()
	}
	return taken
}

// due returns what settles batch i if that can be done now. The caller holds mu.
func (s *settlement) due(i int) func() {
	b := &s.batches[i]
	if !s.released || s.refused || b.settled || s.lost == nil && len(b.results) < s.appends {
		return func() {}
	}
	b.settled = true
	r := ports.AppendResult{Base: -1, Err: s.lost}
	if s.lost == nil {
		r = slices.MaxFunc(b.results, func(a, b ports.AppendResult) int { return cmp.Compare(weight(a), weight(b)) })
	}
	return func() { s.settle(i, r) }
}

// weight orders the results that several Appends of one batch gave: one that
// stored it decides, else one that may have.
func weight(r ports.AppendResult) int {
	switch domain.FateOf(r.Err).Stored {
	case domain.StoredYes:
		return 2
	case domain.StoredUnknown:
		return 1
	default:
		return 0
	}
}

// NewFetcher wraps fetcher.
func NewFetcher(fetcher ports.Fetcher, f Interceptor) ports.Fetcher {
	return &fetching{fetcher, f}
}

type fetching struct {
	fetcher   ports.Fetcher
	intercept Interceptor
}

func (w *fetching) Fetch(ctx context.Context, r ports.FetchRequest) ([]ports.FetchedPartition, error) {
	subject := ""
	if len(r.Partitions) > 0 {
		subject = partition(r.Partitions[0].PartitionKey)
	}
	return intercept(ctx, w.intercept, Call{Fetcher, "Fetch", subject, false}, nil, func(ctx context.Context) ([]ports.FetchedPartition, error) {
		return w.fetcher.Fetch(ctx, r)
	})
}

func (w *fetching) OffsetAt(ctx context.Context, key commit.PartitionKey, at time.Time) (domain.Offset, error) {
	return intercept(ctx, w.intercept, Call{Fetcher, "OffsetAt", partition(key), false}, nil, func(ctx context.Context) (domain.Offset, error) {
		return w.fetcher.OffsetAt(ctx, key, at)
	})
}
