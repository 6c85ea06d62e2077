package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
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
	Do       string
	A, B, C  int
	Segments []segmentDraw
}

type segmentDraw struct {
	Which   int // 0: the last committed again; 1: any earlier one; else one never used
	Batches []batchDraw
}

type batchDraw struct{ Topic, Partition, Session, EpochBack, SequenceBack, Records, Gap int }

// calls are what a command can do; each returns the answer without the error.
var calls = map[string]func(s *side, ctx context.Context, c command) (any, error){
	"create": (*side).create, "register": (*side).register, "reserve": (*side).reserve, "commit": (*side).commit,
	"plan": (*side).plan, "trim": (*side).trim, "abandon": (*side).abandon, "extent": (*side).extent, "widen": (*side).widen,
	"describe": (*side).describe, "delete": (*side).remove, "wait": (*side).wait, "retain": (*side).retain,
	"purge": (*side).purge, "expire": (*side).expire, "collect": (*side).collect, "replace": (*side).replace,
}

// drawn are the names of calls, as often as they are drawn.
var drawn = []string{
	"commit", "commit", "commit", "commit", "commit", "commit", "commit", "create", "register", "register", "reserve", "plan", "trim",
	"abandon", "abandon", "extent", "widen", "describe", "delete", "wait", "wait", "retain", "purge", "expire", "collect", "replace", "replace",
}

func drawCommands(t *rapid.T) []command {
	small := func(t *rapid.T, label string, n int) int { return rapid.IntRange(0, n).Draw(t, label) }
	batch := rapid.Custom(func(t *rapid.T) batchDraw {
		return batchDraw{
			// Mostly one partition, so that its producers go far.
			Topic: small(t, "topic", 9) / 9, Partition: max(0, small(t, "partition", 12)-9), Session: small(t, "session", 3),
			EpochBack: small(t, "epoch back", 29), SequenceBack: small(t, "sequence back", 14),
			Records: 1 + small(t, "records", 3), Gap: small(t, "gap", 4),
		}
	})
	segment := rapid.Custom(func(t *rapid.T) segmentDraw {
		return segmentDraw{Which: small(t, "which", 9), Batches: rapid.SliceOfN(batch, 0, 8).Draw(t, "batches")}
	})
	one := rapid.Custom(func(t *rapid.T) command {
		c := command{Do: rapid.SampledFrom(drawn).Draw(t, "do"), A: small(t, "a", 9), B: small(t, "b", 9), C: small(t, "c", 9)}
		if c.Do == "commit" {
			c.Segments = rapid.SliceOfN(segment, 1, 3).Draw(t, "segments")
		}
		return c
	})
	return rapid.SliceOfN(one, 1, 60).Draw(t, "commands")
}

// beginning makes what most commands need.
var beginning = []command{
	{Do: "create", A: 0, B: 3, C: 2}, {Do: "create", A: 1, B: 4, C: 2}, {Do: "register", A: 0}, {Do: "register", A: 1},
}

// clock is the time of all sides, in milliseconds.
type clock struct{ ms int64 }

func (c *clock) now() time.Time { return time.UnixMilli(c.ms) }

// side is one of the stores and what was made in it, in order.
type side struct {
	ports.MetadataStore
	clock    *clock
	topics   []domain.TopicID
	segments []ports.SegmentRef
	used     int // how many of segments were in a commit
	sessions []ports.ProducerSession
	sent     map[string][]commit.Batch // by session and partition: what was sent in order
	names    []string                  // pairs: an id in this store, its name in all
}

