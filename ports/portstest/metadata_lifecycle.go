package portstest

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var subscribeCases = []metadataCase{
	{"a commit wakes before it returns, or soon after", commitWakes},
	{"every subscriber is woken", everySubscriberWakes},
	{"a cancelled subscriber is not woken", cancelledSubscriberSleeps},
	{"cancel may be called twice", cancelTwice},
	{"a woken reader sees the records", wokenReaderSees},
}

var lifecycleCases = []metadataCase{
	{"the cluster id is set and stays", clusterIDStays},
	{"two stores have two cluster ids", clusterIDsDiffer},
	{"a closed store refuses every call", closedRefuses},
	{"close may be called twice", closeTwice},
	{"a context that is over stops every call", cancelledStops},
	{"a call with a context that was over has no effect if it says so", cancelledHasNoEffect},
}

// wakeUps counts calls and keeps one signal.
type wakeUps struct {
	count  atomic.Int64
	signal chan struct{}
}

func newWakeUps() *wakeUps { return &wakeUps{signal: make(chan struct{}, 1)} }

func (w *wakeUps) wake() {
	w.count.Add(1)
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

func (m *metadataUnderTest) woken(w *wakeUps) {
	m.Helper()
	select {
	case <-w.signal:
	case <-time.After(5 * time.Second):
		m.Fatal("nobody was woken")
	}
}

func commitWakes(m *metadataUnderTest) {
	key := m.partition("orders")
	w := newWakeUps()
	defer m.Subscribe(w.wake)()
	for range 3 {
		m.append(plain(key, 1))
		m.woken(w)
	}
}

func everySubscriberWakes(m *metadataUnderTest) {
	key := m.partition("orders")
	var all [10]*wakeUps
	for i := range all {
		all[i] = newWakeUps()
		defer m.Subscribe(all[i].wake)()
	}
	m.append(plain(key, 1))
	for _, w := range all {
		m.woken(w)
	}
}

func cancelledSubscriberSleeps(m *metadataUnderTest) {
	key := m.partition("orders")
	stays, leaves := newWakeUps(), newWakeUps()
	cancel := m.Subscribe(leaves.wake)
	defer m.Subscribe(stays.wake)()
	m.append(plain(key, 1))
	m.woken(stays)
	cancel()
	before := leaves.count.Load()
	for range 3 {
		m.append(plain(key, 1))
		m.woken(stays)
	}
	if after := leaves.count.Load(); after != before {
		m.Fatalf("a cancelled subscriber was woken %d times", after-before)
	}
}

func cancelTwice(m *metadataUnderTest) {
	cancel := m.Subscribe(func() {})
	cancel()
	cancel()
	m.append(plain(m.partition("orders"), 1))
}

func wokenReaderSees(m *metadataUnderTest) {
	key := m.partition("orders")
	w := newWakeUps()
	defer m.Subscribe(w.wake)()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10 {
			if _, err := m.Commit(m.Context(), []commit.Segment{m.segmentOrEmpty(key)}); err != nil {
				m.Errorf("commit: %v", err)
			}
		}
	}()
	for m.plan(key, 0, 0).HighWatermark < 10 {
		m.woken(w)
	}
	<-done
}

// segmentOrEmpty is for goroutines other than the test's: it does not end the
// test.
func (m *metadataUnderTest) segmentOrEmpty(key commit.PartitionKey) commit.Segment {
	refs, err := m.Reserve(m.Context(), 1)
	if err != nil {
		m.Errorf("reserve: %v", err)
		return commit.Segment{}
	}
	return segmentOf(refs[0].ID, plain(key, 1))
}

func clusterIDStays(m *metadataUnderTest) {
	id := m.ClusterID()
	if domain.UUID(id).IsZero() {
		m.Fatal("the cluster id is zero")
	}
	m.append(plain(m.partition("orders"), 1))
	if m.ClusterID() != id {
		m.Fatal("the cluster id has changed")
	}
}

func clusterIDsDiffer(m *metadataUnderTest) {
	if other := m.suite.open(m.T); other.ClusterID() == m.ClusterID() {
		m.Fatal("two stores have one cluster id")
	}
}

