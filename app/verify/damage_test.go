package verify_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/app/verify"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/segment"
	"github.com/streamhouse/streamhouse/ports"
)

// found is a problem as the table names it: "kind topic/partition@offset", and
// the segment if it is of one.
func found(u *usual, p verify.Problem) string {
	s := string(p.Kind)
	if p.TopicID != "" {
		s += " " + cmp.Or(p.Topic, p.TopicID) + fmt.Sprintf("/%d@%d", p.Partition, p.Offset)
	}
	for name, id := range map[string]domain.SegmentID{"a": u.a, "b": u.b, "c": u.c, "d": u.d, "garbage": u.garbage} {
		if p.Segment == id.String() {
			s += " in " + name
		}
	}
	return s
}

// In usual, orders/0 has offsets 0 to 4 in a, 5 to 8 in b and 9 to 12 in c; orders/1 has 0 and 1 in
// a and 2 to 7 in d; events/0 has 0 to 4 in b, 5 to 9 in c and 10 in a segment without a name.
func TestRun_FindsEachDamageAndItsPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(*usual)
		want   []string // in any order
	}{
		{"a bit in a batch", func(u *usual) {
			u.flip(u.b, u.extent(u.orders, 0, 5).Position+70)
		}, []string{"corrupt-object orders/0@5 in b"}},
		{"a bit in the second batch of an extent", func(u *usual) {
			e := u.extent(u.orders, 0, 0)
			u.flip(u.a, e.Position+e.Length-1)
		}, []string{"corrupt-object orders/0@3 in a"}},
		{"bits in the batches of two partitions", func(u *usual) {
			u.flip(u.c, u.extent(u.orders, 0, 9).Position+20)
			u.flip(u.c, u.extent(u.events, 0, 5).Position+8)
		}, []string{"corrupt-object orders/0@9 in c", "corrupt-object events/0@5 in c"}},
		{"a bit in the footer", func(u *usual) {
			u.flip(u.d, int64(len(u.object(u.d)))-segment.TrailerSize-1)
		}, []string{"corrupt-object orders/1@2 in d"}},
		{"a bit in the header", func(u *usual) { u.flip(u.d, 3) }, []string{"corrupt-object orders/1@2 in d"}},
		{"a bit in a batch that was refused", func(u *usual) {
			u.flip(u.d, int64(len(u.object(u.d)))-segment.TrailerSize-4-2*64-1)
		}, []string{"corrupt-object orders/1@2 in d"}},
		{"an object that is cut off", func(u *usual) {
			b := u.object(u.a)
			u.rewrite(u.a, b[:len(b)-1])
		}, []string{"wrong-size orders/0@0 in a"}},
		{"an object that is cut off in its header", func(u *usual) { u.rewrite(u.a, u.object(u.a)[:9]) }, []string{"wrong-size orders/0@0 in a"}},
		{"an empty object", func(u *usual) { u.rewrite(u.a, []byte{}) }, []string{"wrong-size orders/0@0 in a"}},
		{"an object with more behind it", func(u *usual) { u.rewrite(u.a, append(u.object(u.a), 0)) }, []string{"wrong-size orders/0@0 in a"}},
		{"no object", func(u *usual) { u.rewrite(u.c, nil) }, []string{"missing-object first in c"}},
		{"another segment's object of the same size", func(u *usual) { u.rewrite(u.b, u.object(u.c)) }, []string{"wrong-identity first in b"}},
		{"another segment's object of another size", func(u *usual) { u.rewrite(u.b, u.object(u.a)) }, []string{"wrong-identity first in b"}},
		{"another cluster's object", func(u *usual) {
			object, _, err := build(domain.ClusterID{1}, u.d, nil, of(u.orders, 1, 6), of(u.orders, 9, 1))
			u.ok(err)
			u.rewrite(u.d, object)
		}, []string{"wrong-identity orders/1@2 in d"}},
		{"a row with another size", func(u *usual) {
			u.forgeRow(u.d, func(r *ports.SegmentRow) { r.Size++ })
		}, []string{"wrong-size orders/1@2 in d"}},
		{"a row with a size that no segment has", func(u *usual) {
			u.forgeRow(u.d, func(r *ports.SegmentRow) { r.Size = 1 << 60 })
		}, []string{"wrong-size orders/1@2 in d"}},
		{"a row with another checksum", func(u *usual) {
			u.forgeRow(u.d, func(r *ports.SegmentRow) { r.CRC32C ^= 1 })
		}, []string{"wrong-checksum orders/1@2 in d"}},
		{"a row with another key", func(u *usual) {
			u.forgeRow(u.d, func(r *ports.SegmentRow) { r.Key = segment.Key(u.a) })
		}, []string{"wrong-key in d"}},
		{"other content under the same name", func(u *usual) {
			object, _, err := build(u.meta.ClusterID(), u.d, nil, of(u.orders, 1, 5), of(u.orders, 9, 2))
			u.ok(err)
			u.rewrite(u.d, object)
			u.forgeRow(u.d, func(r *ports.SegmentRow) { r.Size, r.CRC32C = int64(len(object)), segment.CRC32C(object) })
		}, []string{"wrong-extent orders/1@2 in d"}},

		{"a gap in the offsets", func(u *usual) {
			u.forgeExtents(func(e commit.Extent) bool { return e.Segment == u.b && e.Topic == u.orders.ID }, nil)
		}, []string{"offset-gap orders/0@5", "wrong-live-count events/0@0 in b"}},
		{"the first extent gone", func(u *usual) {
			u.forgeExtents(func(e commit.Extent) bool { return e.Segment == u.a && e.Partition == 0 }, nil)
		}, []string{"wrong-log-start orders/0@0", "wrong-live-count orders/1@0 in a"}},
		{"the last extent gone", func(u *usual) {
			u.forgeExtents(func(e commit.Extent) bool { return e.Segment == u.c && e.Topic == u.orders.ID }, nil)
		}, []string{"wrong-high-watermark orders/0@9", "wrong-live-count events/0@5 in c"}},
		{"all extents of a partition gone", func(u *usual) {
			u.forgeExtents(func(e commit.Extent) bool { return e.Key() == commit.PartitionKey{Topic: u.orders.ID, Partition: 1} }, nil)
		}, []string{"wrong-high-watermark orders/1@0", "wrong-live-count orders/0@0 in a", "wrong-live-count in d"}},
		{"an extent twice", func(u *usual) {
			u.forgeExtents(nil, func(all []commit.Extent) []commit.Extent {
				e := u.extent(u.orders, 0, 5)
				e.Base, e.Last = e.Base+1, e.Last+1
				return append(all, e)
			})
		}, []string{"offset-overlap orders/0@6", "offset-overlap orders/0@9", "wrong-live-count first in b"}},
		{"extents that overlap", func(u *usual) {
			u.forgeExtent(u.orders, 0, 5, func(e *commit.Extent) { e.Last += 2 })
		}, []string{"offset-overlap orders/0@9", "wrong-extent orders/0@5 in b"}},
		{"an extent at another position", func(u *usual) {
			u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.Position++ })
		}, []string{"wrong-extent orders/1@2 in d"}},
		{"an extent outside the object", func(u *usual) {
			u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.Position = 1<<63 - 1 })
		}, []string{"wrong-extent orders/1@2 in d"}},
		{"an extent at the place of another partition's", func(u *usual) {
			o, e := u.extent(u.orders, 0, 5), u.extent(u.events, 0, 0)
			u.forgeExtents(nil, func(all []commit.Extent) []commit.Extent {
				for i := range all {
					if all[i].Segment == u.b && all[i].Topic == u.orders.ID {
						all[i].Position = e.Position
					}
				}
				return all
			})
			if o.Length >= e.Length {
				u.Fatal("the other place is too small for the case")
			}
		}, []string{"wrong-extent orders/0@5 in b"}},
		{"an extent of another length", func(u *usual) {
			u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.Length-- })
		}, []string{"wrong-bytes orders/1@-1", "wrong-extent orders/1@2 in d"}},
		{"an extent of no length", func(u *usual) {
			u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.Length = -e.Length })
		}, []string{"wrong-extent orders/1@2", "wrong-extent orders/1@2 in d"}},
		{"an extent with other records", func(u *usual) {
			u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.Last++ })
			u.forgeState(u.orders, 1, func(s *domain.PartitionState) { s.HighWatermark++ })
		}, []string{"wrong-extent orders/1@2 in d"}},
		{"an extent with other batches", func(u *usual) {
			u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.Batches++ })
		}, []string{"wrong-extent orders/1@2 in d"}},
		{"an extent with another newest record", func(u *usual) {
			u.forgeExtent(u.orders, 0, 0, func(e *commit.Extent) { e.MaxTimestamp-- })
		}, []string{"wrong-extent orders/0@0 in a"}},
		{"two extents with the same bytes", func(u *usual) {
			u.forgeExtents(nil, func(all []commit.Extent) []commit.Extent {
				for i := range all {
					if all[i].Segment == u.a && all[i].Partition == 0 {
						one := all[i]
						one.Length, one.Batches, one.Last, one.MaxTimestamp = u.lengthOfFirst(one), 1, 2, firstTime+2
						other := one
						other.Base, other.Last = 3, 5
						all[i] = one
						return append(all, other)
					}
				}
				return all
			})
			u.forgeRow(u.a, func(r *ports.SegmentRow) { r.Live = 3 })
		}, []string{"offset-overlap orders/0@5", "wrong-extent orders/0@3 in a"}},
		{"an extent of a segment that does not exist", func(u *usual) {
			u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.Segment[15] ^= 1 })
		}, []string{"dangling-extent orders/1@2", "wrong-live-count in d"}},
		{"an extent of a segment that is garbage", func(u *usual) {
			u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.Segment = u.garbage })
		}, []string{"dangling-extent orders/1@2 in garbage", "wrong-live-count in d"}},
		{"an extent of a segment that is deleted", func(u *usual) {
			u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.Segment = u.deleted })
		}, []string{"dangling-extent orders/1@2", "wrong-live-count in d"}},
		{"an extent of a segment that was never committed", func(u *usual) {
			u.forgeExtent(u.orders, 1, 2, func(e *commit.Extent) { e.Segment = u.pending.ID })
		}, []string{"dangling-extent orders/1@2", "wrong-live-count in d"}},
		{"extents of a partition that is not there", func(u *usual) {
			u.forgeExtents(nil, func(all []commit.Extent) []commit.Extent {
				for i := range all {
					if all[i].Segment == u.d {
						all[i].Partition = 3
					}
				}
				return all
			})
		}, []string{"no-partition orders/3@2", "wrong-high-watermark orders/1@2", "wrong-extent orders/3@2 in d"}},
		{"a row lost", func(u *usual) {
			u.shown.rows = func(rows []ports.SegmentRow) []ports.SegmentRow {
				return slices.DeleteFunc(rows, func(r ports.SegmentRow) bool { return r.ID == u.d })
			}
		}, []string{"dangling-extent orders/1@2 in d"}},

		{"a live count one too high", func(u *usual) {
			u.forgeRow(u.b, func(r *ports.SegmentRow) { r.Live++ })
		}, []string{"wrong-live-count first in b"}},
		{"a live count one too low", func(u *usual) {
			u.forgeRow(u.a, func(r *ports.SegmentRow) { r.Live-- })
		}, []string{"wrong-live-count orders/0@0 in a"}},
		{"a live count that is absurd", func(u *usual) {
			u.forgeRow(u.d, func(r *ports.SegmentRow) { r.Live = 1 << 50 })
		}, []string{"wrong-live-count orders/1@2 in d"}},
		{"a committed segment without live extents", func(u *usual) {
			u.forgeRow(u.garbage, func(r *ports.SegmentRow) { r.State = ports.SegmentCommitted })
		}, []string{"wrong-state in garbage"}},
		{"garbage that says it is in use", func(u *usual) {
			u.forgeRow(u.garbage, func(r *ports.SegmentRow) { r.Live = 1 })
		}, []string{"wrong-state in garbage", "wrong-live-count in garbage"}},
		{"a segment in use that is garbage", func(u *usual) {
			u.forgeRow(u.d, func(r *ports.SegmentRow) { r.State = ports.SegmentDeleting })
		}, []string{"wrong-state orders/1@2 in d"}},

		{"a high watermark beyond the extents", func(u *usual) {
			u.forgeState(u.orders, 0, func(s *domain.PartitionState) { s.HighWatermark++ })
		}, []string{"wrong-high-watermark orders/0@13"}},
		{"a high watermark below the last extent", func(u *usual) {
			u.forgeState(u.orders, 0, func(s *domain.PartitionState) { s.HighWatermark-- })
		}, []string{"wrong-high-watermark orders/0@12"}},
		{"a high watermark and no extents", func(u *usual) {
			u.forgeState(u.orders, 2, func(s *domain.PartitionState) { s.HighWatermark = 7 })
		}, []string{"wrong-high-watermark orders/2@0"}},
		{"a log start behind the first extent", func(u *usual) {
			u.forgeState(u.orders, 0, func(s *domain.PartitionState) { s.LogStart = 5 })
		}, []string{"wrong-log-start orders/0@5"}},
		{"a log start before the first extent", func(u *usual) {
			_, err := u.meta.Trim(u.Context(), commit.PartitionKey{Topic: u.orders.ID}, 6)
			u.ok(err)
			u.forgeState(u.orders, 0, func(s *domain.PartitionState) { s.LogStart = 4 })
		}, []string{"wrong-log-start orders/0@4"}},
		{"a log start above the high watermark", func(u *usual) {
			u.forgeState(u.orders, 2, func(s *domain.PartitionState) { s.LogStart = 1 })
		}, []string{"wrong-log-start orders/2@1"}},
		{"another sum of bytes", func(u *usual) {
			u.forgeState(u.orders, 0, func(s *domain.PartitionState) { s.Bytes-- })
		}, []string{"wrong-bytes orders/0@-1"}},
		{"a sum of bytes and no extents", func(u *usual) {
			u.forgeState(u.orders, 2, func(s *domain.PartitionState) { s.Bytes = 1 })
		}, []string{"wrong-bytes orders/2@-1"}},
	} {
		for _, o := range []verify.Options{{}, {PageRows: 2, MemoryExtents: 2}} {
			t.Run(strings.ReplaceAll(fmt.Sprintf("%s, pages of %d", c.name, o.PageRows), " ", "_"), func(t *testing.T) {
				u := newUsual(t)
				c.damage(u)
				u.o = o
				r := u.verify()
				var got []string
				for _, p := range r.Problems {
					got = append(got, found(u, p))
					if p.What == "" {
						t.Errorf("%+v says nothing", p)
					}
				}
				want := make([]string, len(c.want))
				for i, w := range c.want {
					want[i] = u.resolve(w)
				}
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) || r.ProblemCount != len(want) || r.OK() || r.Unsettled != 0 {
					t.Errorf("found\n%s\nwant\n%s\n%+v", strings.Join(got, "\n"), strings.Join(want, "\n"), r.Problems)
				}
			})
		}
	}
}

