package verify

import (
	"context"
	"errors"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
	"github.com/streamhouse/streamhouse/ports"
)

// The topics whose states are held at the same time: so many, with so many
// partitions together, or one.
const (
	groupTopics     = 64
	groupPartitions = 100_000
)

// topicState is what is known of one topic while its extents go by.
type topicState struct {
	id     domain.TopicID
	states []domain.PartitionState // from before the first extent
	clean  []bool
	seen   []bool
	beyond map[domain.PartitionID]bool // with extents, but not in states
}

// group is some topics, next to each other in the order of their ids.
type group struct {
	v       *verifier
	topics  []*topicState
	current *topicState // nil if the extents are those of a topic that is not here
	key     commit.PartitionKey
	tiling  *tiling // nil if the extents are those of a partition that is not here
}

// walkTopics checks that the extents of each partition fit together and to its
// state, and gives all extents to w.
func (v *verifier) walkTopics(ctx context.Context, w *window) error {
	topics, err := ask(ctx, func() ([]domain.Topic, error) { return v.metadata.ListTopics(ctx) })
	if err != nil {
		return err
	}
	slices.SortFunc(topics, func(a, b domain.Topic) int { return compareTopics(a.ID, b.ID) })
	for _, t := range topics {
		v.names[t.ID] = t.Name
	}
	after := ports.FirstExtent
	for {
		g, rest, err := v.nextGroup(ctx, topics)
		if err != nil {
			return err
		}
		var until *domain.TopicID
		if len(rest) > 0 {
			until = &topics[len(topics)-len(rest)-1].ID
		}
		after, err = v.walkExtents(ctx, after, until, func(page []ports.ExtentRef) error {
			v.report.Extents += len(page)
			if err := g.take(ctx, page); err != nil {
				return err
			}
			return v.collect(ctx, w, page)
		})
		if err == nil {
			err = g.settle(ctx)
		}
		if err != nil || len(rest) == 0 {
			return err
		}
		topics = rest
	}
}

// nextGroup takes topics off the list and asks for the states of their
// partitions.
func (v *verifier) nextGroup(ctx context.Context, topics []domain.Topic) (*group, []domain.Topic, error) {
	g := &group{v: v}
	partitions := 0
	for len(topics) > 0 && len(g.topics) < groupTopics && partitions < groupPartitions {
		t := topics[0]
		topics = topics[1:]
		states, err := v.describe(ctx, t.ID)
		if errors.Is(err, domain.ErrTopicNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, nil, err
		}
		partitions += len(states)
		v.report.Topics++
		v.report.Partitions += len(states)
		g.topics = append(g.topics, &topicState{
			id: t.ID, states: states, clean: make([]bool, len(states)), seen: make([]bool, len(states)),
			beyond: make(map[domain.PartitionID]bool),
		})
	}
	return g, topics, nil
}

// take checks the next extents, which come in order.
func (g *group) take(ctx context.Context, page []ports.ExtentRef) error {
	for _, e := range page {
		if g.key != e.Key() || g.current == nil {
			g.end()
			if err := g.begin(ctx, e.Extent); err != nil {
				return err
			}
		}
		if g.tiling != nil {
			g.tiling.add(e.Extent)
		}
	}
	return nil
}

// begin begins the partition of e.
func (g *group) begin(ctx context.Context, e commit.Extent) error {
	g.key, g.current = e.Key(), nil
	for _, t := range g.topics {
		if t.id == e.Topic {
			g.current = t
		}
	}
	switch {
	case g.current == nil:
		deleted, err := g.v.isDeleted(ctx, e.Topic)
		if deleted {
			g.v.report.Garbage.Extents++
			g.v.report.Garbage.ExtentBytes += e.Length
		}
		return err
	case e.Partition < 0 || int(e.Partition) >= len(g.current.states):
		g.current.beyond[e.Partition] = true
	default:
		g.tiling = &tiling{state: g.current.states[e.Partition]}
	}
	return nil
}

