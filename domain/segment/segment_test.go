package segment_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/segment"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	cluster = domain.ClusterID{0xc1, 1, 2, 3}
	id      = domain.SegmentID{0x5e, 4, 5, 6, 15: 7}
	topicA  = domain.TopicID{0xaa}
	topicB  = domain.TopicID{0xbb, 1}
)

const epoch = 1_700_000_000_000

// newBatch makes a batch of n records whose timestamps rise from first.
func newBatch(tb testing.TB, first int64, n int, p batch.Producer) []byte {
	tb.Helper()
	var b batch.Builder
	for i := range n {
		headers := []domain.Header{{Key: "n", Value: []byte{byte(i)}}}
		b.Append(first+int64(i), fmt.Appendf(nil, "key-%d", i), fmt.Appendf(nil, "value %d of %d", i, n), headers)
	}
	out, err := b.Encode(nil, nil, p)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

type entry struct {
	topic     domain.TopicID
	partition domain.PartitionID
	bytes     []byte
}

// write makes a segment and returns where its batches begin.
func write(tb testing.TB, dst []byte, entries []entry) ([]byte, []int64) {
	tb.Helper()
	w := segment.NewWriter(dst, cluster, id)
	var positions []int64
	for _, e := range entries {
		position, err := w.Add(e.topic, e.partition, e.bytes)
		if err != nil {
			tb.Fatal(err)
		}
		positions = append(positions, position)
	}
	object, sum, err := w.Close()
	if err != nil {
		tb.Fatal(err)
	}
	if want := segment.CRC32C(object); sum != want {
		tb.Fatalf("Close gives checksum %08x, the object has %08x", sum, want)
	}
	return object, positions
}

// goldens are the segments in testdata.
func goldens(tb testing.TB) map[string][]entry {
	someone := batch.Producer{ID: 9, Epoch: 2, Sequence: 100}
	return map[string][]entry{
		"one-batch": {{topicA, 0, newBatch(tb, epoch, 1, batch.NoProducer)}},
		"one-partition": {
			{topicA, 3, newBatch(tb, epoch+50, 2, someone)},
			{topicA, 3, newBatch(tb, epoch, 1, batch.NoProducer)},
		},
		"many-partitions": {
			{topicA, 0, newBatch(tb, epoch, 2, someone)},
			{topicA, 7, newBatch(tb, epoch+1, 1, someone)},
			{topicB, 0, newBatch(tb, epoch+2, 1, batch.NoProducer)},
			{topicB, 0, newBatch(tb, epoch-2, 2, batch.NoProducer)},
			{topicB, 99_999, newBatch(tb, epoch+3, 3, someone)},
		},
	}
}

func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	object, err := os.ReadFile(filepath.Join("testdata", name+".segment"))
	if err != nil {
		tb.Fatal(err)
	}
	return object
}

func requireCorrupt(tb testing.TB, err error) *domain.CorruptError {
	tb.Helper()
	var c *domain.CorruptError
	if !errors.As(err, &c) {
		tb.Fatalf("error is %v, want a *domain.CorruptError", err)
	}
	return c
}

