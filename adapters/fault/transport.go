package fault

import (
	"bytes"
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
// back. Close is not intercepted.
func NewTransport(t ports.Transport, f Interceptor) ports.Transport {
	return &transport{t, f}
}

type transport struct {
	ports.Transport
	intercept Interceptor
}

func (t *transport) Append(ctx context.Context, batches []ports.Batch, settle func(int, ports.AppendResult)) error {
	s := &settlement{settle: settle, settled: make([]bool, len(batches))}
	batches = copies(batches)
	subject := ""
	if len(batches) > 0 {
		subject = partition(batches[0].PartitionKey)
	}
	_, err := intercept(ctx, t.intercept, Call{Transport, "Append", subject, true}, nil, func(ctx context.Context) (nothing, error) {
		err := t.Transport.Append(ctx, batches, s.add)
		s.taken = s.taken || err == nil
		return nothing{}, err
	})
	if !s.taken {
		return err
	}
	s.release(err)
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

// settlement holds results back until the interceptor has returned, and passes
// the first of each batch on.
type settlement struct {
	settle func(int, ports.AppendResult)
	taken  bool // Append's goroutine only

	mu       sync.Mutex
	released bool
	held     []result
	settled  []bool
}

type result struct {
	i int
	r ports.AppendResult
}

func (s *settlement) add(i int, r ports.AppendResult) {
	s.mu.Lock()
	if !s.released {
		s.held = append(s.held, result{i, r})
		s.mu.Unlock()
		return
	}
	first := s.first(i)
	s.mu.Unlock()
	if first {
		s.settle(i, r)
	}
}

// first reports whether i has no result yet, and notes that it has now. The
// caller holds mu.
func (s *settlement) first(i int) bool {
	first := !s.settled[i]
	s.settled[i] = true
	return first
}

// release passes held results on, or settles every batch with lost.
func (s *settlement) release(lost error) {
	s.mu.Lock()
	s.released = true
	if lost != nil {
		s.held = s.held[:0]
		for i := range s.settled {
			s.held = append(s.held, result{i, ports.AppendResult{Err: lost}})
		}
	}
	s.held = slices.DeleteFunc(s.held, func(h result) bool { return !s.first(h.i) })
	s.mu.Unlock()
	for _, h := range s.held {
		s.settle(h.i, h.r)
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
