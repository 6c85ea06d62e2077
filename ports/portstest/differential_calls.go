package portstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// calls are what a command can do; each returns the answer without the error.
// Those that come more often are drawn more often.
var calls = []struct {
	name string
	run  func(s *side, ctx context.Context, c command) (any, error)
}{
	{"create", (*side).create},
	{"commit", (*side).commit},
	{"register", (*side).register},
	{"commit", (*side).commit},
	{"reserve", (*side).reserve},
	{"commit", (*side).commit},
	{"plan", (*side).plan},
	{"commit", (*side).commit},
	{"trim", (*side).trim},
	{"replace", (*side).replace},
	{"commit", (*side).commit},
	{"abandon", (*side).abandon},
	{"extent", (*side).extent},
	{"widen", (*side).widen},
	{"describe", (*side).describe},
	{"replace", (*side).replace},
	{"commit", (*side).commit},
	{"find", (*side).find},
	{"retention", (*side).retention},
	{"retain", (*side).retain},
	{"delete", (*side).remove},
	{"purge", (*side).purge},
	{"expire", (*side).expire},
	{"collect", (*side).collect},
	{"forget", (*side).forget},
	{"inspect", (*side).inspect},
	{"wait", (*side).wait},
}

func (s *side) create(ctx context.Context, c command) (any, error) {
	t, err := s.CreateTopic(ctx, domain.TopicSpec{
		Name: fmt.Sprintf("topic-%d", c.A%5), Partitions: int32(c.B % 5),
		Retention: domain.Retention{Age: time.Duration(c.C-1) * time.Hour, Bytes: int64(c.C) * 20},
	})
	if err == nil {
		s.name(t.ID.String(), fmt.Sprintf("topic %d", len(s.topics)))
		s.topics = append(s.topics, t.ID)
	}
	return t, err
}

func (s *side) register(ctx context.Context, c command) (any, error) {
	p, err := s.RegisterProducer(ctx, []string{"", "billing", "", "shipping", "no/good"}[c.A%5])
	if err == nil {
		s.sessions = append(s.sessions, p)
	}
	return p, err
}

func (s *side) reserve(ctx context.Context, c command) (any, error) {
	refs, err := s.Reserve(ctx, c.A%5)
	for _, r := range refs {
		s.name(r.Key, fmt.Sprintf("key %d", len(s.segments)))
		s.name(r.ID.String(), fmt.Sprintf("segment %d", len(s.segments)))
		s.segments = append(s.segments, r)
	}
	return refs, err
}

func (s *side) commit(ctx context.Context, c command) (any, error) {
	segments := make([]commit.Segment, len(c.Segments))
	for i, d := range c.Segments {
		id, err := s.segment(ctx, d.Which)
		if err != nil {
			return nil, err
		}
		segments[i] = commit.Segment{ID: id, Size: int64(c.A), CRC32C: uint32(c.B)}
		at := int64(64)
		for _, b := range d.Batches {
			batch := s.batch(b)
			at += int64(b.Gap / 4 * 10)
			batch.Position, batch.Length, batch.MaxTimestamp = at, int32(10*b.Records), int64(b.Gap*10+b.Records)
			at += int64(batch.Length)
			segments[i].Batches = append(segments[i].Batches, batch)
		}
	}
	results, err := s.Commit(ctx, segments)
	return describeResults(results), err
}

func (s *side) segment(ctx context.Context, which int) (domain.SegmentID, error) {
	switch {
	case which == 0 && s.used > 0:
		return s.segments[s.used-1].ID, nil
	case which == 1:
		return last(s.segments, 9).ID, nil
	}
	if s.used == len(s.segments) {
		if _, err := s.reserve(ctx, command{A: 4}); err != nil {
			return domain.SegmentID{}, err
		}
	}
	s.used++
	return s.segments[s.used-1].ID, nil
}

// batch is mostly the next of its session and partition; else an earlier one
// again, one too many, one of an older or newer epoch, or one without a session.
func (s *side) batch(d batchDraw) commit.Batch {
	p := ports.ProducerSession{ID: commit.NoProducer}
	if d.Session > 0 {
		p = last(s.sessions, d.Session-1)
	}
	b := commit.Batch{
		Topic: last(s.topics, d.Topic), Partition: domain.PartitionID(d.Partition),
		Producer: p.ID, Epoch: p.Epoch, Records: int32(d.Records),
	}
	switch d.EpochBack {
	case 1:
		b.Epoch--
	case 2:
		b.Epoch++
	}
	stream := fmt.Sprint(b.Stream(), b.Epoch)
	b.FirstSequence = s.sent[stream]
	switch d.SequenceBack {
	case 1, 2:
		b.FirstSequence = max(0, b.FirstSequence-domain.Sequence(d.Records))
	case 3:
		b.FirstSequence++
	default:
		s.sent[stream] = b.FirstSequence + domain.Sequence(d.Records)
	}
	return b
}

