package janitor

import (
	"context"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// within makes one call of a store, which gets so long and no longer: one that
// hangs must not end the work of a janitor.
func within[T any](ctx context.Context, d time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return call(ctx)
}

type nothing struct{}

// boundedStore bounds the time of each call that a janitor makes.
type boundedStore struct {
	ports.SegmentStore
	most time.Duration
}

func (s boundedStore) Put(ctx context.Context, key string, body []byte) error {
	_, err := within(ctx, s.most, func(ctx context.Context) (nothing, error) {
		return nothing{}, s.SegmentStore.Put(ctx, key, body)
	})
	return err
}

func (s boundedStore) ReadRange(ctx context.Context, key string, position, length int64) ([]byte, error) {
	return within(ctx, s.most, func(ctx context.Context) ([]byte, error) {
		return s.SegmentStore.ReadRange(ctx, key, position, length)
	})
}

func (s boundedStore) ReadUpTo(ctx context.Context, key string, position, length int64) ([]byte, error) {
	return within(ctx, s.most, func(ctx context.Context) ([]byte, error) {
		return s.SegmentStore.ReadUpTo(ctx, key, position, length)
	})
}

func (s boundedStore) Delete(ctx context.Context, key string) error {
	_, err := within(ctx, s.most, func(ctx context.Context) (nothing, error) {
		return nothing{}, s.SegmentStore.Delete(ctx, key)
	})
	return err
}

func (s boundedStore) List(ctx context.Context, after string, limit int) ([]ports.ObjectInfo, error) {
	return within(ctx, s.most, func(ctx context.Context) ([]ports.ObjectInfo, error) {
		return s.SegmentStore.List(ctx, after, limit)
	})
}

// boundedMetadata bounds the time of each call that a janitor makes.
type boundedMetadata struct {
	ports.MetadataStore
	most time.Duration
}

func (m boundedMetadata) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	return within(ctx, m.most, m.MetadataStore.ListTopics)
}

func (m boundedMetadata) DescribePartitions(ctx context.Context, id domain.TopicID) ([]domain.PartitionState, error) {
	return within(ctx, m.most, func(ctx context.Context) ([]domain.PartitionState, error) {
		return m.MetadataStore.DescribePartitions(ctx, id)
	})
}

func (m boundedMetadata) Reserve(ctx context.Context, n int) ([]ports.SegmentRef, error) {
	return within(ctx, m.most, func(ctx context.Context) ([]ports.SegmentRef, error) { return m.MetadataStore.Reserve(ctx, n) })
}

func (m boundedMetadata) Plan(ctx context.Context, requests []ports.PlanRequest) ([]ports.Plan, error) {
	return within(ctx, m.most, func(ctx context.Context) ([]ports.Plan, error) { return m.MetadataStore.Plan(ctx, requests) })
}

func (m boundedMetadata) Retain(ctx context.Context, key commit.PartitionKey, limit int) (ports.Removed, error) {
	return within(ctx, m.most, func(ctx context.Context) (ports.Removed, error) { return m.MetadataStore.Retain(ctx, key, limit) })
}

func (m boundedMetadata) PurgeTopics(ctx context.Context, limit int) (ports.Removed, error) {
	return within(ctx, m.most, func(ctx context.Context) (ports.Removed, error) { return m.MetadataStore.PurgeTopics(ctx, limit) })
}

func (m boundedMetadata) ExpireReservations(ctx context.Context, grace time.Duration, limit int) (int, error) {
	return within(ctx, m.most, func(ctx context.Context) (int, error) { return m.MetadataStore.ExpireReservations(ctx, grace, limit) })
}

func (m boundedMetadata) Garbage(ctx context.Context, grace time.Duration, after domain.SegmentID, limit int) ([]ports.SegmentRef, error) {
	return within(ctx, m.most, func(ctx context.Context) ([]ports.SegmentRef, error) {
		return m.MetadataStore.Garbage(ctx, grace, after, limit)
	})
}

func (m boundedMetadata) MarkDeleted(ctx context.Context, ids []domain.SegmentID) error {
	_, err := within(ctx, m.most, func(ctx context.Context) (nothing, error) {
		return nothing{}, m.MetadataStore.MarkDeleted(ctx, ids)
	})
	return err
}

func (m boundedMetadata) ForgetDeleted(ctx context.Context, age time.Duration, limit int) (int, error) {
	return within(ctx, m.most, func(ctx context.Context) (int, error) { return m.MetadataStore.ForgetDeleted(ctx, age, limit) })
}

func (m boundedMetadata) Replace(ctx context.Context, c commit.Compaction) (int, error) {
	return within(ctx, m.most, func(ctx context.Context) (int, error) { return m.MetadataStore.Replace(ctx, c) })
}

func (m boundedMetadata) Extents(ctx context.Context, after ports.ExtentPlace, limit int) ([]ports.ExtentRef, error) {
	return within(ctx, m.most, func(ctx context.Context) ([]ports.ExtentRef, error) {
		return m.MetadataStore.Extents(ctx, after, limit)
	})
}

func (m boundedMetadata) Segments(ctx context.Context, after domain.SegmentID, limit int) ([]ports.SegmentRow, error) {
	return within(ctx, m.most, func(ctx context.Context) ([]ports.SegmentRow, error) {
		return m.MetadataStore.Segments(ctx, after, limit)
	})
}

func (m boundedMetadata) RetentionDue(ctx context.Context, after commit.PartitionKey, limit int) ([]commit.PartitionKey, error) {
	return within(ctx, m.most, func(ctx context.Context) ([]commit.PartitionKey, error) {
		return m.MetadataStore.RetentionDue(ctx, after, limit)
	})
}

func (m boundedMetadata) SegmentsByID(ctx context.Context, ids []domain.SegmentID) ([]ports.SegmentRow, error) {
	return within(ctx, m.most, func(ctx context.Context) ([]ports.SegmentRow, error) { return m.MetadataStore.SegmentsByID(ctx, ids) })
}