// everyCall makes each call of the port that takes a context once.
func (m *metadataUnderTest) everyCall(ctx context.Context, key commit.PartitionKey, seg commit.Segment, session ports.ProducerSession) map[string]error {
	errs := make(map[string]error)
	_, errs["CreateTopic"] = m.CreateTopic(ctx, domain.TopicSpec{Name: "new", Partitions: 1})
	_, errs["Topic"] = m.Topic(ctx, "orders")
	_, errs["ListTopics"] = m.ListTopics(ctx)
	_, errs["DescribePartitions"] = m.DescribePartitions(ctx, key.Topic)
	_, errs["WidenTopic"] = m.WidenTopic(ctx, key.Topic, 5)
	_, errs["SetRetention"] = m.SetRetention(ctx, key.Topic, domain.Retention{Bytes: 1})
	_, errs["Reserve"] = m.Reserve(ctx, 1)
	_, errs["Commit"] = m.Commit(ctx, []commit.Segment{seg})
	_, errs["Plan"] = m.Plan(ctx, []ports.PlanRequest{{PartitionKey: key}})
	_, _, errs["ExtentAt"] = m.ExtentAt(ctx, key, 0)
	_, errs["Trim"] = m.Trim(ctx, key, 1)
	_, errs["RegisterProducer"] = m.RegisterProducer(ctx, "billing")
	b := sequenced(session, key, 0, 1)
	_, errs["AbandonBatch"] = m.AbandonBatch(ctx, ports.AbandonedBatch{StreamKey: b.Stream(), Epoch: b.Epoch, Records: 1})
	_, errs["Retain"] = m.Retain(ctx, key, 1)
	_, errs["ExpireReservations"] = m.ExpireReservations(ctx, time.Hour, 1)
	_, errs["Garbage"] = m.Garbage(ctx, 0, domain.SegmentID{}, 1)
	errs["MarkDeleted"] = m.MarkDeleted(ctx, []domain.SegmentID{seg.ID})
	_, errs["ForgetDeleted"] = m.ForgetDeleted(ctx, 0, 1)
	gone := commit.Extent{Topic: key.Topic, Last: 1, Length: 1, Batches: 1}
	_, errs["Replace"] = m.Replace(ctx, commit.Compaction{ID: seg.ID, Size: 1, Copies: []commit.Copy{{Of: []commit.Extent{gone}}}})
	_, errs["Extents"] = m.Extents(ctx, ports.FirstExtent, 1)
	_, errs["RetentionDue"] = m.RetentionDue(ctx, ports.FirstPartition, 1)
	_, errs["Segments"] = m.Segments(ctx, domain.SegmentID{}, 1)
	_, errs["SegmentsByID"] = m.SegmentsByID(ctx, []domain.SegmentID{seg.ID})
	errs["DeleteTopic"] = m.DeleteTopic(ctx, key.Topic)
	_, errs["PurgeTopics"] = m.PurgeTopics(ctx, 1)
	return errs
}

func closedRefuses(m *metadataUnderTest) {
	key, session := m.partition("orders"), m.session("billing")
	seg := m.segment(plain(key, 1))
	id := m.ClusterID()
	m.ok(m.Close())
	for call, err := range m.everyCall(m.Context(), key, seg, session) {
		if err == nil {
			m.Fatalf("%s works on a closed store", call)
		}
		m.is(err, domain.ErrClosed)
	}
	m.Subscribe(func() {})()
	if m.ClusterID() != id {
		m.Fatal("the cluster id has changed")
	}
}

func closeTwice(m *metadataUnderTest) {
	m.partition("orders")
	m.ok(m.Close())
	m.ok(m.Close())
}

func cancelledStops(m *metadataUnderTest) {
	key, session := m.partition("orders"), m.session("billing")
	m.append(plain(key, 2))
	seg := m.segment(plain(key, 1))
	for call, err := range m.everyCall(m.cancelled(), key, seg, session) {
		if err == nil {
			m.Fatalf("%s does not obey the end of its context", call)
		}
		m.is(err, context.Canceled)
	}
}

func cancelledHasNoEffect(m *metadataUnderTest) {
	key, session := m.partition("orders"), m.session("billing")
	m.append(plain(key, 2))
	seg := m.segment(plain(key, 1))
	errs := m.everyCall(m.cancelled(), key, seg, session)
	none := func(call string) bool {
		kind := ports.KindOf(errs[call])
		return kind == ports.Definite || kind == ports.Transient
	}
	t, err := m.Topic(m.Context(), "orders")
	if err != nil && none("DeleteTopic") {
		m.Fatalf("the topic is gone: %v", err)
	}
	if t.Partitions != 1 && none("WidenTopic") || t.Retention.Bytes != 0 && none("SetRetention") {
		m.Fatalf("the topic has changed: %+v", t)
	}
	p := m.plan(key, 0, 0)
	if p.HighWatermark != 2 && none("Commit") || p.LogStart != 0 && none("Trim") {
		m.Fatalf("the partition has changed: %+v", p)
	}
	if _, err := m.Topic(m.Context(), "new"); err == nil && none("CreateTopic") {
		m.Fatal("a topic was created")
	}
	if r := m.row(seg.ID); r.State != ports.SegmentPending && none("Replace") {
		m.Fatalf("the segment has changed: %+v", r)
	}
	m.outcomes(m.commit(seg), accepted(2))
	if none("AbandonBatch") && none("RegisterProducer") {
		m.outcomes(m.append(sequenced(session, key, 0, 1)), accepted(3))
	}
}