func describeResults(results []ports.CommitResult) string {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintln(&b, r.Outcomes, r.Outcomes == nil, describeError(r.Err))
	}
	return b.String()
}

func (s *side) plan(ctx context.Context, c command) (any, error) {
	var requests []ports.PlanRequest
	for i := range c.C % 5 {
		key := s.key(command{A: c.A + i, B: c.B + i})
		requests = append(requests, ports.PlanRequest{PartitionKey: key, From: domain.Offset(c.B + i - 1), MaxBytes: int64(c.C * 5 * (i % 3)), MaxExtents: (c.A + i) % 4})
	}
	plans, err := s.Plan(ctx, requests)
	var b strings.Builder
	for _, p := range plans {
		fmt.Fprintln(&b, p.LogStart, p.HighWatermark, fmt.Sprintf("%+v", p.Extents), describeError(p.Err))
	}
	return b.String(), err
}

func (s *side) trim(ctx context.Context, c command) (any, error) {
	return s.Trim(ctx, s.key(c), domain.Offset(c.C-1))
}

func (s *side) abandon(ctx context.Context, c command) (any, error) {
	b := s.batch(batchDraw{Topic: c.A % 2, Partition: c.B % 3, Session: 1 + c.C%3, EpochBack: c.B, SequenceBack: c.A, Records: 1 + c.C%3})
	return s.AbandonBatch(ctx, ports.AbandonedBatch{StreamKey: b.Stream(), Epoch: b.Epoch, FirstSequence: b.FirstSequence, Records: b.Records})
}

func (s *side) extent(ctx context.Context, c command) (any, error) {
	e, found, err := s.ExtentAt(ctx, s.key(c), int64(c.C*5))
	return fmt.Sprintf("%+v %v", e, found), err
}

func (s *side) widen(ctx context.Context, c command) (any, error) {
	return s.WidenTopic(ctx, last(s.topics, c.A%4), int32(c.B))
}

func (s *side) describe(ctx context.Context, c command) (any, error) {
	return s.DescribePartitions(ctx, last(s.topics, c.A%4))
}

func (s *side) find(ctx context.Context, c command) (any, error) {
	t, err := s.Topic(ctx, fmt.Sprintf("topic-%d", c.A%5))
	all, listed := s.ListTopics(ctx)
	return fmt.Sprintf("%+v %+v", t, all), errors.Join(err, listed)
}

func (s *side) retention(ctx context.Context, c command) (any, error) {
	return s.SetRetention(ctx, last(s.topics, c.A%4), domain.Retention{Age: time.Duration(c.B-1) * time.Hour, Bytes: int64(c.C-1) * 15})
}

// remove spares a topic more often than not, so that there is something in it.
func (s *side) remove(ctx context.Context, c command) (any, error) {
	if c.B > 1 {
		return nil, nil
	}
	return nil, s.DeleteTopic(ctx, last(s.topics, c.A%4))
}

// wait lets time pass for both stores, and so does nothing here.
func (s *side) wait(context.Context, command) (any, error) { return nil, nil }

// describeError says what a caller can tell of err.
func describeError(err error) string {
	if err == nil {
		return "ok"
	}
	text := ports.KindOf(err).String()
	for _, known := range []error{
		domain.ErrTopicNotFound, domain.ErrTopicExists, domain.ErrInvalidPartition, domain.ErrInvalidName,
		domain.ErrConfig, domain.ErrOutOfRange, domain.ErrMetadata, domain.ErrClosed,
	} {
		if errors.Is(err, known) {
			text += ", " + known.Error()
		}
	}
	var (
		partition *domain.InvalidPartitionError
		bounds    *domain.OutOfRangeError
		config    *domain.ConfigError
		missing   *domain.TopicNotFoundError
	)
	if errors.As(err, &partition) || errors.As(err, &bounds) || errors.As(err, &config) || errors.As(err, &missing) {
		text += ": " + err.Error()
	}
	return text
}

// The steps of upkeep may take what is due in any order, so each is repeated
// until nothing is due.

func (s *side) retain(ctx context.Context, c command) (any, error) {
	return s.Retain(ctx, s.key(c), c.C)
}

func (s *side) purge(ctx context.Context, c command) (any, error) {
	var sum ports.Removed
	for more := true; more; {
		r, err := s.PurgeTopics(ctx, c.A)
		if err != nil {
			return nil, err
		}
		sum.Extents, sum.Bytes, more = sum.Extents+r.Extents, sum.Bytes+r.Bytes, r.More
	}
	return sum, nil
}

