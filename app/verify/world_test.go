package verify_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/memory"
	"github.com/streamhouse/streamhouse/app/verify"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// world is a log in memory, and what verify is shown of it.
type world struct {
	*testing.T
	meta  *memory.Metadata
	store *memory.Segments
	shown *forged
	o     verify.Options
	ids   []domain.SegmentID // of the segments made, in order
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, meta: memory.NewMetadata(memory.MetadataOptions{Seed: 7}), store: memory.NewSegments()}
	w.shown = &forged{MetadataStore: w.meta}
	return w
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) topic(name string, partitions int32) domain.Topic {
	w.Helper()
	t, err := w.meta.CreateTopic(w.Context(), domain.TopicSpec{Name: name, Partitions: partitions})
	w.ok(err)
	return t
}

// part is batches for one partition: each number is the records of one.
type part struct {
	commit.PartitionKey
	batches []int
}

func of(t domain.Topic, p domain.PartitionID, batches ...int) part {
	return part{commit.PartitionKey{Topic: t.ID, Partition: p}, batches}
}

const firstTime = 1_700_000_000_000

// build makes the object of segment id, and what its commit is. Its parts are
// put into order.
func build(cluster domain.ClusterID, id domain.SegmentID, codec batch.Codec, parts ...part) ([]byte, commit.Segment, error) {
	parts = slices.Clone(parts)
	slices.SortFunc(parts, func(a, b part) int { return memory.ComparePartitions(a.PartitionKey, b.PartitionKey) })
	s := commit.Segment{ID: id}
	out := segment.NewWriter(nil, cluster, id)
	for _, p := range parts {
		for n, records := range p.batches {
			var b batch.Builder
			for r := range records {
				b.Append(firstTime+int64(1000*n+r), nil, fmt.Appendf(nil, "record %d of batch %d, and so on and so on", r, n), nil)
			}
			encoded, err := b.Encode(nil, codec, batch.NoProducer)
			if err != nil {
				return nil, s, err
			}
			position, err := out.Add(p.Topic, p.Partition, encoded)
			if err != nil {
				return nil, s, err
			}
			s.Batches = append(s.Batches, commit.Batch{
				Topic: p.Topic, Partition: p.Partition, Producer: commit.NoProducer, Records: int32(records),
				Position: position, Length: int32(len(encoded)), MaxTimestamp: b.MaxTimestamp(),
			})
		}
	}
	object, crc, err := out.Close()
	s.Size, s.CRC32C = int64(len(object)), crc
	return object, s, err
}

// reserve reserves a segment.
func (w *world) reserve() ports.SegmentRef {
	w.Helper()
	refs, err := w.meta.Reserve(w.Context(), 1)
	w.ok(err)
	return refs[0]
}

// put makes a segment and its object, without committing it.
func (w *world) put(parts ...part) commit.Segment {
	w.Helper()
	ref := w.reserve()
	object, s, err := build(w.meta.ClusterID(), ref.ID, nil, parts...)
	w.ok(err)
	w.ok(w.store.Put(w.Context(), ref.Key, object))
	return s
}

// commit makes a segment and commits it.
func (w *world) commit(parts ...part) domain.SegmentID {
	w.Helper()
	s := w.put(parts...)
	results, err := w.meta.Commit(w.Context(), []commit.Segment{s})
	w.ok(err)
	w.ok(results[0].Err)
	w.ids = append(w.ids, s.ID)
	return s.ID
}

// object returns the bytes of a segment's object.
func (w *world) object(id domain.SegmentID) []byte {
	w.Helper()
	info, err := w.store.Stat(w.Context(), segment.Key(id))
	w.ok(err)
	b, err := w.store.ReadRange(w.Context(), info.Key, 0, info.Size)
	w.ok(err)
	return b
}

// rewrite replaces a segment's object; with nil it only goes.
func (w *world) rewrite(id domain.SegmentID, object []byte) {
	w.Helper()
	w.ok(w.store.Delete(w.Context(), segment.Key(id)))
	if object != nil {
		w.ok(w.store.Put(w.Context(), segment.Key(id), object))
	}
}

// verify demands that the walk can be made.
func (w *world) verify() verify.Report {
	w.Helper()
	r, err := verify.Run(w.Context(), w.shown, w.store, w.o)
	w.ok(err)
	if len(r.Problems) > r.ProblemCount {
		w.Fatalf("%d problems, counted are %d", len(r.Problems), r.ProblemCount)
	}
	return r
}

// clean demands that nothing is found.
func (w *world) clean() verify.Report {
	w.Helper()
	r := w.verify()
	if !r.OK() || len(r.Problems) > 0 || r.Unsettled > 0 {
		w.Fatalf("a clean store: %+v", r)
	}
	return r
}

// forged is a metadata store that answers as if rows were other than they are.
type forged struct {
	ports.MetadataStore
	extents func([]commit.Extent) []commit.Extent
	rows    func([]ports.SegmentRow) []ports.SegmentRow
	states  func(domain.TopicID, []domain.PartitionState)
}

