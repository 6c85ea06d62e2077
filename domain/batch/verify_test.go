package batch_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldens are the batches in testdata.
func goldens(tb testing.TB) map[string][]byte {
	return map[string][]byte{
		"one-empty-record": encode(tb, samples[1:2], nil, batch.NoProducer),
		"samples":          encode(tb, samples, nil, somebody),
		"no-producer":      encode(tb, samples[:4], nil, batch.NoProducer),
	}
}

func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".batch"))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestEncode_WritesTheGoldenFiles(t *testing.T) {
	for name, b := range goldens(t) {
		if *update {
			if err := os.WriteFile(filepath.Join("testdata", name+".batch"), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(b, golden(t, name)) {
			t.Errorf("%s: other bytes than before: retries and other programs depend on them", name)
		}
	}
}

func TestDecode_ReadsTheGoldenFiles(t *testing.T) {
	got, err := read(golden(t, "samples"), 0)
	if err != nil {
		t.Fatal(err)
	}
	requireItems(t, got, samples)
}

func TestVerify_FindsEveryFlippedBitOfAStoredBatch(t *testing.T) {
	for name := range goldens(t) {
		b := golden(t, name)
		for i := range len(b) * 8 {
			b[i/8] ^= 1 << (i % 8)
			_, err := batch.Verify(b)
			if err == nil {
				err = batch.VerifyStored(b)
			}
			if err == nil {
				t.Fatalf("%s: bit %d of byte %d flipped is not seen", name, i%8, i/8)
			}
			requireCorrupt(t, err)
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

func TestVerify_FindsEveryTruncationAndTrailingBytes(t *testing.T) {
	b := golden(t, "samples")
	for n := range b {
		_, err := batch.Verify(b[:n])
		requireCorrupt(t, err)
	}
	for _, more := range [][]byte{{0}, b} {
		long := append(slices.Clone(b), more...)
		_, err := batch.Verify(long)
		requireCorrupt(t, err)
		if h, err := batch.ParseHeader(long); err != nil || h.Length != len(b) {
			t.Fatalf("the first of several batches: %+v, %v", h, err)
		}
	}
}

func TestVerifyStored_AcceptsOnlyWhatEncodeWrites(t *testing.T) {
	b := golden(t, "samples")
	if err := batch.VerifyStored(b); err != nil {
		t.Fatal(err)
	}
	batch.SetBaseOffset(b, 1)
	requireCorrupt(t, batch.VerifyStored(b))
	requireCorrupt(t, batch.VerifyStored(b[:60]))
}

func TestSetBaseOffset_KeepsTheChecksumRight(t *testing.T) {
	b := golden(t, "samples")
	batch.SetBaseOffset(b, 1<<40)
	h, err := batch.Verify(b)
	if err != nil || h.BaseOffset != 1<<40 {
		t.Fatalf("%+v, %v", h, err)
	}
}

func TestParseHeader_TellsWhatTheBatchHolds(t *testing.T) {
	b := golden(t, "samples")
	got, err := batch.ParseHeader(b)
	want := batch.Header{
		Length: len(b), LeaderEpoch: -1, CRC: binary.BigEndian.Uint32(b[17:]), LastOffsetDelta: 4, Records: 5,
		BaseTimestamp: samples[0].timestamp, MaxTimestamp: samples[4].timestamp, Producer: somebody,
	}
	if err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestParseHeader_TreatsEveryBatchWithoutProducerIDAlike(t *testing.T) {
	b := golden(t, "no-producer")
	binary.BigEndian.PutUint16(b[51:], 0)
	binary.BigEndian.PutUint32(b[53:], 0)
	if h, err := batch.ParseHeader(b); err != nil || h.Producer != batch.NoProducer {
		t.Fatalf("%+v, %v", h.Producer, err)
	}
}

func TestVerify_RefusesHeadersThatCannotBeRight(t *testing.T) {
	whole := golden(t, "samples")
	be := binary.BigEndian
	for name, c := range map[string]struct {
		change func(b []byte)
		says   string
	}{
		"older magic":            {func(b []byte) { b[16] = 1 }, "magic 1"},
		"newer magic":            {func(b []byte) { b[16] = 3 }, "magic 3"},
		"negative base offset":   {func(b []byte) { be.PutUint64(b, 1<<63) }, "base offset"},
		"unknown codec 5":        {func(b []byte) { b[22] = 5 }, "unknown codec 5"},
		"unknown codec 7":        {func(b []byte) { b[22] = 7 }, "unknown codec 7"},
		"log append time":        {func(b []byte) { b[22] = 8 }, "attributes 0x8"},
		"transactional":          {func(b []byte) { b[22] = 16 }, "attributes 0x10"},
		"control":                {func(b []byte) { b[22] = 32 }, "attributes 0x20"},
		"high attribute":         {func(b []byte) { b[21] = 0x80 }, "attributes 0x8000"},
		"no records":             {func(b []byte) { be.PutUint32(b[57:], 0) }, "0 records"},
		"negative records":       {func(b []byte) { be.PutUint32(b[57:], 1<<31) }, "records"},
		"count above delta":      {func(b []byte) { be.PutUint32(b[57:], 6) }, "last offset delta 4"},
		"delta above count":      {func(b []byte) { be.PutUint32(b[23:], 5) }, "last offset delta 5"},
		"more than there fit":    {func(b []byte) { be.PutUint32(b[57:], 1<<30); be.PutUint32(b[23:], 1<<30-1) }, "cannot be in"},
		"max before base":        {func(b []byte) { be.PutUint64(b[35:], 1) }, "max timestamp 1"},
		"producer id -2":         {func(b []byte) { be.PutUint64(b[43:], 1<<64-2) }, "producer id -2"},
		"epoch negative":         {func(b []byte) { be.PutUint16(b[51:], 1<<15) }, "epoch"},
		"sequence negative":      {func(b []byte) { be.PutUint32(b[53:], 1<<31) }, "sequence"},
		"many records, lz4, few": {func(b []byte) { b[22] = 3; be.PutUint32(b[57:], 1<<30); be.PutUint32(b[23:], 1<<30-1) }, "cannot be in"},
	} {
		b := slices.Clone(whole)
		c.change(b)
		_, err := batch.Verify(seal(b))
		requireCorrupt(t, err)
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v does not say %q", name, err, c.says)
		}
	}
}

func TestParseHeader_RefusesLengthsThatCannotBeRight(t *testing.T) {
	for _, length := range []int32{0, 1, 48, -1, -1 << 31, 1<<31 - 1} {
		b := golden(t, "samples")
		binary.BigEndian.PutUint32(b[8:], uint32(length))
		_, err := batch.ParseHeader(b)
		requireCorrupt(t, err)
	}
	over := make([]byte, domain.MaxBatchBytes+200)
	copy(over, golden(t, "samples"))
	_, err := batch.ParseHeader(seal(over))
	requireCorrupt(t, err)
}

func TestSetProducer_ChangesNothingElse(t *testing.T) {
	b := encode(t, samples, nil, batch.NoProducer)
	batch.SetProducer(b, somebody)
	if want := encode(t, samples, nil, somebody); !bytes.Equal(b, want) {
		t.Fatalf("got\n%x, want\n%x", b, want)
	}
}

func TestCodecID_HasAName(t *testing.T) {
	for id, want := range []string{"none", "gzip", "snappy", "lz4", "zstd", "codec 5"} {
		if got := batch.CodecID(id).String(); got != want {
			t.Errorf("codec %d is called %q", id, got)
		}
	}
}
