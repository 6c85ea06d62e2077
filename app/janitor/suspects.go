package janitor

import (
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

const (
	// banFor is how long an extent that could not be read is left alone.
	banFor = time.Hour
	// banAfter is how many reads have to fail: the first may have failed on its
	// way, or because the extent had moved.
	banAfter = 2
	// maxSuspects bounds what is remembered.
	maxSuspects = 100_000
)

// suspects are extents that could not be read.
type suspects map[where]suspect

// where is a place in a segment.
type where struct {
	segment  domain.SegmentID
	position int64
}

type suspect struct {
	reads int // that failed
	until time.Time
}

// failed notes that a read of e failed, and reports whether e is banned now.
func (s suspects) failed(e commit.Extent, now time.Time) bool {
	if mutant.On(mutantCorruptAgain) {
		return false
	}
	if len(s) >= maxSuspects {
		clear(s)
	}
	key := where{e.Segment, e.Position}
	x := suspect{reads: s[key].reads + 1, until: now.Add(banFor)}
	s[key] = x
	return x.reads >= banAfter
}

func (s suspects) isBanned(e commit.Extent, now time.Time) bool {
	x, known := s[where{e.Segment, e.Position}]
	return known && x.reads >= banAfter && now.Before(x.until)
}

// banned counts the extents that are left alone.
func (s suspects) banned(now time.Time) (n int) {
	for _, x := range s {
		if x.reads >= banAfter && now.Before(x.until) {
			n++
		}
	}
	return n
}

// expire forgets those whose time has come, and reports whether one was banned.
func (s suspects) expire(now time.Time) (banned bool) {
	for key, x := range s {
		if !now.Before(x.until) {
			banned = banned || x.reads >= banAfter
			delete(s, key)
		}
	}
	return banned
}