// resolve puts the place in for "first in b": what concerns a segment as a whole
// is told at the extent that comes first in it, and which topic that is of is a matter of ids.
func (u *usual) resolve(want string) string {
	kind, name, ok := strings.Cut(want, " first in ")
	if !ok {
		return want
	}
	id := map[string]domain.SegmentID{"b": u.b, "c": u.c}[name]
	for _, e := range u.meta.Snapshot().Extents {
		if e.Segment == id && e.Position == segment.HeaderSize {
			topic := map[domain.TopicID]string{u.orders.ID: "orders", u.events.ID: "events"}[e.Topic]
			return fmt.Sprintf("%s %s/%d@%d in %s", kind, topic, e.Partition, e.Base, name)
		}
	}
	u.Fatalf("no extent is the first in %s", name)
	return ""
}

func (u *usual) extent(t domain.Topic, p domain.PartitionID, base domain.Offset) commit.Extent {
	u.Helper()
	for _, e := range u.meta.Snapshot().Extents {
		if e.Topic == t.ID && e.Partition == p && e.Base == base {
			return e
		}
	}
	u.Fatalf("no extent of %s/%d at %d", t.Name, p, base)
	return commit.Extent{}
}

// lengthOfFirst returns the length of the first batch of an extent.
func (u *usual) lengthOfFirst(e commit.Extent) int64 {
	u.Helper()
	h, err := batch.ParseHeader(u.object(e.Segment)[e.Position:])
	u.ok(err)
	return int64(h.Length)
}