// end ends the partition whose extents went by.
func (g *group) end() {
	if g.tiling != nil {
		g.current.seen[g.key.Partition] = true
		g.current.clean[g.key.Partition] = g.tiling.clean()
	}
	g.tiling = nil
}

// settle looks again at every partition that was not found clean.
func (g *group) settle(ctx context.Context) error {
	g.end()
	for _, t := range g.topics {
		var suspects []domain.PartitionID
		for i, state := range t.states {
			clean := t.clean[i]
			if !t.seen[i] {
				clean = (&tiling{state: state}).clean()
			}
			if !clean {
				suspects = append(suspects, domain.PartitionID(i))
			}
		}
		for p := range t.beyond {
			suspects = append(suspects, p)
		}
		slices.Sort(suspects)
		for some := range slices.Chunk(suspects, suspectsAtOnce) {
			if err := g.v.settle(ctx, t.id, slices.Clone(some)); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	// suspectsAtOnce bounds how many partitions are looked at between two
	// queries of their states.
	suspectsAtOnce = 1024
	// maxLooks is how often a partition is looked at that changes meanwhile. Each time takes a
	// compaction or a deletion at the very place and moment.
	maxLooks = 16
)

// settle looks at the suspects until each has either been seen as it should be or shown a
// fault that no change meanwhile can explain.
func (v *verifier) settle(ctx context.Context, topic domain.TopicID, suspects []domain.PartitionID) error {
	for range maxLooks {
		if len(suspects) == 0 {
			return nil
		}
		before, err := v.describe(ctx, topic)
		if err != nil {
			return deletedMeanwhile(err)
		}
		looks := make([]look, len(suspects))
		for i, p := range suspects {
			l := look{key: commit.PartitionKey{Topic: topic, Partition: p}}
			if l.known = p >= 0 && int(p) < len(before); l.known {
				l.state = before[p]
			}
			if looks[i], err = v.look(ctx, l); err != nil {
				return err
			}
		}
		after, err := v.describe(ctx, topic)
		if err != nil {
			return deletedMeanwhile(err)
		}
		rest := suspects[:0]
		for i := range looks {
			if mutant.On(mutantStateOnce) {
				after = before
			}
			faults, settled := looks[i].judge(after)
			v.addFaults(&looks[i], faults)
			if !settled {
				rest = append(rest, looks[i].key.Partition)
			}
		}
		suspects = rest
	}
	v.report.Unsettled += len(suspects)
	return nil
}

// deletedMeanwhile forgives that a topic is no longer there.
func deletedMeanwhile(err error) error {
	if errors.Is(err, domain.ErrTopicNotFound) {
		return nil
	}
	return err
}

func (v *verifier) addFaults(l *look, faults []fault) {
	if len(faults) == 0 {
		return
	}
	for _, f := range faults {
		v.add(Problem{
			Kind: f.kind, Topic: v.names[l.key.Topic], TopicID: l.key.Topic.String(), Partition: l.key.Partition,
			Offset: f.offset, What: f.what,
		})
	}
	v.report.ProblemCount += l.faultCount - len(l.faults)
}

// look is one walk over the extents of one partition.
type look struct {
	tiling
	key   commit.PartitionKey
	known bool // the partition was there before
	// broken says that what was the last extent of a page was another one at the
	// beginning of the next.
	broken bool
}

// lookRows bounds what is read of the partition behind.
const lookRows = 1000

// look walks over the partition's extents. Each page begins with the last extent
// of the one before, so that every two neighbours are seen in one snapshot.
func (v *verifier) look(ctx context.Context, l look) (look, error) {
	after := ports.ExtentPlace{PartitionKey: l.key, Base: -1}
	limit := min(lookRows, v.o.PageRows)
	for {
		page, err := v.page(ctx, after, limit)
		if err != nil {
			return l, err
		}
		more := len(page) == limit
		for i, e := range page {
			if e.Key() != l.key {
				page, more = page[:i], false
				break
			}
		}
		if l.extents > 0 && mutant.On(mutantNeighbours) {
			page = page[min(1, len(page)):]
		} else if l.extents > 0 {
			if len(page) == 0 || page[0].Base != l.last.Base || page[0].Last != l.last.Last {
				l.broken = true
				return l, nil
			}
			page = page[1:]
		}
		for _, e := range page {
			l.add(e.Extent)
		}
		if !more || len(page) == 0 {
			return l, nil
		}
		after.Base = l.last.Base - 1
	}
}

// judge compares the look with the partition's states before and after it. Not
// settled: it changed too much in between to tell.
func (l *look) judge(after []domain.PartitionState) (faults []fault, settled bool) {
	p := l.key.Partition
	switch {
	case p < 0 || int(p) >= len(after):
		if l.extents > 0 {
			l.fault(NoPartition, l.first.Base, "%d extents, and the topic has %d partitions", l.extents, len(after))
		}
		return l.faults, true
	case !l.known:
		return nil, false // the topic was widened meanwhile
	}
	if !l.judgeBounds(after[p]) {
		return l.faults, true
	}
	if l.extents == 0 {
		if l.state != after[p] {
			return nil, false
		}
		if l.state.Bytes != 0 {
			l.fault(WrongBytes, -1, "%d bytes are counted, and there are no extents", l.state.Bytes)
		}
		return l.faults, true
	}
	if l.broken || !l.holdsStart() || !l.marked {
		if mutant.On(mutantUnsettled) {
			l.fault(WrongBytes, -1, "the partition has changed")
		}
		return l.faults, false
	}
	if l.atMark != l.state.Bytes && !mutant.On(mutantBytesUnchecked) {
		l.fault(WrongBytes, -1, "%d bytes are counted, and the extents up to offset %d have %d", l.state.Bytes, l.state.HighWatermark, l.atMark)
	}
	return l.faults, true
}

// judgeBounds compares the ends of the extents with the log start and the high
// watermark, which were somewhere between those of before and after when the extents were read. It
// reports false if anything is wrong so far.
func (l *look) judgeBounds(after domain.PartitionState) bool {
	before := l.state
	switch {
	case after.HighWatermark < before.HighWatermark || after.LogStart < before.LogStart:
		l.fault(WrongHighWatermark, after.HighWatermark, "log start %d and high watermark %d, which were %d and %d and never fall",
			after.LogStart, after.HighWatermark, before.LogStart, before.HighWatermark)
	case before.LogStart < 0 || before.LogStart > before.HighWatermark:
		l.fault(WrongLogStart, before.LogStart, "log start %d, and high watermark %d", before.LogStart, before.HighWatermark)
	case l.extents == 0:
		if before.HighWatermark > after.LogStart {
			l.fault(WrongHighWatermark, after.LogStart, "no extent holds offsets %d to %d, up to the high watermark", after.LogStart, before.HighWatermark-1)
		}
		return l.faultCount == 0
	case l.first.Base > after.LogStart:
		l.fault(WrongLogStart, after.LogStart, "log start %d, and the first extent begins at %d", after.LogStart, l.first.Base)
	case l.first.Last < before.LogStart:
		l.fault(WrongLogStart, before.LogStart, "log start %d, and the extent at %d ends before it, at %d", before.LogStart, l.first.Base, l.first.Last)
	}
	switch {
	case l.extents == 0 || l.broken:
	case l.next < before.HighWatermark:
		l.fault(WrongHighWatermark, l.next, "no extent holds offsets %d to %d, up to the high watermark", l.next, before.HighWatermark-1)
	case l.next > after.HighWatermark:
		l.fault(WrongHighWatermark, after.HighWatermark, "high watermark %d, and the last extent ends at %d", after.HighWatermark, l.last.Last)
	}
	return l.faultCount == 0
}
