package fault

import (
	"bytes"
	"context"
	"fmt"

	"github.com/streamhouse/streamhouse/ports"
)

// NewSegments wraps store.
func NewSegments(store ports.SegmentStore, f Interceptor) ports.SegmentStore {
	return &segments{store, f}
}

type segments struct {
	store     ports.SegmentStore
	intercept Interceptor
}

func (s *segments) Put(ctx context.Context, key string, body []byte) error {
	detach := func() { body = bytes.Clone(body) }
	_, err := intercept(ctx, s.intercept, Call{Segments, "Put", key, true}, detach, func(ctx context.Context) (nothing, error) {
		return nothing{}, s.store.Put(ctx, key, body)
	})
	return err
}

func (s *segments) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	subject := fmt.Sprintf("%s at %d", key, position)
	return intercept(ctx, s.intercept, Call{Segments, "ReadRange", subject, false}, nil, func(ctx context.Context) ([]byte, error) {
		return s.store.ReadRange(ctx, key, position, length)
	})
}

func (s *segments) ReadUpTo(ctx context.Context, key string, position, length int64) ([]byte, error) {
	subject := fmt.Sprintf("%s at %d", key, position)
	return intercept(ctx, s.intercept, Call{Segments, "ReadUpTo", subject, false}, nil, func(ctx context.Context) ([]byte, error) {
		return s.store.ReadUpTo(ctx, key, position, length)
	})
}

func (s *segments) Stat(ctx context.Context, key string) (ports.ObjectInfo, error) {
	return intercept(ctx, s.intercept, Call{Segments, "Stat", key, false}, nil, func(ctx context.Context) (ports.ObjectInfo, error) {
		return s.store.Stat(ctx, key)
	})
}

func (s *segments) Delete(ctx context.Context, key string) error {
	_, err := intercept(ctx, s.intercept, Call{Segments, "Delete", key, true}, nil, func(ctx context.Context) (nothing, error) {
		return nothing{}, s.store.Delete(ctx, key)
	})
	return err
}

func (s *segments) List(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error) {
	return intercept(ctx, s.intercept, Call{Segments, "List", after, false}, nil, func(ctx context.Context) ([]ports.ObjectInfo, error) {
		return s.store.List(ctx, after, limit)
	})
}
