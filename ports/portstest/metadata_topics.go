package portstest

import (
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

var topicCases = []metadataCase{
	{"a created topic is found as it was created", createdTopicIsFound},
	{"a new topic's partitions are empty", newPartitionsAreEmpty},
	{"a name is taken once", nameIsTakenOnce},
	{"names that could mislead are refused", badNamesAreRefused},
	{"names at the limits are accepted", oddNamesAreAccepted},
	{"names differ by case", namesDifferByCase},
	{"partition counts out of bounds are refused", badPartitionCountsAreRefused},
	{"negative retention is refused and changes nothing", badRetentionIsRefused},
	{"retention is kept to the nanosecond and the byte", retentionIsKept},
	{"a missing topic is not found, by its name", missingTopicIsNotFound},
	{"topics are listed by name", topicsAreListedByName},
	{"an empty store lists no topics", emptyStoreListsNothing},
	{"a deleted topic is gone", deletedTopicIsGone},
	{"a topic created again has a new id and is empty", recreatedTopicIsAnother},
	{"batches for a deleted topic are refused, also after its name is taken again", oldTopicIDIsRefused},
	{"deleting one topic leaves the others", deletingLeavesOthers},
	{"widening adds empty partitions and keeps the old ones", wideningKeepsRecords},
	{"widening to the present count changes nothing", wideningToSameCount},
	{"narrowing is refused", narrowingIsRefused},
	{"a topic may have ten thousand partitions", manyPartitionsOfTopic},
	{"calls on an unknown topic id are refused", unknownTopicIDIsRefused},
}

func createdTopicIsFound(m *metadataUnderTest) {
	spec := domain.TopicSpec{Name: "orders", Partitions: 3, Retention: domain.Retention{Age: time.Hour, Bytes: 1 << 40}}
	created, err := m.CreateTopic(m.Context(), spec)
	m.ok(err)
	if domain.UUID(created.ID).IsZero() || created.CreatedAt.IsZero() {
		m.Fatalf("topic lacks its id or time: %+v", created)
	}
	want := domain.Topic{ID: created.ID, Name: "orders", Partitions: 3, Retention: spec.Retention, CreatedAt: created.CreatedAt}
	m.sameTopic(created, want)
	found, err := m.Topic(m.Context(), "orders")
	m.ok(err)
	m.sameTopic(found, want)
}

func newPartitionsAreEmpty(m *metadataUnderTest) {
	t := m.topic("orders", 3)
	states, err := m.DescribePartitions(m.Context(), t.ID)
	m.ok(err)
	if want := []domain.PartitionState{{Partition: 0}, {Partition: 1}, {Partition: 2}}; !slices.Equal(states, want) {
		m.Fatalf("partitions are %+v, want %+v", states, want)
	}
	m.extents(at(t, 2))
}

func nameIsTakenOnce(m *metadataUnderTest) {
	first := m.topic("orders", 1)
	_, err := m.CreateTopic(m.Context(), domain.TopicSpec{Name: "orders", Partitions: 5})
	m.is(err, domain.ErrTopicExists)
	m.definite(err)
	if e := (*domain.TopicExistsError)(nil); !errors.As(err, &e) || e.Topic != "orders" {
		m.Fatalf("error %v does not name the topic", err)
	}
	found, err := m.Topic(m.Context(), "orders")
	m.ok(err)
	m.sameTopic(found, first)
}

func badNamesAreRefused(m *metadataUnderTest) {
	bad := []string{
		"", ".", "..", strings.Repeat("a", 250), "/", "../x", "%2e%2e", "a\x00b", "a\nb", "a b", "\xff\xfe",
		"naïve", "a/b", `a\b`, "a:b", "a'b", "a;b", "a%b", "a*b",
	}
	for _, name := range bad {
		_, err := m.CreateTopic(m.Context(), domain.TopicSpec{Name: name, Partitions: 1})
		m.is(err, domain.ErrInvalidName)
		m.definite(err)
		if _, err = m.Topic(m.Context(), name); err == nil {
			m.Fatalf("topic %q exists", name)
		}
	}
	emptyStoreListsNothing(m)
}

func oddNamesAreAccepted(m *metadataUnderTest) {
	for _, name := range []string{"a", "...", "-", "_", "a.b_c-9", "0", "NULL", "null", strings.Repeat("z", 249)} {
		if t := m.topic(name, 1); t.Name != name {
			m.Fatalf("topic %q is called %q", name, t.Name)
		}
	}
}

func namesDifferByCase(m *metadataUnderTest) {
	lower, upper := m.topic("orders", 1), m.topic("Orders", 2)
	if lower.ID == upper.ID {
		m.Fatal("two topics have one id")
	}
	found, err := m.Topic(m.Context(), "Orders")
	m.ok(err)
	m.sameTopic(found, upper)
	_, err = m.Topic(m.Context(), "ORDERS")
	m.is(err, domain.ErrTopicNotFound)
}

func badPartitionCountsAreRefused(m *metadataUnderTest) {
	for _, n := range []int32{0, -1, math.MinInt32, domain.MaxPartitions + 1, math.MaxInt32} {
		_, err := m.CreateTopic(m.Context(), domain.TopicSpec{Name: "orders", Partitions: n})
		m.is(err, domain.ErrConfig)
		m.definite(err)
	}
	emptyStoreListsNothing(m)
}

func badRetentionIsRefused(m *metadataUnderTest) {
	for _, r := range []domain.Retention{{Age: -1}, {Bytes: -1}} {
		_, err := m.CreateTopic(m.Context(), domain.TopicSpec{Name: "new", Partitions: 1, Retention: r})
		m.is(err, domain.ErrConfig)
	}
	t := m.topic("orders", 1)
	for _, r := range []domain.Retention{{Age: -1}, {Bytes: -1}} {
		_, err := m.SetRetention(m.Context(), t.ID, r)
		m.is(err, domain.ErrConfig)
		m.definite(err)
	}
	found, err := m.Topic(m.Context(), "orders")
	m.ok(err)
	m.sameTopic(found, t)
}

func retentionIsKept(m *metadataUnderTest) {
	t := m.topic("orders", 1)
	for _, r := range []domain.Retention{{Age: 36*time.Hour + 1, Bytes: math.MaxInt64}, {Age: math.MaxInt64}, {}} {
		want := t
		want.Retention = r
		got, err := m.SetRetention(m.Context(), t.ID, r)
		m.ok(err)
		m.sameTopic(got, want)
		got, err = m.Topic(m.Context(), "orders")
		m.ok(err)
		m.sameTopic(got, want)
	}
}

func missingTopicIsNotFound(m *metadataUnderTest) {
	m.topic("orders", 1)
	_, err := m.Topic(m.Context(), "order")
	m.is(err, domain.ErrTopicNotFound)
	m.definite(err)
	if e := (*domain.TopicNotFoundError)(nil); !errors.As(err, &e) || e.Topic != "order" {
		m.Fatalf("error %v does not name the topic", err)
	}
}

func topicsAreListedByName(m *metadataUnderTest) {
	for _, name := range []string{"b", "a-1", "B", "a.1", "a", "_", "0"} {
		m.topic(name, 1)
	}
	all, err := m.ListTopics(m.Context())
	m.ok(err)
	var names []string
	for _, t := range all {
		names = append(names, t.Name)
		found, err := m.Topic(m.Context(), t.Name)
		m.ok(err)
		m.sameTopic(t, found)
	}
	if want := []string{"0", "B", "_", "a", "a-1", "a.1", "b"}; !slices.Equal(names, want) {
		m.Fatalf("topics are listed as %q, want %q", names, want)
	}
}

func emptyStoreListsNothing(m *metadataUnderTest) {
	m.Helper()
	all, err := m.ListTopics(m.Context())
	m.ok(err)
	if len(all) != 0 {
		m.Fatalf("there are topics: %+v", all)
	}
}

func deletedTopicIsGone(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	m.append(plain(at(t, 0), 3))
	m.delete(t.ID)
	_, err := m.Topic(m.Context(), "orders")
	m.is(err, domain.ErrTopicNotFound)
	emptyStoreListsNothing(m)
	m.unknown(t.ID)
}

func recreatedTopicIsAnother(m *metadataUnderTest) {
	old := m.topic("orders", 2)
	m.append(plain(at(old, 0), 3))
	m.delete(old.ID)
	again := m.topic("orders", 1)
	if again.ID == old.ID {
		m.Fatal("the deleted topic's id is used again")
	}
	m.bounds(at(again, 0), 0, 0)
	m.extents(at(again, 0))
	m.unknown(old.ID)
}

func oldTopicIDIsRefused(m *metadataUnderTest) {
	old := m.topic("orders", 1)
	s := m.session("")
	m.outcomes(m.append(sequenced(s, at(old, 0), 0, 1)), accepted(0))
	m.delete(old.ID)
	late := []commit.Batch{plain(at(old, 0), 1), sequenced(s, at(old, 0), 1, 1), sequenced(s, at(old, 0), 0, 1)}
	none := refused(commit.NoPartition)
	m.outcomes(m.append(late...), none, none, none)

	again := m.topic("orders", 1)
	m.outcomes(m.append(append(late, sequenced(s, at(again, 0), 0, 1))...), none, none, none, accepted(0))
	m.bounds(at(again, 0), 0, 1)
}

func deletingLeavesOthers(m *metadataUnderTest) {
	keep, drop := m.topic("keep", 1), m.topic("drop", 1)
	s := m.session("")
	m.append(sequenced(s, at(keep, 0), 0, 2), sequenced(s, at(drop, 0), 0, 3))
	m.delete(drop.ID)
	m.extents(at(keep, 0), run{0, 1})
	m.outcomes(m.append(sequenced(s, at(keep, 0), 0, 2), sequenced(s, at(keep, 0), 2, 1)), duplicate(0), accepted(2))
}

func wideningKeepsRecords(m *metadataUnderTest) {
	t := m.topic("orders", 1)
	m.append(plain(at(t, 0), 2))
	m.outcomes(m.append(plain(at(t, 1), 1)), refused(commit.NoPartition))
	want := t
	want.Partitions = 3
	wide, err := m.WidenTopic(m.Context(), t.ID, 3)
	m.ok(err)
	m.sameTopic(wide, want)
	found, err := m.Topic(m.Context(), "orders")
	m.ok(err)
	m.sameTopic(found, want)
	m.bounds(at(t, 0), 0, 2)
	m.bounds(at(t, 2), 0, 0)
	m.outcomes(m.append(plain(at(t, 0), 1), plain(at(t, 2), 1)), accepted(2), accepted(0))
}

func wideningToSameCount(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	m.append(plain(at(t, 1), 2))
	same, err := m.WidenTopic(m.Context(), t.ID, 2)
	m.ok(err)
	m.sameTopic(same, t)
	m.bounds(at(t, 1), 0, 2)
}

func narrowingIsRefused(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	for _, n := range []int32{1, 0, -1, domain.MaxPartitions + 1} {
		_, err := m.WidenTopic(m.Context(), t.ID, n)
		m.is(err, domain.ErrConfig)
		m.definite(err)
		if e := (*domain.ConfigError)(nil); !errors.As(err, &e) {
			m.Fatalf("error is %T, want a *domain.ConfigError", err)
		}
	}
	found, err := m.Topic(m.Context(), "orders")
	m.ok(err)
	m.sameTopic(found, t)
}

func manyPartitionsOfTopic(m *metadataUnderTest) {
	const many = 10_000
	t := m.topic("orders", 1)
	t, err := m.WidenTopic(m.Context(), t.ID, many)
	m.ok(err)
	m.outcomes(m.append(plain(at(t, many-1), 1), plain(at(t, many), 1)), accepted(0), refused(commit.NoPartition))
	states, err := m.DescribePartitions(m.Context(), t.ID)
	m.ok(err)
	if len(states) != many || states[many-1].HighWatermark != 1 {
		m.Fatalf("%d partitions are described", len(states))
	}
	m.delete(t.ID)
	m.unknown(t.ID)
}

func unknownTopicIDIsRefused(m *metadataUnderTest) {
	m.topic("orders", 1)
	m.unknown(domain.TopicID{})
	m.unknown(domain.TopicID{1, 2, 3})
}

// unknown demands that every call says that there is no topic id.
func (m *metadataUnderTest) unknown(id domain.TopicID) {
	m.Helper()
	_, describe := m.DescribePartitions(m.Context(), id)
	_, widen := m.WidenTopic(m.Context(), id, 10)
	_, retain := m.SetRetention(m.Context(), id, domain.Retention{})
	key := commit.PartitionKey{Topic: id}
	_, trim := m.Trim(m.Context(), key, 0)
	_, _, extentAt := m.ExtentAt(m.Context(), key, 0)
	for _, err := range []error{describe, m.DeleteTopic(m.Context(), id), widen, retain, trim, extentAt} {
		m.is(err, domain.ErrTopicNotFound)
		m.definite(err)
	}
}

func (m *metadataUnderTest) sameTopic(got, want domain.Topic) {
	m.Helper()
	if !got.CreatedAt.Equal(want.CreatedAt) {
		m.Fatalf("topic was created at %s, want %s", got.CreatedAt, want.CreatedAt)
	}
	got.CreatedAt = want.CreatedAt
	if got != want {
		m.Fatalf("topic is %+v, want %+v", got, want)
	}
}
