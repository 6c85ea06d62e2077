package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/adapters/fault"
	"github.com/streamhouse/streamhouse/app/verify"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

func TestRun_FindsNothingInACleanStoreAndCountsAllOfIt(t *testing.T) {
	u := newUsual(t)
	r := u.clean()
	if r.Topics != 2 || r.Partitions != 4 || r.Extents != 9 || r.Checked != 5 || r.Walks != 1 {
		t.Errorf("%d topics, %d partitions, %d extents, %d checked in %d walks", r.Topics, r.Partitions, r.Extents, r.Checked, r.Walks)
	}
	if want := (verify.SegmentCounts{Pending: 2, Committed: 5, Deleting: 1, Deleted: 1}); r.Segments != want {
		t.Errorf("segments %+v, want %+v", r.Segments, want)
	}
	var bytes, read int64
	infos, err := u.store.List(t.Context(), "", 100)
	u.ok(err)
	for _, o := range infos {
		bytes += o.Size
		if o.Key != segment.Key(u.garbage) && o.Key != segment.Key(u.pending.ID) {
			read += o.Size
		}
	}
	if r.Objects != 7 || r.Bytes != bytes || r.BytesRead != read {
		t.Errorf("%d objects with %d bytes, %d read; want 7 with %d, %d read", r.Objects, r.Bytes, r.BytesRead, bytes, read)
	}
	g := r.Garbage
	if g.Extents != 1 || g.ExtentBytes == 0 || !slices.Equal(g.Pending.Keys, []string{segment.Key(u.pending.ID)}) || !slices.Equal(g.Deleting.Keys, []string{segment.Key(u.garbage)}) {
		t.Errorf("garbage %+v", g)
	}
	if r.Orphans.Count != 0 || r.Foreign.Count != 0 || r.Cluster != u.meta.ClusterID().String() {
		t.Errorf("orphans %+v, foreign %+v, cluster %s", r.Orphans, r.Foreign, r.Cluster)
	}
}

func TestRun_FindsNothingInAnEmptyStore(t *testing.T) {
	w := newWorld(t)
	if r := w.clean(); r.Objects != 0 || r.Extents != 0 || r.Walks != 1 {
		t.Errorf("%+v", r)
	}
	w.topic("empty", 5)
	if r := w.clean(); r.Topics != 1 || r.Partitions != 5 {
		t.Errorf("%+v", r)
	}
}

func TestRun_FindsNothingAfterTrimAndCompaction(t *testing.T) {
	u := newUsual(t)
	u.compact(u.orders, 0, u.b, u.c)
	for to := range domain.Offset(13) {
		_, err := u.meta.Trim(t.Context(), commit.PartitionKey{Topic: u.orders.ID}, to+1)
		u.ok(err)
		u.clean()
	}
}

// compact puts the extents of a partition in two segments into a new one.
func (w *world) compact(t domain.Topic, p domain.PartitionID, ids ...domain.SegmentID) {
	w.Helper()
	cp := commit.Copy{Position: segment.HeaderSize}
	ref := w.reserve()
	out := segment.NewWriter(nil, w.meta.ClusterID(), ref.ID)
	for _, e := range w.meta.Snapshot().Extents {
		if e.Topic == t.ID && e.Partition == p && slices.Contains(ids, e.Segment) {
			cp.Of = append(cp.Of, e)
			for b := w.object(e.Segment)[e.Position : e.Position+e.Length]; len(b) > 0; {
				h, err := batch.ParseHeader(b)
				w.ok(err)
				_, err = out.Add(t.ID, p, b[:h.Length])
				w.ok(err)
				b = b[h.Length:]
			}
		}
	}
	object, crc, err := out.Close()
	w.ok(err)
	w.ok(w.store.Put(w.Context(), ref.Key, object))
	held, err := w.meta.Replace(w.Context(), commit.Compaction{ID: ref.ID, Size: int64(len(object)), CRC32C: crc, Copies: []commit.Copy{cp}})
	w.ok(err)
	if held != 1 {
		w.Fatalf("%d copies held", held)
	}
}

func TestRun_GivesTheSameReportWhateverFitsIntoMemoryAndAPage(t *testing.T) {
	u := newUsual(t)
	u.rewrite(u.b, nil)
	u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.MaxTimestamp++ })
	want := u.verify()
	for _, o := range []verify.Options{{MemoryExtents: 1}, {MemoryExtents: 2, PageRows: 2}, {MemoryExtents: 3, PageRows: 3}, {PageRows: 2, Workers: 1}, {MemoryExtents: 4, Workers: 64}} {
		u.o = o
		got := u.verify()
		if o.MemoryExtents == 1 && got.Walks != 5 || o.MemoryExtents == 0 && got.Walks != 1 {
			t.Errorf("%+v: %d walks", o, got.Walks)
		}
		got.Walks, got.Seconds = want.Walks, want.Seconds
		if g, w := words(t, got), words(t, want); g != w {
			t.Errorf("%+v gives\n%s, want\n%s", o, g, w)
		}
	}
}