// untilNone repeats a step that takes up to its limit until it takes none.
func untilNone(step func() (int, error)) (sum int, err error) {
	for n := 1; n > 0 && err == nil; {
		n, err = step()
		sum += n
	}
	return sum, err
}

func (s *side) expire(ctx context.Context, c command) (any, error) {
	return untilNone(func() (int, error) { return s.ExpireReservations(ctx, time.Duration(c.B)*time.Hour, c.A) })
}

func (s *side) forget(ctx context.Context, c command) (any, error) {
	return untilNone(func() (int, error) { return s.ForgetDeleted(ctx, time.Duration(c.B)*time.Hour, c.A) })
}

// collect lists the garbage in pages and marks some of it deleted.
func (s *side) collect(ctx context.Context, c command) (any, error) {
	var found []int
	for after := (domain.SegmentID{}); ; {
		page, err := s.Garbage(ctx, time.Duration(c.B)*30*time.Minute, after, c.A)
		if err != nil {
			return nil, err
		}
		for _, r := range page {
			found, after = append(found, slices.Index(s.segments, r)), r.ID
		}
		if len(page) < c.A {
			break
		}
	}
	slices.Sort(found)
	var ids []domain.SegmentID
	for i, n := range found {
		if i%3 != c.C%4 {
			ids = append(ids, s.segments[n].ID)
		}
	}
	ids = append(ids, last(s.segments, c.C).ID) // in whatever state
	return found, s.MarkDeleted(ctx, ids)
}

// replace puts what a plan finds into a segment of its own, or does again what
// an earlier call did, with the same segment or with another.
func (s *side) replace(ctx context.Context, c command) (any, error) {
	if len(s.compactions) > 0 && c.A < 5 {
		again := last(s.compactions, c.B%len(s.compactions))
		if c.A%2 > 0 {
			return s.Replace(ctx, again)
		}
		id, err := s.segment(ctx, 9)
		if err != nil {
			return nil, err
		}
		again.ID = id
		return s.Replace(ctx, again)
	}
	id, err := s.segment(ctx, c.C) // 0 and 1: one that may have been committed
	if err != nil {
		return nil, err
	}
	made, err := s.compaction(ctx, id, c)
	if err != nil {
		return nil, err
	}
	s.compactions = append(s.compactions, made)
	if c.A > 7 {
		return nil, nil // only later, when things have changed
	}
	return s.Replace(ctx, made)
}

// compaction copies some of what two topics hold.
func (s *side) compaction(ctx context.Context, id domain.SegmentID, c command) (commit.Compaction, error) {
	made := commit.Compaction{ID: id, Size: 64, CRC32C: uint32(c.B)}
	for t := range 2 {
		for p := range domain.PartitionID(3) {
			key := commit.PartitionKey{Topic: last(s.topics, t), Partition: p}
			bounds, err := s.Plan(ctx, []ports.PlanRequest{{PartitionKey: key}})
			if err != nil {
				return made, err
			}
			plans, err := s.Plan(ctx, []ports.PlanRequest{{PartitionKey: key, From: bounds[0].LogStart, MaxBytes: 1 << 40}})
			if err != nil {
				return made, err
			}
			all := plans[0].Extents
			if all = all[min(c.B%3, len(all)):]; len(all) > 0 {
				cp := copyOf(made.Size, all[:1+(c.B+c.C)%len(all)]...)
				made.Copies, made.Size = append(made.Copies, cp), made.Size+cp.Extent(id).Length
			}
		}
	}
	return made, nil
}

// inspect reads all pages, and rows by id.
func (s *side) inspect(ctx context.Context, c command) (any, error) {
	extents, err := everyExtent(ctx, s, c.A)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, e := range extents {
		lines = append(lines, s.shared(fmt.Sprintf("%+v", e)))
	}
	due, err := s.retentionDue(ctx, c.A)
	if err != nil {
		return nil, err
	}
	lines = append(lines, due...)
	var ids []domain.SegmentID
	for i, r := range s.segments {
		if i%4 != c.B%4 {
			ids = append(ids, r.ID)
		}
	}
	byID, err := s.SegmentsByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	all, err := everySegment(ctx, s, c.A)
	if err != nil {
		return nil, err
	}
	for _, r := range append(byID, all...) {
		lines = append(lines, s.shared(fmt.Sprintf("%+v", described(r))))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

// retentionDue reads all pages.
func (s *side) retentionDue(ctx context.Context, limit int) (lines []string, err error) {
	for after := ports.FirstPartition; ; {
		page, err := s.RetentionDue(ctx, after, limit)
		if err != nil {
			return nil, err
		}
		for _, key := range page {
			lines, after = append(lines, s.shared(fmt.Sprintf("due %+v", key))), key
		}
		if len(page) < limit {
			return lines, nil
		}
	}
}
