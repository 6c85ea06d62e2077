package commit_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// extent is one of 100 bytes and two batches in segment n.
func extent(key commit.PartitionKey, base, last domain.Offset, n byte) commit.Extent {
	return commit.Extent{
		Topic: key.Topic, Partition: key.Partition, Base: base, Last: last, Segment: domain.SegmentID{n},
		Position: 64, Length: 100, Batches: 2, MaxTimestamp: int64(base), CommittedAt: int64(last),
	}
}

var target = domain.SegmentID{0xc0}

// compacted are three extents of orders/0 and two of orders/1, one copy each.
func compacted() commit.Compaction {
	return commit.Compaction{ID: target, Size: 600, Copies: []commit.Copy{
		{Position: 64, Of: []commit.Extent{extent(orders, 10, 19, 1), extent(orders, 20, 20, 2), extent(orders, 21, 40, 3)}},
		{Position: 400, Of: []commit.Extent{extent(orders1, 0, 4, 1), extent(orders1, 5, 9, 2)}},
	}}
}

func TestCompaction_ThatCanBeMeantIsValid(t *testing.T) {
	for name, change := range map[string]func(c *commit.Compaction){
		"as it is":                      func(*commit.Compaction) {},
		"copies beside each other":      func(c *commit.Compaction) { c.Copies[1].Position = 364 },
		"to the last byte":              func(c *commit.Compaction) { c.Copies[1].Position = 400 },
		"from the first byte":           func(c *commit.Compaction) { c.Copies[0].Position = 0 },
		"one extent moved":              func(c *commit.Compaction) { c.Copies = []commit.Copy{{Of: c.Copies[1].Of[1:]}} },
		"two copies of one partition":   func(c *commit.Compaction) { c.Copies[1].Of = []commit.Extent{extent(orders, 41, 41, 4)} },
		"two with offsets between them": func(c *commit.Compaction) { c.Copies[1].Of = []commit.Extent{extent(orders, 90, 99, 4)} },
	} {
		c := compacted()
		change(&c)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCompaction_ThatCannotBeMeantIsRefused(t *testing.T) {
	for want, changes := range map[string][]func(c *commit.Compaction){
		"holds nothing":     {func(c *commit.Compaction) { c.Copies = nil }},
		"a copy of nothing": {func(c *commit.Compaction) { c.Copies[1].Of = nil }},
		"a copy of offsets": {
			func(c *commit.Compaction) { c.Copies[0].Of[1].Segment = target },
			func(c *commit.Compaction) { c.Copies[0].Of[0].Length = 0 },
			func(c *commit.Compaction) { c.Copies[0].Of[2].Length = -1 },
			func(c *commit.Compaction) { c.Copies[0].Of[1].Last = 19 },
		},
		"does not follow": {
			func(c *commit.Compaction) { c.Copies[0].Of[1].Base = 19 },
			func(c *commit.Compaction) { c.Copies[0].Of[2].Base = 22 },
			func(c *commit.Compaction) { c.Copies[0].Of[1].Partition = 1 },
			func(c *commit.Compaction) { c.Copies[0].Of[1].Topic = domain.TopicID{9} },
			func(c *commit.Compaction) { c.Copies[1].Of[1] = c.Copies[1].Of[0] },
		},
		"overlaps or lies outside": {
			func(c *commit.Compaction) { c.Copies[0].Position = -1 },
			func(c *commit.Compaction) { c.Copies[1].Position = 363 },
			func(c *commit.Compaction) { c.Copies[1].Position = 401 },
			func(c *commit.Compaction) { c.Copies[1].Position = math.MaxInt64 },
			func(c *commit.Compaction) { c.Size = 599 },
			func(c *commit.Compaction) { c.Copies[0], c.Copies[1] = c.Copies[1], c.Copies[0] },
			func(c *commit.Compaction) { c.Copies[1].Of = []commit.Extent{extent(orders, 40, 41, 4)} },
			func(c *commit.Compaction) { c.Copies[1].Of = []commit.Extent{extent(orders, 0, 9, 4)} },
		},
	} {
		for i, change := range changes {
			c := compacted()
			change(&c)
			if err := c.Validate(); err == nil || !errors.Is(err, domain.ErrInternal) || !strings.Contains(err.Error(), want) {
				t.Errorf("change %d: %v, want %q", i, err, want)
			}
		}
	}
}

func TestCopy_BecomesOneExtentOfAll(t *testing.T) {
	of := compacted().Copies[0].Of
	of[0].MaxTimestamp, of[1].MaxTimestamp, of[2].MaxTimestamp = 5, 90, -7
	of[0].CommittedAt, of[1].CommittedAt, of[2].CommittedAt = 70, 60, 50
	got := commit.Copy{Position: 7, Of: of}.Extent(target)
	want := commit.Extent{
		Topic: orders.Topic, Partition: orders.Partition, Base: 10, Last: 40, Segment: target,
		Position: 7, Length: 300, Batches: 6, MaxTimestamp: 90, CommittedAt: 70,
	}
	if got != want {
		t.Errorf("extent is %+v, want %+v", got, want)
	}
	if of[0].Segment != (domain.SegmentID{1}) || of[0].Last != 19 {
		t.Errorf("the first extent of the copy has changed: %+v", of[0])
	}
}

func TestCopy_HoldsOnlyWhereTheLogHasWhatItCopied(t *testing.T) {
	c := compacted().Copies[0]
	present := func(change func(e []commit.Extent) []commit.Extent) []commit.Extent {
		return change(compacted().Copies[0].Of)
	}
	set := func(change func(e *commit.Extent)) func([]commit.Extent) []commit.Extent {
		return func(e []commit.Extent) []commit.Extent { change(&e[1]); return e }
	}
	for name, change := range map[string]func(e []commit.Extent) []commit.Extent{
		"nothing is left":        func([]commit.Extent) []commit.Extent { return nil },
		"the first was trimmed":  func(e []commit.Extent) []commit.Extent { return e[1:] },
		"the last is missing":    func(e []commit.Extent) []commit.Extent { return e[:2] },
		"there is one more":      func(e []commit.Extent) []commit.Extent { return append(e, extent(orders, 41, 42, 4)) },
		"one is in another":      set(func(e *commit.Extent) { e.Segment = domain.SegmentID{9} }),
		"one is elsewhere":       set(func(e *commit.Extent) { e.Position++ }),
		"one is longer":          set(func(e *commit.Extent) { e.Length++ }),
		"one ends later":         set(func(e *commit.Extent) { e.Last++ }),
		"one begins later":       set(func(e *commit.Extent) { e.Base++ }),
		"one has more batches":   set(func(e *commit.Extent) { e.Batches++ }),
		"another took them over": func([]commit.Extent) []commit.Extent { return []commit.Extent{c.Extent(domain.SegmentID{9})} },
	} {
		if c.Holds(present(change)) {
			t.Errorf("holds though %s", name)
		}
	}
	// Times are not what a copy is made of.
	same := present(set(func(e *commit.Extent) { e.CommittedAt, e.MaxTimestamp = 1, 2 }))
	if !c.Holds(same) {
		t.Error("does not hold where nothing has changed")
	}
}

func TestRetained_LetsTheOldestGoUntilOneMustStay(t *testing.T) {
	const now = 1_000_000
	extents := []commit.Extent{
		{Length: 100, CommittedAt: now - 3000}, {Length: 300, CommittedAt: now - 2000},
		{Length: 50, CommittedAt: now - 1000}, {Length: 50, CommittedAt: now},
	}
	for _, c := range []struct {
		name  string
		r     domain.Retention
		n     int
		bytes int64
	}{
		{"nothing set", domain.Retention{}, 0, 0},
		{"older than all", domain.Retention{Age: 3001 * time.Millisecond}, 0, 0},
		{"as old as the first", domain.Retention{Age: 3000 * time.Millisecond}, 1, 100},
		{"older than the second", domain.Retention{Age: 2001 * time.Millisecond}, 1, 100},
		{"younger than the third", domain.Retention{Age: 999 * time.Millisecond}, 3, 450},
		{"under a millisecond", domain.Retention{Age: 1}, 4, 500},
		{"the longest age", domain.Retention{Age: math.MaxInt64}, 0, 0},
		{"all there is", domain.Retention{Bytes: 500}, 0, 0},
		{"a byte too few", domain.Retention{Bytes: 401}, 0, 0},
		{"all but the first", domain.Retention{Bytes: 400}, 1, 100},
		{"the second must stay and so the third", domain.Retention{Bytes: 101}, 1, 100},
		{"one byte", domain.Retention{Bytes: 1}, 3, 450},
		{"either", domain.Retention{Bytes: 400, Age: 1500 * time.Millisecond}, 2, 400},
		{"bytes after age", domain.Retention{Bytes: 60, Age: 2500 * time.Millisecond}, 2, 400},
	} {
		if n, bytes := commit.Retained(c.r, extents, 500, now); n != c.n || bytes != c.bytes {
			t.Errorf("%s: %d extents of %d bytes go, want %d of %d", c.name, n, bytes, c.n, c.bytes)
		}
	}
	// Of a partition that stores more than it is shown.
	if n, bytes := commit.Retained(domain.Retention{Bytes: 1}, extents, 5000, now); n != 4 || bytes != 500 {
		t.Errorf("%d extents of %d bytes go of a larger partition", n, bytes)
	}
}

func TestRetained_InStepsIsAsAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var extents []commit.Extent
		stored := int64(0)
		for range rapid.IntRange(0, 12).Draw(t, "extents") {
			e := commit.Extent{Length: rapid.Int64Range(1, 9).Draw(t, "length"), CommittedAt: rapid.Int64Range(0, 20).Draw(t, "committed")}
			extents, stored = append(extents, e), stored+e.Length
		}
		r := domain.Retention{
			Bytes: rapid.Int64Range(0, 40).Draw(t, "bytes"),
			Age:   time.Duration(rapid.Int64Range(0, 30).Draw(t, "age")) * time.Millisecond,
		}
		now := rapid.Int64Range(0, 40).Draw(t, "now")
		n, bytes := commit.Retained(r, extents, stored, now)
		steps, left := 0, stored
		for steps < len(extents) {
			k, b := commit.Retained(r, extents[steps:steps+1], left, now)
			if k == 0 {
				break
			}
			steps, left = steps+k, left-b
		}
		if steps != n || stored-left != bytes {
			t.Fatalf("in steps %d extents of %d bytes go, at once %d of %d", steps, stored-left, n, bytes)
		}
	})
}
