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

func TestSources_SkipLeavesTheBytesBehindWhereTheyAre(t *testing.T) {
	sources := ports.Sources{{Segment: domain.SegmentID{1}, Position: 100, Length: 3}, {Segment: domain.SegmentID{2}, Position: 50, Length: 2}}
	for n := range int64(7) {
		rest := sources.Skip(n)
		for at := range int64(7) {
			id, position, known := rest.Locate(at)
			wantID, wantPosition, wantKnown := sources.Locate(n + at)
			if id != wantID || position != wantPosition || known != wantKnown {
				t.Errorf("byte %d behind %d is at %d of segment %s (%t), want %d of %s", at, n, position, id, known, wantPosition, wantID)
			}
		}
	}
	if sources[0].Length != 3 || sources[0].Position != 100 {
		t.Error("what was asked has changed")
	}
}
