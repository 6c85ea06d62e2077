package segment_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