func (f *forged) Extents(ctx context.Context, after ports.ExtentPlace, limit int) ([]ports.ExtentRef, error) {
	if f.extents == nil {
		return f.MetadataStore.Extents(ctx, after, limit)
	}
	real, err := f.MetadataStore.Extents(ctx, ports.FirstExtent, ports.MaxUpkeep)
	all := make([]commit.Extent, len(real))
	for i := range real {
		all[i] = real[i].Extent
	}
	all = f.extents(all)
	slices.SortStableFunc(all, func(a, b commit.Extent) int { return comparePlaces(ports.PlaceOf(a), ports.PlaceOf(b)) })
	page := []ports.ExtentRef{}
	for _, e := range all {
		if comparePlaces(ports.PlaceOf(e), after) > 0 && len(page) < limit {
			page = append(page, ports.ExtentRef{Extent: e, ObjectKey: segment.Key(e.Segment)})
		}
	}
	return page, err
}

func comparePlaces(a, b ports.ExtentPlace) int {
	if c := memory.ComparePartitions(a.PartitionKey, b.PartitionKey); c != 0 {
		return c
	}
	return int(a.Base - b.Base)
}

func (f *forged) Segments(ctx context.Context, after domain.SegmentID, limit int) ([]ports.SegmentRow, error) {
	if f.rows == nil {
		return f.MetadataStore.Segments(ctx, after, limit)
	}
	all, err := f.MetadataStore.Segments(ctx, domain.SegmentID{}, ports.MaxUpkeep)
	page := []ports.SegmentRow{}
	for _, r := range f.rows(all) {
		if bytes.Compare(r.ID[:], after[:]) > 0 && len(page) < limit {
			page = append(page, r)
		}
	}
	return page, err
}

func (f *forged) SegmentsByID(ctx context.Context, ids []domain.SegmentID) ([]ports.SegmentRow, error) {
	if f.rows == nil {
		return f.MetadataStore.SegmentsByID(ctx, ids)
	}
	all, err := f.MetadataStore.Segments(ctx, domain.SegmentID{}, ports.MaxUpkeep)
	return slices.DeleteFunc(f.rows(all), func(r ports.SegmentRow) bool { return !slices.Contains(ids, r.ID) }), err
}

func (f *forged) DescribePartitions(ctx context.Context, id domain.TopicID) ([]domain.PartitionState, error) {
	states, err := f.MetadataStore.DescribePartitions(ctx, id)
	if f.states != nil && err == nil {
		f.states(id, states)
	}
	return states, err
}

// forgeRow changes the row of one segment.
func (w *world) forgeRow(id domain.SegmentID, change func(*ports.SegmentRow)) {
	w.shown.rows = func(rows []ports.SegmentRow) []ports.SegmentRow {
		for i := range rows {
			if rows[i].ID == id {
				change(&rows[i])
			}
		}
		return rows
	}
}

// forgeExtent changes one extent, named by its partition and base offset.
func (w *world) forgeExtent(t domain.Topic, p domain.PartitionID, base domain.Offset, change func(*commit.Extent)) {
	w.shown.extents = func(all []commit.Extent) []commit.Extent {
		for i := range all {
			if all[i].Topic == t.ID && all[i].Partition == p && all[i].Base == base {
				change(&all[i])
				return all
			}
		}
		w.Errorf("no extent of %s/%d at %d", t.Name, p, base)
		return all
	}
}

// forgeState changes the state of one partition.
func (w *world) forgeState(t domain.Topic, p domain.PartitionID, change func(*domain.PartitionState)) {
	w.shown.states = func(id domain.TopicID, states []domain.PartitionState) {
		if id == t.ID {
			change(&states[p])
		}
	}
}

// usual is a log with a bit of everything, and nothing wrong.
type usual struct {
	*world
	orders, events, old domain.Topic
	// a, b and c hold, in this order, batches of orders/0. b and c are of the same size and
	// shape. d holds one batch of orders/1 and one that was refused.
	a, b, c, d domain.SegmentID
	pending    commit.Segment
	garbage    domain.SegmentID
	deleted    domain.SegmentID
}

func newUsual(t *testing.T) *usual {
	u := &usual{world: newWorld(t)}
	u.orders, u.events, u.old = u.topic("orders", 3), u.topic("events", 1), u.topic("old", 1)
	u.a = u.commit(of(u.orders, 0, 3, 2), of(u.orders, 1, 2))
	u.b = u.commit(of(u.orders, 0, 4), of(u.events, 0, 5))
	u.c = u.commit(of(u.orders, 0, 4), of(u.events, 0, 5))
	u.d = u.commit(of(u.orders, 1, 6), of(u.orders, 9, 1))
	u.commit(of(u.old, 0, 1), of(u.events, 0, 1))
	u.ok(u.meta.DeleteTopic(t.Context(), u.old.ID))
	u.pending = u.put(of(u.orders, 0, 1))
	u.reserve()
	u.garbage = u.commit(of(u.orders, 9, 1))
	u.deleted = u.commit(of(u.orders, 9, 1))
	u.rewrite(u.deleted, nil)
	u.ok(u.meta.MarkDeleted(t.Context(), []domain.SegmentID{u.deleted}))
	u.ok(u.meta.Snapshot().Check())
	return u
}
