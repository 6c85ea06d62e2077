package portstest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

// Differential compares a metadata store with another that is known to be
// right: random commands get the same answers from both and leave the same behind, but
// for the ids that each makes up.
type Differential struct {
	Tested, Reference DifferentialSide
	// Advance lets time pass for both stores. Their clocks show the same
	// millisecond, and stand still between its calls. Nil, the default, runs each list of
	// commands in a testing/synctest bubble, whose clock is both stores' clock: for stores
	// without a network.
	Advance func(d time.Duration)
}

// DifferentialSide is one of the two stores.
type DifferentialSide struct {
	Name string
	// Open makes an empty store. It is closed at the end of the commands.
	Open func(t *testing.T) ports.MetadataStore
	// Rows tells what the store holds beyond what the port shows, a line for
	// each row, in words that both sides share but for ids. Nil tells nothing. Either both
	// sides have it or none.
	Rows func(t *testing.T, s ports.MetadataStore) []string
}

// Check draws commands until a difference is found, or as often as rapid is
// told to.
func (d Differential) Check(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		if found := d.find(t, drawCommands(r)); found != "" {
			r.Fatal(found)
		}
	})
}

// Example runs the commands of a seed, and tells the first thing in which the
// stores differ, if there is one.
func (d Differential) Example(t *testing.T, seed int) (difference string) {
	return d.find(t, rapid.Custom(drawCommands).Example(seed))
}

func (d Differential) find(t *testing.T, commands []command) (found string) {
	if d.Advance != nil {
		return d.difference(t, commands)
	}
	d.Advance = time.Sleep
	synctest.Test(t, func(t *testing.T) { found = d.difference(t, commands) })
	return found
}

// difference runs the commands on a store of each side.
func (d Differential) difference(t *testing.T, commands []command) string {
	ctx := t.Context()
	tested, reference := newSide(d.Tested.Open(t)), newSide(d.Reference.Open(t))
	defer func() { _ = tested.Close() }()
	defer func() { _ = reference.Close() }()
	for i, c := range append(slices.Clone(beginning), commands...) {
		switch calls[c.Do].name {
		case "wait":
			d.Advance(time.Duration(c.A*c.A) * 25 * time.Minute)
		case "create":
			d.Advance(time.Millisecond) // so that ids sort alike
		}
		if got, want := tested.answer(ctx, c), reference.answer(ctx, c); got != want {
			return fmt.Sprintf("command %d: %s answered\n%s\n%s answered\n%s", i, d.Tested.Name, got, d.Reference.Name, want)
		}
	}
	for name, s := range map[string]*side{d.Tested.Name: tested, d.Reference.Name: reference} {
		if err := inconsistency(ctx, s.MetadataStore); err != nil {
			return fmt.Sprintf("%s: %v", name, err)
		}
	}
	got, want := tested.everything(t, d.Tested), reference.everything(t, d.Reference)
	if !slices.Equal(got, want) {
		return fmt.Sprintf("%s holds\n%s\n%s holds\n%s", d.Tested.Name, strings.Join(got, "\n"), d.Reference.Name, strings.Join(want, "\n"))
	}
	return ""
}

// everything tells what the store holds, line by line.
func (s *side) everything(t *testing.T, d DifferentialSide) []string {
	t.Helper()
	m := &metadataUnderTest{T: t, MetadataStore: s.MetadataStore}
	var lines []string
	add := func(what string, row any) { lines = append(lines, s.shared(fmt.Sprintf("%s %+v", what, row))) }
	topics, err := s.ListTopics(t.Context())
	m.ok(err)
	for _, topic := range topics {
		add("topic", topic)
		states, err := s.DescribePartitions(t.Context(), topic.ID)
		m.ok(err)
		for _, p := range states {
			add("partition of "+topic.Name, p)
			add("plan", m.plan(at(topic, p.Partition), p.LogStart, 1<<40))
		}
	}
	for _, e := range m.everyExtent(ports.MaxUpkeep) {
		add("extent", e)
	}
	for _, r := range m.everySegment(ports.MaxUpkeep) {
		add("segment", described(r))
	}
	if d.Rows != nil {
		for _, line := range d.Rows(t, s.MetadataStore) {
			add("row", line)
		}
	}
	slices.Sort(lines)
	return lines
}

// described is the row with times as every store keeps them.
func described(r ports.SegmentRow) ports.SegmentRow {
	r.CreatedAt, r.StateAt = time.UnixMilli(r.CreatedAt.UnixMilli()).UTC(), time.UnixMilli(r.StateAt.UnixMilli()).UTC()
	return r
}

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
		c := command{Do: drawEvenly(t, 8, "do") % len(calls), A: small("a", 9), B: small("b", 9), C: small("c", 9)}
		if calls[c.Do].name == "commit" {
			c.Segments = rapid.SliceOfN(segment, 1, 3).Draw(t, "segments")
		}
		return c
	})
	n := 1 + drawEvenly(t, 6, "number of commands")
	return rapid.SliceOfN(one, n, n).Draw(t, "commands")
}

// drawEvenly draws a number bit by bit: rapid's own are mostly small.
func drawEvenly(t *rapid.T, bits int, label string) (n int) {
	for range bits {
		n *= 2
		if rapid.Bool().Draw(t, label) {
			n++
		}
	}
	return n
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
	topics      []domain.TopicID
	segments    []ports.SegmentRef
	used        int // how many of segments were in a commit
	sessions    []ports.ProducerSession
	sent        map[string]domain.Sequence // next sequence by session and partition
	compactions []commit.Compaction
	names       []string // pairs: an id in this store, its name in both
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

func (s *side) shared(text string) string { return strings.NewReplacer(s.names...).Replace(text) }

// answer runs c and tells the answer in names that both stores share.
func (s *side) answer(ctx context.Context, c command) string {
	v, err := calls[c.Do].run(s, ctx, c)
	if err != nil {
		v = nil
	}
	return s.shared(fmt.Sprintf("%s: %+v, %s", calls[c.Do].name, v, describeError(err)))
}