func words(t *testing.T, r verify.Report) string {
	t.Helper()
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRun_ManyTopicsAndPartitionsNeedFewPages(t *testing.T) {
	w := newWorld(t)
	var topics []domain.Topic
	for i := range 200 {
		topics = append(topics, w.topic(fmt.Sprintf("topic-%d", i), 4))
	}
	for range 3 {
		var parts []part
		for _, topic := range topics {
			parts = append(parts, of(topic, 1, 1), of(topic, 3, 2))
		}
		w.commit(parts...)
	}
	pages := 0
	w.shown.extents = func(all []commit.Extent) []commit.Extent { pages++; return all }
	if r := w.clean(); r.Extents != 1200 || r.Topics != 200 || r.Partitions != 800 {
		t.Errorf("%+v", r)
	}
	if pages > 5 {
		t.Errorf("%d pages for 1200 extents", pages)
	}
}

func TestRun_NeverChangesAnything(t *testing.T) {
	u := newUsual(t)
	u.rewrite(u.a, nil)
	u.rewrite(u.deleted, u.object(u.b))
	refuse := func(ctx context.Context, i *fault.Invocation) error {
		if i.Effect {
			t.Errorf("verify called %s", i.Call)
		}
		return i.Run(ctx)
	}
	before := u.meta.Snapshot()
	r, err := verify.Run(t.Context(), fault.NewMetadata(u.meta, refuse), fault.NewSegments(u.store, refuse), verify.Options{Records: true})
	if err != nil || r.OK() {
		t.Errorf("%+v, %v", r, err)
	}
	if fmt.Sprint(before) != fmt.Sprint(u.meta.Snapshot()) {
		t.Error("the metadata is another")
	}
}

func TestRun_ProgressNeverFallsAndEndsAtTheTotal(t *testing.T) {
	u := newUsual(t)
	u.o.PageRows, u.o.MemoryExtents = 2, 2
	u.rewrite(u.a, nil)
	var last verify.Progress
	stages := map[verify.Stage]bool{}
	u.o.Progress = func(p verify.Progress) {
		stages[p.Stage] = true
		if p.Segments < last.Segments || p.TotalSegments < last.TotalSegments || p.Bytes < last.Bytes || p.TotalBytes < last.TotalBytes || p.Problems < last.Problems {
			t.Errorf("%+v after %+v", p, last)
		}
		if p.Segments > p.TotalSegments || p.Bytes > p.TotalBytes {
			t.Errorf("%+v passes its totals", p)
		}
		last = p
	}
	r := u.verify()
	if last.Segments != 5 || last.TotalSegments != 5 || last.Bytes != last.TotalBytes || last.Bytes == 0 || last.Problems != r.ProblemCount || len(stages) != 4 {
		t.Errorf("ends with %+v after the stages %v", last, stages)
	}
}

func TestRun_ReadsEachObjectOnce(t *testing.T) {
	u := newUsual(t)
	var reads, stats atomic.Int32
	count := func(ctx context.Context, i *fault.Invocation) error {
		switch i.Method {
		case "ReadRange":
			reads.Add(1)
		case "Stat":
			stats.Add(1)
		}
		return i.Run(ctx)
	}
	if _, err := verify.Run(t.Context(), u.meta, fault.NewSegments(u.store, count), verify.Options{MemoryExtents: 2, Workers: 3}); err != nil || reads.Load() != 5 || stats.Load() != 5 {
		t.Errorf("%d reads and %d looks at sizes of 5 objects, %v", reads.Load(), stats.Load(), err)
	}
}

func TestRun_EndsSoonAfterItsContext(t *testing.T) {
	for _, method := range []string{"Segments", "List", "ListTopics", "DescribePartitions", "Extents", "Stat", "ReadRange", "SegmentsByID"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUsual(t)
				ctx, cancel := context.WithCancel(t.Context())
				hang := func(ctx context.Context, i *fault.Invocation) error {
					if i.Method != method {
						return i.Run(ctx)
					}
					cancel()
					<-ctx.Done()
					return i.Error(ports.Transient)
				}
				_, err := verify.Run(ctx, fault.NewMetadata(u.meta, hang), fault.NewSegments(u.store, hang), verify.Options{})
				if err == nil {
					t.Error("a walk that was broken off is no error")
				}
			})
		})
	}
}