func TestWriter_WritesTheGoldenFiles(t *testing.T) {
	for name, entries := range goldens(t) {
		object, _ := write(t, nil, entries)
		if *update {
			if err := os.WriteFile(filepath.Join("testdata", name+".segment"), object, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(object, golden(t, name)) {
			t.Errorf("%s: the format has changed: raise the version and keep reading the old one", name)
		}
	}
}

func TestVerify_ReadsTheGoldenFiles(t *testing.T) {
	for name, entries := range goldens(t) {
		s, err := segment.Verify(golden(t, name))
		if err != nil {
			t.Fatal(name, err)
		}
		if err := s.CheckIdentity(cluster, id); err != nil {
			t.Fatal(name, err)
		}
		if err := s.VerifyRecords(batch.NewDecoder()); err != nil {
			t.Fatal(name, err)
		}
		var got []entry
		for _, e := range s.Extents {
			for b, err := range s.Batches(e) {
				if err != nil {
					t.Fatal(name, err)
				}
				got = append(got, entry{e.Topic, e.Partition, b.Bytes})
			}
		}
		same := func(a, b entry) bool {
			return a.topic == b.topic && a.partition == b.partition && bytes.Equal(a.bytes, b.bytes)
		}
		if !slices.EqualFunc(got, entries, same) {
			t.Fatalf("%s: the batches are not those that were written", name)
		}
	}
}

func TestOpen_TellsWhatEachExtentHolds(t *testing.T) {
	entries := goldens(t)["many-partitions"]
	object, positions := write(t, nil, entries)
	s, err := segment.Open(object)
	if err != nil {
		t.Fatal(err)
	}
	length := func(i ...int) (n int64) {
		for _, j := range i {
			n += int64(len(entries[j].bytes))
		}
		return n
	}
	want := []segment.Extent{
		{topicA, 0, positions[0], length(0), 2, 1, epoch, epoch + 1},
		{topicA, 7, positions[1], length(1), 1, 1, epoch + 1, epoch + 1},
		{topicB, 0, positions[2], length(2, 3), 3, 2, epoch - 2, epoch + 2},
		{topicB, 99_999, positions[4], length(4), 3, 1, epoch + 3, epoch + 5},
	}
	if !slices.Equal(s.Extents, want) {
		t.Fatalf("extents are\n%+v, want\n%+v", s.Extents, want)
	}
	if positions[0] != segment.HeaderSize || positions[3] != positions[2]+length(2) {
		t.Fatalf("batches begin at %v", positions)
	}
	if s.Size() != segment.Size(length(0, 1, 2, 3, 4), 4) {
		t.Fatalf("Size gives %d, the object has %d", segment.Size(length(0, 1, 2, 3, 4), 4), s.Size())
	}
}

func TestWriter_UsesTheBufferItIsGiven(t *testing.T) {
	entries := goldens(t)["many-partitions"]
	want := golden(t, "many-partitions")
	dst := make([]byte, 5, 5+len(want))
	object, _ := write(t, dst, entries)
	if &object[0] != &dst[:6][5] || !bytes.Equal(object, want) {
		t.Fatal("the segment is not in the buffer that was given")
	}
}

func TestWriter_AcceptsNoBatches(t *testing.T) {
	object, _ := write(t, nil, nil)
	s, err := segment.Verify(object)
	if err != nil || len(s.Extents) != 0 || s.Size() != segment.Size(0, 0) {
		t.Fatalf("got %+v, %v", s, err)
	}
}

func TestWriter_RefusesWhatReadersWouldRefuse(t *testing.T) {
	b := newBatch(t, epoch, 2, batch.NoProducer)
	placed := slices.Clone(b)
	batch.SetBaseOffset(placed, 5)
	for name, bad := range map[string][]byte{
		"nothing": nil, "half a batch": b[:70], "two batches": append(slices.Clone(b), b...), "base offset set": placed,
	} {
		w := segment.NewWriter(nil, cluster, id)
		_, err := w.Add(topicA, 0, bad)
		if c := requireCorrupt(t, err); c.Segment != id {
			t.Errorf("%s: %v does not name the segment", name, err)
		}
		if _, err := w.Add(topicA, 0, b); err != nil || w.Extents()[0].Batches != 1 {
			t.Errorf("%s: the writer is not as before: %v", name, err)
		}
	}
}

func TestWriter_RefusesBatchesOutOfOrder(t *testing.T) {
	b := newBatch(t, epoch, 1, batch.NoProducer)
	w := segment.NewWriter(nil, cluster, id)
	if _, err := w.Add(topicB, 1, b); err != nil {
		t.Fatal(err)
	}
	for _, e := range []entry{{topicB, 0, b}, {topicA, 2, b}, {topicB, -1, b}} {
		if _, err := w.Add(e.topic, e.partition, b); !errors.Is(err, domain.ErrInternal) {
			t.Errorf("topic %s partition %d: %v", e.topic, e.partition, err)
		}
	}
	if _, _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Add(topicB, 1, b); !errors.Is(err, domain.ErrInternal) {
		t.Errorf("Add after Close: %v", err)
	}
	if _, _, err := w.Close(); !errors.Is(err, domain.ErrInternal) {
		t.Errorf("second Close: %v", err)
	}
}

func TestVerify_FindsEveryFlippedBit(t *testing.T) {
	for name := range goldens(t) {
		object := golden(t, name)
		for i := range len(object) * 8 {
			object[i/8] ^= 1 << (i % 8)
			if _, err := segment.Verify(object); !errors.Is(err, domain.ErrCorrupt) {
				t.Fatalf("%s: bit %d of byte %d flipped: %v", name, i%8, i/8, err)
			}
			object[i/8] ^= 1 << (i % 8)
		}
	}
}

func TestVerify_FindsEveryTruncation(t *testing.T) {
	for name := range goldens(t) {
		object := golden(t, name)
		for n := range object {
			if _, err := segment.Verify(object[:n]); !errors.Is(err, domain.ErrCorrupt) {
				t.Fatalf("%s: cut to %d bytes: %v", name, n, err)
			}
			if _, err := segment.Verify(object[n+1:]); !errors.Is(err, domain.ErrCorrupt) {
				t.Fatalf("%s: first %d bytes gone: %v", name, n+1, err)
			}
		}
		_, err := segment.Verify(append(object, 0))
		requireCorrupt(t, err)
	}
}

// reseal sets the checksum of header and footer right after a change of either.
func reseal(object []byte) []byte {
	trailer := object[len(object)-segment.TrailerSize:]
	footer := binary.BigEndian.Uint64(trailer)
	if footer > uint64(len(object)-segment.TrailerSize) {
		footer = segment.HeaderSize
	}
	sum := segment.CRC32C(object[:segment.HeaderSize])
	sum = crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), object[footer:len(object)-12])
	binary.BigEndian.PutUint32(trailer[12:], sum)
	return object
}

