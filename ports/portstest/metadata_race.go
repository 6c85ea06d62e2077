package portstest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

var raceCases = []metadataCase{
	{"racing commits get dense offsets without overlap", racingCommits},
	{"racing commits of one segment get one answer", racingReplays},
	{"racing copies of one batch are stored once", racingCopies},
	{"racing sessions of one name get epochs of their own", racingSessions},
	{"racing creations of one topic make one", racingCreations},
	{"a topic deleted under racing commits leaves no record behind", racingDelete},
	{"a reader sees growing, gapless logs under racing commits", racingReader},
	{"segments reserved at once differ", racingReserves},
	{"commits over many partitions in any order do not stop each other", racingOrders},
}

const racers = 8

// race runs f in racers goroutines, and waits for them.
func race(f func(i int)) {
	var group sync.WaitGroup
	for i := range racers {
		group.Go(func() { f(i) })
	}
	group.Wait()
}

// try reserves a segment for the batches and commits it, from any goroutine. It
// repeats what failed without an effect.
func (m *metadataUnderTest) try(batches ...commit.Batch) []commit.Outcome {
	refs, err := again(func() ([]ports.SegmentRef, error) { return m.Reserve(m.Context(), 1) })
	if err != nil {
		m.Errorf("reserve: %v", err)
		return nil
	}
	return m.tryCommit(segmentOf(refs[0].ID, batches...))
}

func (m *metadataUnderTest) tryCommit(seg commit.Segment) []commit.Outcome {
	results, err := again(func() ([]ports.CommitResult, error) {
		return m.Commit(m.Context(), []commit.Segment{seg})
	})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		m.Errorf("commit: %v", err)
		return nil
	}
	return results[0].Outcomes
}

// again repeats f while it fails transiently, as every caller of a store does.
func again[T any](f func() (T, error)) (T, error) {
	for range 100 {
		v, err := f()
		if err == nil || ports.KindOf(err) != ports.Transient || errors.Is(err, context.Canceled) {
			return v, err
		}
	}
	return f()
}

func racingCommits(m *metadataUnderTest) {
	t := m.topic("orders", 2)
	var mu sync.Mutex
	got := make(map[commit.PartitionKey][]run)
	race(func(i int) {
		for n := range 5 {
			batches := []commit.Batch{plain(at(t, 0), int32(i+1)), plain(at(t, 1), int32(n+1))}
			for j, o := range m.try(batches...) {
				key := batches[j].Key()
				mu.Lock()
				got[key] = append(got[key], run{o.Base, o.Base + domain.Offset(batches[j].Records) - 1})
				mu.Unlock()
			}
		}
	})
	for key, all := range got {
		slices.SortFunc(all, func(a, b run) int { return cmp.Compare(a.base, b.base) })
		m.extents(key, all...)
		next := domain.Offset(0)
		for _, r := range all {
			if r.base != next {
				m.Fatalf("offsets %v are not dense", all)
			}
			next = r.last + 1
		}
		m.bounds(key, 0, next)
	}
}

func racingReplays(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	seg := m.segment(sequenced(s, key, 0, 3), plain(key, 2))
	var answers [racers][]commit.Outcome
	race(func(i int) { answers[i] = m.tryCommit(seg) })
	for _, a := range answers {
		m.outcomes(a, accepted(0), accepted(3))
	}
	m.bounds(key, 0, 5)
}

func racingCopies(m *metadataUnderTest) {
	key := m.partition("orders")
	s := m.session("")
	var answers [racers][]commit.Outcome
	race(func(i int) { answers[i] = m.try(sequenced(s, key, 0, 3)) })
	count := make(map[commit.Outcome]int)
	for _, a := range answers {
		if len(a) == 1 {
			count[a[0]]++
		}
	}
	if count[accepted(0)] != 1 || count[duplicate(0)] != racers-1 {
		m.Fatalf("copies were answered %v", count)
	}
	m.bounds(key, 0, 3)
}

