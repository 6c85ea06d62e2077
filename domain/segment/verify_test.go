package segment_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/segment"
)

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

// withBatch makes a segment of one batch that Add accepts, whatever its records.
func withBatch(t *testing.T, change func(b []byte)) *segment.Segment {
	t.Helper()
	b := newBatch(t, epoch, 3, batch.NoProducer)
	change(b)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	object, _ := write(t, nil, []entry{{topicA, 0, b}})
	s, err := segment.Verify(object)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerifyRecords_FindsWhatOnlyTheRecordsTell(t *testing.T) {
	last := func(b []byte) *byte { return &b[len(b)-1] }
	for name, change := range map[string]func(b []byte){
		"a record that is not right":       func(b []byte) { b[batch.HeaderSize]++ },
		"the last record longer":           func(b []byte) { *last(b) = 1; b[len(b)-2]++ },
		"a max timestamp that no one has":  func(b []byte) { b[42]++ },
		"compressed, but not as it claims": func(b []byte) { b[22] = byte(batch.LZ4) },
	} {
		s := withBatch(t, change)
		err := s.VerifyRecords(batch.NewDecoder(brokenCodec{}))
		if c := requireCorrupt(t, err); c.Segment != id || !strings.Contains(err.Error(), "at position 44") {
			t.Errorf("%s: %v does not say where", name, err)
		}
	}
	s := withBatch(t, func(b []byte) { b[22] = byte(batch.Zstd) })
	if err := s.VerifyRecords(batch.NewDecoder()); !errors.Is(err, domain.ErrCompression) {
		t.Errorf("without the codec: %v", err)
	}
}

// brokenCodec finds everything corrupt.
type brokenCodec struct{}

func (brokenCodec) ID() batch.CodecID { return batch.LZ4 }

func (brokenCodec) Compress(_, _ []byte) ([]byte, error) { return nil, domain.ErrCompression }

func (brokenCodec) Decompress(_, _ []byte, _ int) ([]byte, error) {
	return nil, &domain.CorruptError{What: "broken"}
}

func TestBatches_StopsWhenTheReaderDoes(t *testing.T) {
	s, err := segment.Open(golden(t, "one-partition"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range s.Batches(s.Extents[0]) {
		n++
		break
	}
	if n != 1 {
		t.Fatalf("%d batches", n)
	}
}