func TestCheckIdentity_FindsAnotherSegmentWithARightChecksum(t *testing.T) {
	object := golden(t, "one-batch")
	object[30] ^= 1
	s, err := segment.Verify(reseal(object))
	if err != nil {
		t.Fatal(err)
	}
	if c := requireCorrupt(t, s.CheckIdentity(cluster, id)); c.Segment != id {
		t.Errorf("%v does not name the segment that was asked for", c)
	}
	object[30] ^= 1
	object[12] ^= 1
	if s, err = segment.Verify(reseal(object)); err != nil {
		t.Fatal(err)
	}
	requireCorrupt(t, s.CheckIdentity(cluster, id))
}

func TestOpen_SaysThatTheVersionIsNewer(t *testing.T) {
	object := golden(t, "one-batch")
	binary.BigEndian.PutUint32(object[8:], 2)
	_, err := segment.Open(reseal(object))
	if c := requireCorrupt(t, err); c.Segment != id || !strings.Contains(err.Error(), "format version 2") {
		t.Errorf("error is %q", err)
	}
}

func TestOpen_RefusesAnIndexThatDoesNotFit(t *testing.T) {
	whole := golden(t, "many-partitions")
	trailer := len(whole) - segment.TrailerSize
	footer := int(binary.BigEndian.Uint64(whole[trailer:]))
	first, second := footer+4, footer+4+64
	set64 := func(at int, v int64) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint64(b[at:], uint64(v)) }
	}
	set32 := func(at int, v int32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[at:], uint32(v)) }
	}
	swap := func(b []byte) {
		other := slices.Clone(b[first:second])
		copy(b[first:], b[second:second+64])
		copy(b[second:], other)
	}
	for name, change := range map[string]func([]byte){
		"footer after the end":        set64(trailer, int64(len(whole))),
		"footer far outside":          set64(trailer, -1),
		"footer before the batches":   set64(trailer, 0),
		"footer in the batches":       set64(trailer, int64(footer)-64),
		"footer length too long":      set32(trailer+8, -1),
		"too many extents":            set32(footer, 1<<26+4),
		"too few extents":             set32(footer, 3),
		"extents swapped":             swap,
		"negative partition":          set32(first+16, -1),
		"position outside":            set64(first+20, 1<<40),
		"position before":             set64(second+20, segment.HeaderSize),
		"length outside":              set64(first+28, 1<<62),
		"length zero":                 set64(first+28, 0),
		"length negative":             set64(first+28, -5),
		"no records":                  set64(first+36, 0),
		"no batches":                  set32(first+44, 0),
		"more batches than there fit": set32(first+44, 1<<20),
		"timestamps reversed":         set64(first+48, epoch+1000),
	} {
		object := slices.Clone(whole)
		change(object)
		_, err := segment.Open(reseal(object))
		if c := requireCorrupt(t, err); c.Segment != id {
			t.Errorf("%s: %v does not name the segment", name, err)
		}
	}
}