func TestRun_FailsIfAStoreIsDownAndOutlivesWhatPasses(t *testing.T) {
	for _, method := range []string{"Segments", "List", "ListTopics", "DescribePartitions", "Extents", "SegmentsByID"} {
		for _, lasting := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				u := newUsual(t)
				var calls atomic.Int32
				fail := func(ctx context.Context, i *fault.Invocation) error {
					if i.Method == method && (lasting || calls.Add(1) <= 2) {
						return i.Error(ports.Transient)
					}
					return i.Run(ctx)
				}
				r, err := verify.Run(t.Context(), fault.NewMetadata(u.meta, fail), fault.NewSegments(u.store, fail), verify.Options{})
				if lasting != errors.Is(err, fault.ErrInjected) || !r.OK() {
					t.Errorf("%s, lasting %t: %+v, %v", method, lasting, r, err)
				}
			})
		}
	}
}

func TestRun_TellsObjectsThatCannotBeReadFromAStoreThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.topic("orders", 1)
		for range 40 {
			w.commit(of(topic, 0, 1))
		}
		broken := func(n int) fault.Interceptor {
			return func(ctx context.Context, i *fault.Invocation) error {
				if at := slices.IndexFunc(w.ids, func(id domain.SegmentID) bool { return strings.Contains(i.Subject, id.String()) }); i.Method == "ReadRange" && at < n {
					return i.Error(ports.Transient)
				}
				return i.Run(ctx)
			}
		}
		r, err := verify.Run(t.Context(), w.meta, fault.NewSegments(w.store, broken(2)), verify.Options{})
		if err != nil || r.ProblemCount != 2 || r.Problems[1].Kind != verify.UnreadableObject || r.Problems[1].Offset != 1 || r.Checked != 38 {
			t.Errorf("two unreadable objects: %+v, %v", r, err)
		}
		if _, err = verify.Run(t.Context(), w.meta, fault.NewSegments(w.store, broken(40)), verify.Options{}); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("a store that is down: %v", err)
		}
	})
}

func TestRun_BoundsTheProblemsThatItKeeps(t *testing.T) {
	u := newUsual(t)
	for _, id := range []domain.SegmentID{u.a, u.b, u.c, u.d} {
		u.rewrite(id, nil)
	}
	u.o.MaxProblems = 3
	if r := u.verify(); len(r.Problems) != 3 || r.ProblemCount != 4 || r.OK() {
		t.Errorf("%d problems of %d", len(r.Problems), r.ProblemCount)
	}
}

func TestRun_RefusesOptionsOutOfRange(t *testing.T) {
	w := newWorld(t)
	for _, o := range []verify.Options{{MaxProblems: -1}, {Workers: 257}, {Workers: -1}, {MemoryExtents: -1}, {PageRows: 1}, {PageRows: ports.MaxUpkeep + 1}} {
		if _, err := verify.Run(t.Context(), w.meta, w.store, o); !errors.Is(err, domain.ErrConfig) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestRun_DecodesRecordsWithTheCodecsItIsGiven(t *testing.T) {
	w := newWorld(t)
	topic := w.topic("orders", 1)
	w.commit(of(topic, 0, 2))
	ref := w.reserve()
	object, s, err := build(w.meta.ClusterID(), ref.ID, codec.NewLZ4(), of(topic, 0, 30, 50))
	w.ok(err)
	w.ok(w.store.Put(t.Context(), ref.Key, object))
	_, err = w.meta.Commit(t.Context(), []commit.Segment{s})
	w.ok(err)
	w.o.Records, w.o.Codecs = true, []batch.Codec{codec.NewLZ4()}
	w.clean()
	w.o.Codecs = nil
	r := w.verify()
	if r.ProblemCount != 1 || r.Problems[0].Kind != verify.CorruptRecords || r.Problems[0].Offset != 2 || r.Problems[0].Topic != "orders" {
		t.Errorf("without the codec: %+v", r.Problems)
	}
}

func TestReport_IsReadableAsJSON(t *testing.T) {
	u := newUsual(t)
	u.rewrite(u.d, nil)
	text := words(t, u.verify())
	for _, want := range []string{`"kind": "missing-object"`, `"topic": "orders"`, `"partition": 1`, `"offset": 2`, `"problem_count": 1`, u.d.String(), `"committed": 5`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
}
