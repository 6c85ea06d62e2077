package fault

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// NewMetadata wraps store. ClusterID, Subscribe and Close are not intercepted.
func NewMetadata(store ports.MetadataStore, f Interceptor) ports.MetadataStore {
	return &metadata{MetadataStore: store, intercept: f}
}

type metadata struct {
	ports.MetadataStore
	intercept Interceptor
}

func change(method, subject string) Call {
	return Call{Port: Metadata, Method: method, Subject: subject, Effect: true}
}

func query(method, subject string) Call {
	return Call{Port: Metadata, Method: method, Subject: subject}
}

func (m *metadata) CreateTopic(ctx context.Context, spec domain.TopicSpec) (domain.Topic, error) {
	return intercept(ctx, m.intercept, change("CreateTopic", spec.Name), nil, func(ctx context.Context) (domain.Topic, error) {
		return m.MetadataStore.CreateTopic(ctx, spec)
	})
}

func (m *metadata) Topic(ctx context.Context, name string) (domain.Topic, error) {
	return intercept(ctx, m.intercept, query("Topic", name), nil, func(ctx context.Context) (domain.Topic, error) {
		return m.MetadataStore.Topic(ctx, name)
	})
}

func (m *metadata) ListTopics(ctx context.Context) ([]domain.Topic, error) {
	return intercept(ctx, m.intercept, query("ListTopics", ""), nil, func(ctx context.Context) ([]domain.Topic, error) {
		return m.MetadataStore.ListTopics(ctx)
	})
}

func (m *metadata) DescribePartitions(ctx context.Context, id domain.TopicID) ([]domain.PartitionState, error) {
	return intercept(ctx, m.intercept, query("DescribePartitions", id.String()), nil, func(ctx context.Context) ([]domain.PartitionState, error) {
		return m.MetadataStore.DescribePartitions(ctx, id)
	})
}

func (m *metadata) DeleteTopic(ctx context.Context, id domain.TopicID) error {
	_, err := intercept(ctx, m.intercept, change("DeleteTopic", id.String()), nil, func(ctx context.Context) (nothing, error) {
		return nothing{}, m.MetadataStore.DeleteTopic(ctx, id)
	})
	return err
}

func (m *metadata) WidenTopic(ctx context.Context, id domain.TopicID, partitions int32) (domain.Topic, error) {
	return intercept(ctx, m.intercept, change("WidenTopic", fmt.Sprintf("%s to %d", id, partitions)), nil, func(ctx context.Context) (domain.Topic, error) {
		return m.MetadataStore.WidenTopic(ctx, id, partitions)
	})
}

func (m *metadata) SetRetention(ctx context.Context, id domain.TopicID, r domain.Retention) (domain.Topic, error) {
	return intercept(ctx, m.intercept, change("SetRetention", id.String()), nil, func(ctx context.Context) (domain.Topic, error) {
		return m.MetadataStore.SetRetention(ctx, id, r)
	})
}

func (m *metadata) Reserve(ctx context.Context, n int) ([]ports.SegmentRef, error) {
	return intercept(ctx, m.intercept, change("Reserve", strconv.Itoa(n)), nil, func(ctx context.Context) ([]ports.SegmentRef, error) {
		return m.MetadataStore.Reserve(ctx, n)
	})
}

func (m *metadata) Commit(ctx context.Context, segments []commit.Segment) ([]ports.CommitResult, error) {
	subject := ""
	for i, s := range segments {
		if i > 0 {
			subject += " "
		}
		subject += s.ID.String()
	}
	detach := func() {
		segments = slices.Clone(segments)
		for i := range segments {
			segments[i].Batches = slices.Clone(segments[i].Batches)
		}
	}
	return intercept(ctx, m.intercept, change("Commit", subject), detach, func(ctx context.Context) ([]ports.CommitResult, error) {
		return m.MetadataStore.Commit(ctx, segments)
	})
}

func (m *metadata) Plan(ctx context.Context, requests []ports.PlanRequest) ([]ports.Plan, error) {
	subject := ""
	if len(requests) > 0 {
		subject = partition(requests[0].PartitionKey) + " from " + strconv.FormatInt(int64(requests[0].From), 10)
	}
	detach := func() { requests = slices.Clone(requests) }
	return intercept(ctx, m.intercept, query("Plan", subject), detach, func(ctx context.Context) ([]ports.Plan, error) {
		return m.MetadataStore.Plan(ctx, requests)
	})
}

// found is the answer of ExtentAt.
type found struct {
	extent ports.ExtentRef
	found  bool
}

func (m *metadata) ExtentAt(ctx context.Context, key commit.PartitionKey, timestamp int64) (ports.ExtentRef, bool, error) {
	f, err := intercept(ctx, m.intercept, query("ExtentAt", partition(key)), nil, func(ctx context.Context) (found, error) {
		e, ok, err := m.MetadataStore.ExtentAt(ctx, key, timestamp)
		return found{e, ok}, err
	})
	return f.extent, f.found, err
}

func (m *metadata) Trim(ctx context.Context, key commit.PartitionKey, to domain.Offset) (domain.Offset, error) {
	return intercept(ctx, m.intercept, change("Trim", partition(key)), nil, func(ctx context.Context) (domain.Offset, error) {
		return m.MetadataStore.Trim(ctx, key, to)
	})
}