func TestVerify_ComparesIndexAndBatches(t *testing.T) {
	whole := golden(t, "many-partitions")
	footer := int(binary.BigEndian.Uint64(whole[len(whole)-segment.TrailerSize:]))
	for name, at := range map[string]int{"records": 36 + 7, "batches and records": 44 + 3, "min timestamp": 48 + 7, "max timestamp": 56 + 7} {
		object := slices.Clone(whole)
		object[footer+4+2*64+at]++
		if name == "min timestamp" {
			object[footer+4+2*64+at] -= 2
		}
		reseal(object)
		if _, err := segment.Open(object); err != nil {
			t.Fatalf("%s: Open: %v", name, err)
		}
		_, err := segment.Verify(object)
		requireCorrupt(t, err)
	}
}

func TestKey_IsReadBack(t *testing.T) {
	key := segment.Key(id)
	if got, err := segment.ParseKey(key); err != nil || got != id {
		t.Fatalf("%s is read as %s, %v", key, got, err)
	}
	if len(key) != len("segments/00/")+36 || key[:9] != "segments/" || key[11] != '/' {
		t.Fatalf("key is %s", key)
	}
	for _, bad := range []string{"", "segments", key[1:], "x" + key, key + "x", key + "/", "segments/zz/" + id.String(), id.String()} {
		if _, err := segment.ParseKey(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestKey_SpreadsSegmentsMadeTogether(t *testing.T) {
	shards := map[string]int{}
	next := id
	for i := range 4096 {
		binary.BigEndian.PutUint32(next[12:], uint32(i))
		shards[segment.Key(next)[:11]]++
	}
	if len(shards) != 256 {
		t.Fatalf("4096 keys are in %d of 256 shards", len(shards))
	}
}

func FuzzVerify(f *testing.F) {
	for name := range goldens(f) {
		object, err := os.ReadFile(filepath.Join("testdata", name+".segment"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(object, true)
		f.Add(object[:len(object)/2], false)
	}
	f.Fuzz(func(t *testing.T, object []byte, sealed bool) {
		if sealed && len(object) >= segment.HeaderSize+segment.TrailerSize {
			object = reseal(slices.Clone(object))
		}
		s, err := segment.Verify(object)
		if err != nil {
			requireCorrupt(t, err)
			return
		}
		w := segment.NewWriter(nil, s.Cluster, s.ID)
		for _, e := range s.Extents {
			for b, err := range s.Batches(e) {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Add(e.Topic, e.Partition, b.Bytes); err != nil {
					t.Fatal(err)
				}
			}
		}
		again, _, err := w.Close()
		if err != nil || !bytes.Equal(again, object) {
			t.Fatal("a segment that is right is not written again as it was")
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	one := newBatch(b, epoch, 2000, batch.NoProducer)
	const count = 128
	dst := make([]byte, 0, segment.Size(int64(count*len(one)), count))
	b.SetBytes(int64(count * len(one)))
	b.ReportAllocs()
	for b.Loop() {
		w := segment.NewWriter(dst, cluster, id)
		for i := range count {
			if _, err := w.Add(topicA, domain.PartitionID(i), one); err != nil {
				b.Fatal(err)
			}
		}
		if _, _, err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	one := newBatch(b, epoch, 2000, batch.NoProducer)
	var entries []entry
	for i := range 128 {
		entries = append(entries, entry{topicA, domain.PartitionID(i), one})
	}
	object, _ := write(b, nil, entries)
	b.SetBytes(int64(len(object)))
	for b.Loop() {
		if _, err := segment.Verify(object); err != nil {
			b.Fatal(err)
		}
	}
}