func racingSessions(m *metadataUnderTest) {
	var sessions [racers]ports.ProducerSession
	race(func(i int) {
		s, err := again(func() (ports.ProducerSession, error) { return m.RegisterProducer(m.Context(), "billing") })
		if err != nil {
			m.Errorf("register: %v", err)
		}
		sessions[i] = s
	})
	slices.SortFunc(sessions[:], func(a, b ports.ProducerSession) int { return cmp.Compare(a.Epoch, b.Epoch) })
	for i, s := range sessions {
		if s.ID != sessions[0].ID || s.Epoch != domain.Epoch(i) {
			m.Fatalf("sessions are %v", sessions)
		}
	}
}

func racingCreations(m *metadataUnderTest) {
	var topics [racers]domain.Topic
	race(func(i int) {
		t, err := again(func() (domain.Topic, error) {
			return m.CreateTopic(m.Context(), domain.TopicSpec{Name: "orders", Partitions: int32(i + 1)})
		})
		if err != nil && !errors.Is(err, domain.ErrTopicExists) {
			m.Errorf("create: %v", err)
		}
		topics[i] = t
	})
	made := slices.DeleteFunc(topics[:], func(t domain.Topic) bool { return t.Name == "" })
	if len(made) != 1 {
		m.Fatalf("%d topics of one name were made", len(made))
	}
	found, err := m.Topic(m.Context(), "orders")
	m.ok(err)
	m.sameTopic(found, made[0])
}

func racingDelete(m *metadataUnderTest) {
	key := m.partition("orders")
	race(func(i int) {
		if i == 0 {
			if _, err := again(func() (int, error) { return 0, m.DeleteTopic(m.Context(), key.Topic) }); err != nil {
				m.Errorf("delete: %v", err)
			}
			return
		}
		for range 5 {
			for _, o := range m.try(plain(key, 1)) {
				if o.Status != commit.Accepted && o.Status != commit.NoPartition {
					m.Errorf("batch was answered %v", o)
				}
			}
		}
	})
	m.unknown(key.Topic)
	m.outcomes(m.append(plain(key, 1)), refused(commit.NoPartition))
}

func racingReader(m *metadataUnderTest) {
	key := m.partition("orders")
	var high domain.Offset
	race(func(i int) {
		for range 10 {
			if i > 0 {
				m.try(plain(key, 1), plain(key, 1))
				continue
			}
			plans, err := again(func() ([]ports.Plan, error) {
				return m.Plan(m.Context(), []ports.PlanRequest{{PartitionKey: key, MaxBytes: 1 << 30}})
			})
			if err != nil {
				m.Errorf("plan: %v", err)
				return
			}
			high = m.grown(plans[0], high)
		}
	})
	m.bounds(key, 0, 20*(racers-1))
}

// grown checks a plan from 0 against an earlier high watermark.
func (m *metadataUnderTest) grown(p ports.Plan, before domain.Offset) domain.Offset {
	next := domain.Offset(0)
	for _, e := range p.Extents {
		if e.Base != next {
			m.Errorf("plan %v has a gap", runs(p.Extents))
		}
		next = e.Last + 1
	}
	if p.Err != nil || next != p.HighWatermark || next < before {
		m.Errorf("plan %v with high watermark %d after %d: %v", runs(p.Extents), p.HighWatermark, before, p.Err)
	}
	return next
}

func racingReserves(m *metadataUnderTest) {
	var mu sync.Mutex
	seen := make(map[domain.SegmentID]bool)
	race(func(int) {
		refs, err := again(func() ([]ports.SegmentRef, error) { return m.Reserve(m.Context(), 50) })
		if err != nil {
			m.Errorf("reserve: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, r := range refs {
			seen[r.ID] = true
		}
	})
	if len(seen) != 50*racers {
		m.Fatalf("%d ids were given out for %d segments", len(seen), 50*racers)
	}
}

func racingOrders(m *metadataUnderTest) {
	t := m.topic("orders", racers)
	race(func(i int) {
		for range 5 {
			var batches []commit.Batch
			for p := range racers {
				batches = append(batches, plain(at(t, domain.PartitionID((p+i)%racers)), 1))
			}
			m.try(batches...)
		}
	})
	for p := range domain.PartitionID(racers) {
		m.bounds(at(t, p), 0, 5*racers)
	}
}