func newSide(s ports.MetadataStore, c *clock) *side {
	return &side{MetadataStore: s, clock: c, sent: make(map[string][]commit.Batch)}
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

func (s *side) create(ctx context.Context, c command) (any, error) {
	t, err := s.CreateTopic(ctx, domain.TopicSpec{
		Name: fmt.Sprintf("topic-%d", c.A%5), Partitions: int32(c.B % 5),
		Retention: domain.Retention{Age: time.Duration(c.C-1) * time.Hour, Bytes: int64(c.C * 10)},
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
		segments[i] = commit.Segment{ID: id, Size: int64(c.A), CRC32C: uint32(c.B) << 28}
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
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintln(&b, r.Outcomes, r.Outcomes == nil, describeError(r.Err))
	}
	return b.String(), err
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

// scale makes sequences go round their circle in a few batches.
const scale = 1 << 28

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
	if d.Session == 2 {
		b.Records *= scale
	}
	switch d.EpochBack {
	case 1:
		b.Epoch--
	case 2:
		b.Epoch++
	}
	stream := fmt.Sprint(b.Stream(), b.Epoch)
	before := s.sent[stream]
	if n := len(before); n > 0 {
		b.FirstSequence = before[n-1].FirstSequence.Add(before[n-1].Records)
	}
	switch back := d.SequenceBack; {
	case back == 0:
		b.FirstSequence = b.FirstSequence.Add(1)
	case back == 1:
		b.FirstSequence = max(0, b.FirstSequence-domain.Sequence(b.Records))
	case back < 8 && len(before) > 0: // one of the last six, as it was
		old := before[max(0, len(before)+1-back)]
		b.FirstSequence, b.Records = old.FirstSequence, old.Records
	default:
		s.sent[stream] = append(before, b)
	}
	return b
}

func (s *side) plan(ctx context.Context, c command) (any, error) {
	var requests []ports.PlanRequest
	for i := range c.C % 5 {
		key := s.key(command{A: c.A + i, B: c.B + i})
		requests = append(requests, ports.PlanRequest{
			PartitionKey: key, From: domain.Offset(c.B + i - 1), MaxBytes: int64(c.C * 5 * (i % 3)), MaxExtents: c.A % 3,
		})
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
	t, err := s.Topic(ctx, fmt.Sprintf("topic-%d", c.A%5))
	all, listed := s.ListTopics(ctx)
	states, described := s.DescribePartitions(ctx, last(s.topics, c.A%4))
	due, found := s.RetentionDue(ctx, ports.FirstPartition, 100)
	return fmt.Sprintf("%+v %+v %+v %+v %s", t, all, states, len(due), describeError(found)), errors.Join(err, listed, described)
}

// remove spares a topic more often than not, so that there is something in it.
func (s *side) remove(ctx context.Context, c command) (any, error) {
	if c.B > 1 {
		return s.SetRetention(ctx, last(s.topics, c.A%4), domain.Retention{Age: time.Duration(c.B-1) * time.Hour, Bytes: int64(c.C-1) * 10})
	}
	return nil, s.DeleteTopic(ctx, last(s.topics, c.A%4))
}

// wait lets time pass for all stores, and so does nothing here.
func (s *side) wait(context.Context, command) (any, error) { return nil, nil }

func (s *side) retain(ctx context.Context, c command) (any, error) {
	return s.Retain(ctx, s.key(c), c.C)
}

// Enough for everything: which go first may differ, since ids do.
const all = 1000

func (s *side) purge(ctx context.Context, _ command) (any, error) { return s.PurgeTopics(ctx, all) }

func (s *side) expire(ctx context.Context, c command) (any, error) {
	return s.ExpireReservations(ctx, time.Duration(c.A)*time.Hour, all)
}

func (s *side) collect(ctx context.Context, c command) (any, error) {
	garbage, err := s.Garbage(ctx, time.Duration(c.A)*time.Hour, domain.SegmentID{}, all)
	var ids []domain.SegmentID
	for _, g := range garbage {
		ids = append(ids, g.ID)
	}
	marked := s.MarkDeleted(ctx, ids)
	n, forgot := s.ForgetDeleted(ctx, time.Duration(c.B)*time.Hour, all)
	return fmt.Sprintf("%d %d", len(garbage), n), errors.Join(err, marked, forgot)
}

// replace copies some extents of two partitions, as they are or with a fault, into
// a new segment.
func (s *side) replace(ctx context.Context, c command) (any, error) {
	id, err := s.segment(ctx, c.A+1)
	if err != nil {
		return nil, err
	}
	into := commit.Compaction{ID: id, Size: 1 << 40, CRC32C: uint32(c.A)}
	plans, err := s.Plan(ctx, []ports.PlanRequest{
		{PartitionKey: s.key(c), From: domain.Offset(c.C), MaxBytes: 1 << 40},
		{PartitionKey: s.key(command{A: c.A + 1, B: c.B + 1}), MaxBytes: 1 << 40, MaxExtents: 2},
	})
	if err != nil {
		return nil, err
	}
	for i, p := range plans {
		cp := commit.Copy{Position: int64(i) << 30}
		for _, e := range p.Extents {
			e.CommittedAt = 0
			cp.Of = append(cp.Of, e.Extent)
		}
		if len(cp.Of) == 0 {
			continue
		}
		if c.B == 9 && i == 0 {
			cp.Of[0].Position++
		}
		into.Copies = append(into.Copies, cp)
	}
	return s.Replace(ctx, into)
}

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
	return text
}

// answer runs c and tells the answer in names that all stores share.
func (s *side) answer(ctx context.Context, c command) string {
	v, err := calls[c.Do](s, ctx, c)
	if err != nil {
		v = nil
	}
	return s.shared(fmt.Sprintf("%s: %+v, %s", c.Do, v, describeError(err)))
}

func (s *side) shared(text string) string { return strings.NewReplacer(s.names...).Replace(text) }

const forgetAll = "TRUNCATE topics, partitions, segments, extents, producers, producer_partitions RESTART IDENTITY"

// difference runs the commands on a store in memory and on those in PostgreSQL,
// and tells the first thing in which they differ.
func difference(t *testing.T, stores []*opened, commands []command) string {
	ctx := t.Context()
	c := &clock{ms: 1_000_000_000_000}
	oracle := memory.NewMetadata(memory.MetadataOptions{Seed: 1, Now: c.now})
	defer oracle.Close()
	want := newSide(oracle, c)
	sides := make([]*side, len(stores))
	for i, s := range stores {
		sides[i] = newSide(s, c)
		s.execute(t, forgetAll)
		s.execute(t, "UPDATE test_clock SET at = $1", c.ms)
	}
	for i, command := range append(slices.Clone(beginning), commands...) {
		if command.Do == "wait" {
			c.ms += int64(command.A*command.A) * 25 * 60 * 1000
			for _, s := range stores {
				s.execute(t, "UPDATE test_clock SET at = $1", c.ms)
			}
		}
		right := want.answer(ctx, command)
		for j, s := range sides {
			if got := s.answer(ctx, command); got != right {
				return fmt.Sprintf("command %d %+v: in steps %v, PostgreSQL answered\n%s\nmemory answered\n%s", i, command, stores[j].options.inSteps, got, right)
			}
		}
	}
	right := want.rows(oracle.Snapshot())
	for j, s := range sides {
		snapshot := snapshotOf(t, stores[j])
		if err := snapshot.Check(); err != nil {
			return err.Error()
		}
		if got := s.rows(snapshot); !slices.Equal(got, right) {
			return fmt.Sprintf("in steps %v, PostgreSQL holds\n%s\nmemory holds\n%s", stores[j].options.inSteps, strings.Join(got, "\n"), strings.Join(right, "\n"))
		}
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
		alive := s.clock.now().Sub(r.ActiveAt) < ports.ProducerExpiry
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

// differing are two stores for difference, whose commits are in one statement and in steps.
func differing(t *testing.T) []*opened {
	stores := []*opened{newTest(t, Options{}), newTest(t, Options{inSteps: true})}
	for _, s := range stores {
		s.execute(t, "CREATE TABLE test_clock AS SELECT 0::bigint AS at")
		s.execute(t, "CREATE OR REPLACE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT at FROM test_clock'")
	}
	return stores
}

func TestStore_AnswersAndKeepsWhatTheStoreInMemoryDoes(t *testing.T) {
	stores := differing(t)
	rapid.Check(t, func(r *rapid.T) {
		if found := difference(t, stores, drawCommands(r)); found != "" {
			r.Fatal(found)
		}
	})
}
