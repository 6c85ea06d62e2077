package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// command is one call, told by small numbers: which topic, segment or session of
// those made so far, and how much.
type command struct {
	Do       int
	A, B, C  int
	Segments []segmentDraw
}

type segmentDraw struct {
	Which   int // 0: the last committed again; 1: any earlier one; else one never used
	Batches []batchDraw
}

type batchDraw struct{ Topic, Partition, Session, EpochBack, SequenceBack, Records, Gap int }

func drawCommands(t *rapid.T) []command {
	small := func(label string, n int) int { return rapid.IntRange(0, n).Draw(t, label) }
	batch := rapid.Custom(func(*rapid.T) batchDraw {
		return batchDraw{
			Topic: small("topic", 1), Partition: small("partition", 3), Session: small("session", 3),
			EpochBack: small("epoch back", 19), SequenceBack: small("sequence back", 9),
			Records: 1 + small("records", 3), Gap: small("gap", 4),
		}
	})
	segment := rapid.Custom(func(t *rapid.T) segmentDraw {
		return segmentDraw{Which: small("which", 9), Batches: rapid.SliceOfN(batch, 1, 6).Draw(t, "batches")}
	})
	one := rapid.Custom(func(t *rapid.T) command {
		c := command{Do: small("do", len(calls)-1), A: small("a", 9), B: small("b", 9), C: small("c", 9)}
		if calls[c.Do].name == "commit" {
			c.Segments = rapid.SliceOfN(segment, 1, 3).Draw(t, "segments")
		}
		return c
	})
	return rapid.SliceOfN(one, 1, 80).Draw(t, "commands")
}

// beginning makes what most commands need.
var beginning = []command{
	{Do: callNamed("create"), A: 0, B: 3, C: 2}, {Do: callNamed("create"), A: 1, B: 4, C: 2},
	{Do: callNamed("register"), A: 0}, {Do: callNamed("register"), A: 1},
}

func callNamed(name string) int {
	for i := range calls {
		if calls[i].name == name {
			return i
		}
	}
	panic(name)
}

// side is one of the two stores and what was made in it, in order.
type side struct {
	ports.MetadataStore
	topics   []domain.TopicID
	segments []ports.SegmentRef
	used     int // how many of segments were in a commit
	sessions []ports.ProducerSession
	sent     map[string]domain.Sequence // next sequence by session and partition
	names    []string                   // pairs: an id in this store, its name in both
}

func newSide(s ports.MetadataStore) *side {
	return &side{MetadataStore: s, sent: make(map[string]domain.Sequence)}
}

// last returns the n-th of all from the end, or the zero value if there are
// not as many.
func last[T any](all []T, n int) (v T) {
	if n < len(all) {
		v = all[len(all)-1-n]
	}
	return v
}

func (s *side) key(c command) commit.PartitionKey {
	return commit.PartitionKey{Topic: last(s.topics, c.A%2), Partition: domain.PartitionID(c.B%5 - 1)}
}

func (s *side) name(id, name string) { s.names = append(s.names, id, name) }

// calls are what a command can do; each returns the answer without the error.
// Those that come twice are drawn twice as often.
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
	{"abandon", (*side).abandon},
	{"extent", (*side).extent},
	{"widen", (*side).widen},
	{"describe", (*side).describe},
	{"find", (*side).find},
	{"retain", (*side).retain},
	{"delete", (*side).remove},
	{"wait", (*side).wait},
}

func (s *side) create(ctx context.Context, c command) (any, error) {
	t, err := s.CreateTopic(ctx, domain.TopicSpec{
		Name: fmt.Sprintf("topic-%d", c.A%5), Partitions: int32(c.B % 5),
		Retention: domain.Retention{Age: time.Duration(c.C - 1), Bytes: int64(c.C)},
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
		requests = append(requests, ports.PlanRequest{PartitionKey: key, From: domain.Offset(c.B + i - 1), MaxBytes: int64(c.C * 5 * (i % 3))})
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

func (s *side) retain(ctx context.Context, c command) (any, error) {
	return s.SetRetention(ctx, last(s.topics, c.A%4), domain.Retention{Age: time.Duration(c.B - 1), Bytes: int64(c.C - 1)})
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

// answer runs c and tells the answer in names that both stores share.
func (s *side) answer(ctx context.Context, c command) string {
	v, err := calls[c.Do].run(s, ctx, c)
	if err != nil {
		v = nil
	}
	return s.shared(fmt.Sprintf("%s: %+v, %s", calls[c.Do].name, v, describeError(err)))
}

func (s *side) shared(text string) string { return strings.NewReplacer(s.names...).Replace(text) }

// difference runs the commands on a store in memory and on one in SQLite, and tells the first
// thing in which they differ.
func difference(t *testing.T, commands []command) string {
	ctx := t.Context()
	inMemory := memory.NewMetadata(memory.MetadataOptions{Seed: 1})
	defer inMemory.Close()
	inFile := must[*Store](t)(Open(ctx, newFile(t), Options{UnsafeSynchronous: "OFF"}))
	defer inFile.Close()
	a, b := newSide(inMemory), newSide(inFile)
	for i, c := range append(slices.Clone(beginning), commands...) {
		if calls[c.Do].name == "wait" {
			time.Sleep(time.Duration(c.A*c.A) * 25 * time.Minute)
		}
		if got, want := b.answer(ctx, c), a.answer(ctx, c); got != want {
			return fmt.Sprintf("command %d: SQLite answered\n%s\nmemory answered\n%s", i, got, want)
		}
	}
	got, want := b.rows(snapshotOf(t, inFile)), a.rows(inMemory.Snapshot())
	if !slices.Equal(got, want) {
		return fmt.Sprintf("SQLite holds\n%s\nmemory holds\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := snapshotOf(t, inFile).Check(); err != nil {
		return err.Error()
	}
	return ""
}

// rows tells a snapshot line by line, without what older and expired sessions
// leave: the stores may remove that when they like.
func (s *side) rows(all memory.Snapshot) []string {
	var lines []string
	add := func(what string, row any) { lines = append(lines, s.shared(fmt.Sprintf("%s %+v", what, row))) }
	for _, r := range all.Topics {
		add("topic", r)
	}
	for _, r := range all.Partitions {
		add("partition", r)
	}
	for _, r := range all.Extents {
		add("extent", r)
	}
	for _, r := range all.Segments {
		r.CreatedAt = time.UnixMilli(r.CreatedAt.UnixMilli()).UTC()
		add("segment", r)
	}
	newest := make(map[domain.ProducerID]domain.Epoch)
	for _, r := range all.Producers {
		alive := time.Since(r.ActiveAt) < ports.ProducerExpiry
		if alive {
			newest[r.ID] = r.Epoch
		}
		r.ActiveAt = time.UnixMilli(r.ActiveAt.UnixMilli()).UTC()
		if alive || r.Name != "" {
			add("producer", r)
		}
	}
	for _, r := range all.Streams {
		if epoch, alive := newest[r.Producer]; alive && r.State.Epoch == epoch {
			add("stream", r)
		}
	}
	slices.Sort(lines)
	return lines
}

func TestStore_AnswersAndKeepsWhatTheStoreInMemoryDoes(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		commands := drawCommands(r)
		var found string
		synctest.Test(t, func(t *testing.T) { found = difference(t, commands) })
		if found != "" {
			r.Fatal(found)
		}
	})
}