func (u *usual) flip(id domain.SegmentID, at int64) {
	u.Helper()
	b := u.object(id)
	b[at] ^= 0x10
	u.rewrite(id, b)
}

// forgeExtents leaves out the extents that gone picks, and changes the rest.
func (u *usual) forgeExtents(gone func(commit.Extent) bool, change func([]commit.Extent) []commit.Extent) {
	u.shown.extents = func(all []commit.Extent) []commit.Extent {
		if gone != nil {
			all = slices.DeleteFunc(all, gone)
		}
		if change != nil {
			all = change(all)
		}
		return all
	}
}

func TestRun_FindsEveryFlippedBitOfAnObject(t *testing.T) {
	u := newUsual(t)
	object := u.object(u.a)
	for at := range object {
		bit := byte(1) << (at % 8)
		object[at] ^= bit
		u.rewrite(u.a, slices.Clone(object))
		r := u.verify()
		if r.ProblemCount != 1 || r.Problems[0].Segment != u.a.String() || r.Problems[0].Kind != verify.CorruptObject {
			t.Fatalf("bit %d of byte %d: %+v", bit, at, r.Problems)
		}
		object[at] ^= bit
	}
	u.rewrite(u.a, object)
	u.clean()
}

func TestRun_FindsEveryTruncation(t *testing.T) {
	u := newUsual(t)
	object := u.object(u.a)
	for n := range object {
		u.rewrite(u.a, object[:n])
		if r := u.verify(); r.ProblemCount != 1 || r.Problems[0].Kind != verify.WrongSize || r.Problems[0].Segment != u.a.String() {
			t.Fatalf("%d bytes of %d: %+v", n, len(object), r.Problems)
		}
	}
}

