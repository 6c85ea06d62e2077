package chaos

import (
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/app/verify"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/ports"
)

// Inspect demands that the log is whole, and that upkeep leaves nothing behind.
func Inspect(t *testing.T, m ports.MetadataStore, s ports.SegmentStore) {
	t.Helper()
	check := func(when string) verify.Report {
		t.Helper()
		r, err := verify.Run(t.Context(), m, s, verify.Options{Records: true, Codecs: []batch.Codec{codec.NewLZ4()}})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Problems {
			t.Errorf("%s: %+v", when, p)
		}
		return r
	}
	r := check("after the run")
	t.Logf("before upkeep: %d segments, %d extents, %d objects, %d uploaded and not committed, %d orphans",
		r.Segments.Committed, r.Extents, r.Objects, r.Garbage.Pending.Count, r.Orphans.Count)
	cfg := janitor.DefaultConfig()
	cfg.ReservationGrace, cfg.DeleteGrace, cfg.SweepAge, cfg.SweepShare = 0, 0, 0, 1
	cfg.CompactAfter, cfg.CompactBytesPerSecond = 0, 0
	j := janitor.New(m, s, ports.NoTelemetry{}, cfg)
	for range 3 {
		if _, err := j.Once(t.Context(), true); err != nil {
			t.Error(err)
		}
	}
	r = check("after upkeep")
	t.Logf("after upkeep: %d segments, %d extents, %d objects", r.Segments.Committed, r.Extents, r.Objects)
	// A process that was cut off as it opened the bucket has left the object of its probe.
	for _, key := range r.Foreign.Keys {
		if !strings.HasPrefix(key, "probe/") {
			t.Errorf("nobody knows object %s", key)
		}
	}
	if r.Objects-r.Foreign.Count != r.Segments.Committed || r.Orphans.Count+r.Garbage.Pending.Count+r.Garbage.Deleting.Count != 0 {
		t.Errorf("upkeep has left %d objects for %d segments: %+v %+v", r.Objects, r.Segments.Committed, r.Garbage, r.Orphans)
	}
}
