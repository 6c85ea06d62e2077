package verify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/ports"
)

func compareTopics(a, b domain.TopicID) int { return bytes.Compare(a[:], b[:]) }

func comparePlaces(a, b ports.ExtentPlace) int {
	return cmp.Or(compareTopics(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Base, b.Base))
}

// page asks for one page of extents.
func (v *verifier) page(ctx context.Context, after ports.ExtentPlace, limit int) ([]ports.ExtentRef, error) {
	page, err := ask(ctx, func() ([]ports.ExtentRef, error) { return v.metadata.Extents(ctx, after, limit) })
	if n := len(page); err == nil && n > 0 && comparePlaces(ports.PlaceOf(page[n-1].Extent), after) <= 0 {
		err = fmt.Errorf("list extents: %w", errStuck)
	}
	return page, err
}

// walkExtents gives each the extents after a place, in order and page by page,
// up to those of topic until, or to the end if it is nil. It returns the place of the last one.
//
// An extent that is there all the time is given once, since its place does not
// change. One that comes or goes meanwhile may be given or not; compaction, which puts one extent
// in the place of several, may so seem to leave a gap between two pages, but not within one.
func (v *verifier) walkExtents(ctx context.Context, after ports.ExtentPlace, until *domain.TopicID, each func([]ports.ExtentRef) error) (ports.ExtentPlace, error) {
	for {
		page, err := v.page(ctx, after, v.o.PageRows)
		if err != nil {
			return after, err
		}
		n := len(page)
		for until != nil && n > 0 && compareTopics(page[n-1].Topic, *until) > 0 {
			n--
		}
		if n > 0 {
			if err := each(page[:n]); err != nil {
				return after, err
			}
			after = ports.PlaceOf(page[n-1].Extent)
			v.tell(WalkingExtents)
		}
		if n < len(page) || len(page) < v.o.PageRows {
			return after, nil
		}
	}
}

// stillThere returns which of the extents, which are in order, are in the log
// now, just as they were. It may be called by workers.
func (v *verifier) stillThere(ctx context.Context, extents []ports.ExtentRef) (map[ports.ExtentPlace]bool, error) {
	there := make(map[ports.ExtentPlace]bool, len(extents))
	for i := 0; i < len(extents); {
		// Where many are asked for they are close together, so that one page has
		// many of them.
		after := ports.PlaceOf(extents[i].Extent)
		after.Base--
		limit := min(max(4*(len(extents)-i), 2), v.o.PageRows)
		page, err := v.page(ctx, after, limit)
		if err != nil {
			return nil, err
		}
		now := make(map[ports.ExtentPlace]commit.Extent, len(page))
		for _, e := range page {
			now[ports.PlaceOf(e.Extent)] = e.Extent
		}
		whole := len(page) < limit // there is nothing behind the page
		for first := i; i < len(extents); i++ {
			place := ports.PlaceOf(extents[i].Extent)
			if i > first && !whole && comparePlaces(place, ports.PlaceOf(page[len(page)-1].Extent)) > 0 {
				break
			}
			if e, found := now[place]; found && same(e, extents[i].Extent) {
				there[place] = true
			}
		}
	}
	return there, nil
}

// same compares extents but for the times of their commits, which are not held.
func same(a, b commit.Extent) bool {
	a.CommittedAt = b.CommittedAt
	return a == b
}

// knownTopic remembers what was found out about one topic.
type knownTopic struct {
	id      domain.TopicID
	deleted bool
	known   bool
}

// isDeleted reports whether a topic that was not listed is one that was deleted;
// else it is newer than the list.
func (v *verifier) isDeleted(ctx context.Context, id domain.TopicID) (bool, error) {
	if !v.deleted.known || v.deleted.id != id {
		_, err := v.describe(ctx, id)
		if err != nil && !errors.Is(err, domain.ErrTopicNotFound) {
			return false, err
		}
		v.deleted = knownTopic{id, err != nil, true}
	}
	return v.deleted.deleted, nil
}

func (v *verifier) describe(ctx context.Context, id domain.TopicID) ([]domain.PartitionState, error) {
	return ask(ctx, func() ([]domain.PartitionState, error) { return v.metadata.DescribePartitions(ctx, id) })
}