func TestRun_FindsRecordsThatDoNotDecodeInBatchesWhoseChecksumIsRight(t *testing.T) {
	w := newWorld(t)
	topic := w.topic("orders", 1)
	ref := w.reserve()
	var good, bad batch.Builder
	good.Append(firstTime, nil, []byte("good"), nil)
	bad.Append(firstTime, nil, []byte("bad"), nil)
	first, err := good.Encode(nil, nil, batch.NoProducer)
	w.ok(err)
	second, err := bad.Encode(nil, nil, batch.NoProducer)
	w.ok(err)
	second[batch.HeaderSize] ^= 2 // the length of the record
	batch.SetProducer(second, batch.NoProducer)
	out := segment.NewWriter(nil, w.meta.ClusterID(), ref.ID)
	s := commit.Segment{ID: ref.ID}
	for _, b := range [][]byte{first, second} {
		position, err := out.Add(topic.ID, 0, b)
		w.ok(err)
		s.Batches = append(s.Batches, commit.Batch{Topic: topic.ID, Producer: commit.NoProducer, Records: 1, Position: position, Length: int32(len(b)), MaxTimestamp: firstTime})
	}
	object, crc, err := out.Close()
	w.ok(err)
	s.Size, s.CRC32C = int64(len(object)), crc
	w.ok(w.store.Put(t.Context(), ref.Key, object))
	_, err = w.meta.Commit(t.Context(), []commit.Segment{s})
	w.ok(err)
	w.clean()
	w.o.Records = true
	if r := w.verify(); r.ProblemCount != 1 || r.Problems[0].Kind != verify.CorruptRecords || r.Problems[0].Offset != 1 {
		t.Errorf("%+v", r.Problems)
	}
}

