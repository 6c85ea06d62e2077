package ports_test

import (
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

func TestSources_LocateEveryByteTheyCover(t *testing.T) {
	one, two := domain.SegmentID{1}, domain.SegmentID{2}
	sources := ports.Sources{{Segment: one, Position: 100, Length: 3}, {Segment: two, Position: 50, Length: 2}}
	for at, want := range []struct {
		id       domain.SegmentID
		position int64
	}{{one, 100}, {one, 101}, {one, 102}, {two, 50}, {two, 51}} {
		if id, position, known := sources.Locate(int64(at)); id != want.id || position != want.position || !known {
			t.Errorf("byte %d is at %d of segment %s (%t), want %d of %s", at, position, id, known, want.position, want.id)
		}
	}
	for _, at := range []int64{-1, 5, 6} {
		if _, _, known := sources.Locate(at); known {
			t.Errorf("byte %d is known", at)
		}
	}
}