func (m *metadata) RegisterProducer(ctx context.Context, name string) (ports.ProducerSession, error) {
	return intercept(ctx, m.intercept, change("RegisterProducer", name), nil, func(ctx context.Context) (ports.ProducerSession, error) {
		return m.MetadataStore.RegisterProducer(ctx, name)
	})
}

func (m *metadata) AbandonBatch(ctx context.Context, b ports.AbandonedBatch) (commit.Outcome, error) {
	subject := fmt.Sprintf("%s sequence %d", partition(b.PartitionKey), b.FirstSequence)
	return intercept(ctx, m.intercept, change("AbandonBatch", subject), nil, func(ctx context.Context) (commit.Outcome, error) {
		return m.MetadataStore.AbandonBatch(ctx, b)
	})
}

func (m *metadata) Retain(ctx context.Context, key commit.PartitionKey, limit int) (ports.Removed, error) {
	return intercept(ctx, m.intercept, change("Retain", partition(key)), nil, func(ctx context.Context) (ports.Removed, error) {
		return m.MetadataStore.Retain(ctx, key, limit)
	})
}

func (m *metadata) PurgeTopics(ctx context.Context, limit int) (ports.Removed, error) {
	return intercept(ctx, m.intercept, change("PurgeTopics", ""), nil, func(ctx context.Context) (ports.Removed, error) {
		return m.MetadataStore.PurgeTopics(ctx, limit)
	})
}

func (m *metadata) ExpireReservations(ctx context.Context, grace time.Duration, limit int) (int, error) {
	return intercept(ctx, m.intercept, change("ExpireReservations", ""), nil, func(ctx context.Context) (int, error) {
		return m.MetadataStore.ExpireReservations(ctx, grace, limit)
	})
}

func (m *metadata) Garbage(ctx context.Context, grace time.Duration, after domain.SegmentID, limit int) ([]ports.SegmentRef, error) {
	return intercept(ctx, m.intercept, query("Garbage", after.String()), nil, func(ctx context.Context) ([]ports.SegmentRef, error) {
		return m.MetadataStore.Garbage(ctx, grace, after, limit)
	})
}

func (m *metadata) MarkDeleted(ctx context.Context, ids []domain.SegmentID) error {
	detach := func() { ids = slices.Clone(ids) }
	_, err := intercept(ctx, m.intercept, change("MarkDeleted", strconv.Itoa(len(ids))), detach, func(ctx context.Context) (nothing, error) {
		return nothing{}, m.MetadataStore.MarkDeleted(ctx, ids)
	})
	return err
}

func (m *metadata) ForgetDeleted(ctx context.Context, age time.Duration, limit int) (int, error) {
	return intercept(ctx, m.intercept, change("ForgetDeleted", ""), nil, func(ctx context.Context) (int, error) {
		return m.MetadataStore.ForgetDeleted(ctx, age, limit)
	})
}

func (m *metadata) Replace(ctx context.Context, c commit.Compaction) (int, error) {
	detach := func() {
		c.Copies = slices.Clone(c.Copies)
		for i := range c.Copies {
			c.Copies[i].Of = slices.Clone(c.Copies[i].Of)
		}
	}
	return intercept(ctx, m.intercept, change("Replace", c.ID.String()), detach, func(ctx context.Context) (int, error) {
		return m.MetadataStore.Replace(ctx, c)
	})
}

func (m *metadata) Extents(ctx context.Context, after ports.ExtentPlace, limit int) ([]ports.ExtentRef, error) {
	return intercept(ctx, m.intercept, query("Extents", partition(after.PartitionKey)), nil, func(ctx context.Context) ([]ports.ExtentRef, error) {
		return m.MetadataStore.Extents(ctx, after, limit)
	})
}

func (m *metadata) Segments(ctx context.Context, after domain.SegmentID, limit int) ([]ports.SegmentRow, error) {
	return intercept(ctx, m.intercept, query("Segments", after.String()), nil, func(ctx context.Context) ([]ports.SegmentRow, error) {
		return m.MetadataStore.Segments(ctx, after, limit)
	})
}

func (m *metadata) RetentionDue(ctx context.Context, after commit.PartitionKey, limit int) ([]commit.PartitionKey, error) {
	return intercept(ctx, m.intercept, query("RetentionDue", partition(after)), nil, func(ctx context.Context) ([]commit.PartitionKey, error) {
		return m.MetadataStore.RetentionDue(ctx, after, limit)
	})
}

func (m *metadata) SegmentsByID(ctx context.Context, ids []domain.SegmentID) ([]ports.SegmentRow, error) {
	detach := func() { ids = slices.Clone(ids) }
	return intercept(ctx, m.intercept, query("SegmentsByID", strconv.Itoa(len(ids))), detach, func(ctx context.Context) ([]ports.SegmentRow, error) {
		return m.MetadataStore.SegmentsByID(ctx, ids)
	})
}

func partition(k commit.PartitionKey) string { return fmt.Sprintf("%s/%d", k.Topic, k.Partition) }