// Leftovers are told apart from damage.
func TestRun_TellsLeftoversFromDamage(t *testing.T) {
	u := newUsual(t)
	before := u.clean()
	key := func(n byte) domain.SegmentID { return domain.SegmentID{15: n} }
	put := func(key string, object []byte) { u.ok(u.store.Put(t.Context(), key, object)) }
	orphan, _, err := build(u.meta.ClusterID(), key(1), nil, of(u.orders, 0, 1))
	u.ok(err)
	foreign, _, err := build(domain.ClusterID{9}, key(2), nil, of(u.orders, 0, 1))
	u.ok(err)
	late, _, err := build(u.meta.ClusterID(), u.deleted, nil, of(u.orders, 0, 1))
	u.ok(err)
	put(segment.Key(key(1)), orphan)
	put(segment.Key(key(2)), foreign)
	put(segment.Key(u.deleted), late)
	put(segment.Key(key(3)), orphan) // a segment under another's name
	put(segment.Key(key(4)), []byte("short"))
	put("segments/notes", orphan)
	put("backup/of/everything", []byte("x"))
	r := u.clean()
	slices.Sort(r.Orphans.Keys)
	want := []string{segment.Key(key(1)), segment.Key(u.deleted)}
	slices.Sort(want)
	if !slices.Equal(r.Orphans.Keys, want) || r.Orphans.Count != 2 || r.Orphans.Bytes != int64(len(orphan)+len(late)) {
		t.Errorf("orphans %+v, want %v", r.Orphans, want)
	}
	if r.Foreign.Count != 5 || r.Foreign.Bytes != int64(len(foreign)+len(orphan)+5+len(orphan)+1) {
		t.Errorf("foreign %+v", r.Foreign)
	}
	if r.Garbage.Pending.Count != 1 || r.Garbage.Deleting.Count != 1 || r.Objects != before.Objects+7 {
		t.Errorf("garbage %+v in %d objects", r.Garbage, r.Objects)
	}
	u.rewrite(u.garbage, nil) // collected, and not marked yet
	if r = u.clean(); r.Garbage.Deleting.Count != 0 {
		t.Errorf("garbage %+v", r.Garbage)
	}
}
