package codec_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

var update = flag.Bool("update", false, "write the golden file anew")

// newBatch makes an LZ4 batch of n JSON-like records of the given size.
func newBatch(tb testing.TB, n, size int) []byte {
	tb.Helper()
	lines := jsonRecords(tb, n*size, size)
	var b batch.Builder
	for i := range n {
		b.Append(1_700_000_000_000+int64(i), fmt.Appendf(nil, "key-%d", i), lines[i*size:(i+1)*size], nil)
	}
	out, err := b.Encode(nil, codec.NewLZ4(), batch.Producer{ID: 1, Epoch: 2, Sequence: 3})
	if err != nil {
		tb.Fatal(err)
	}
	if h, err := batch.Verify(out); err != nil || h.Codec != batch.LZ4 || len(out) >= b.Len() {
		tb.Fatalf("%d bytes of %d: %+v, %v", len(out), b.Len(), h, err)
	}
	return out
}

func requireLines(tb testing.TB, raw []byte, n, size int) {
	tb.Helper()
	lines := jsonRecords(tb, n*size, size)
	records, err := batch.NewDecoder(codec.NewLZ4()).Decode(raw)
	if err != nil {
		tb.Fatal(err)
	}
	var r batch.Record
	i := 0
	for records.Next(&r) {
		if string(r.Key) != fmt.Sprintf("key-%d", i) || !bytes.Equal(r.Value, lines[i*size:(i+1)*size]) {
			tb.Fatalf("record %d came back as %q, %q", i, r.Key, r.Value)
		}
		i++
	}
	if records.Err() != nil || i != n {
		tb.Fatalf("%d of %d records, %v", i, n, records.Err())
	}
}

func TestBatch_ComesBackThroughLZ4(t *testing.T) {
	for _, n := range []int{3, 100, 5000} {
		requireLines(t, newBatch(t, n, 250), n, 250)
	}
}

func TestBatch_OfTheGoldenFileIsRead(t *testing.T) {
	path := filepath.Join("testdata", "lz4.batch")
	if *update {
		if err := os.WriteFile(path, newBatch(t, 50, 250), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	requireLines(t, raw, 50, 250)
}

func TestBatch_OfTheLongestIsRead(t *testing.T) {
	var b batch.Builder
	b.Append(1, nil, make([]byte, domain.MaxBatchBytes-13), nil)
	raw, err := b.Encode(nil, codec.NewLZ4(), batch.NoProducer)
	if err != nil {
		t.Fatal(err)
	}
	records, err := batch.NewDecoder(codec.NewLZ4()).Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	var r batch.Record
	if !records.Next(&r) || len(r.Value) != domain.MaxBatchBytes-13 || records.Next(&r) || records.Err() != nil {
		t.Fatal(records.Err())
	}
}

func TestBatch_IsEncodedWithinItsBound(t *testing.T) {
	for _, size := range []int{1, 100, 70_000, 500_000} {
		var b batch.Builder
		b.Append(1, nil, random(size), nil)
		dst := make([]byte, 0, b.EncodeBound())
		if out, err := b.Encode(dst, codec.NewLZ4(), batch.NoProducer); err != nil || &out[0] != &dst[:1][0] {
			t.Fatalf("%d bytes: the buffer was not large enough, %v", size, err)
		}
	}
}

func TestBatch_IsDecodedWithOneAllocation(t *testing.T) {
	raw := newBatch(t, 1000, 100)
	d := batch.NewDecoder(codec.NewLZ4())
	allocs := testing.AllocsPerRun(50, func() {
		records, err := d.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		var r batch.Record
		for records.Next(&r) {
		}
	})
	if allocs != 1 {
		t.Fatalf("%v allocations a batch", allocs)
	}
}

// BenchmarkBatch_Encode reports the time for one batch of about 1 MiB.
func BenchmarkBatch_Encode(b *testing.B) {
	for _, bench := range benchSizes {
		b.Run(bench.name, func(b *testing.B) {
			n := 1 << 20 / bench.recordSize
			lines := jsonRecords(b, n*bench.recordSize, bench.recordSize)
			var bb batch.Builder
			for i := range n {
				bb.Append(int64(i), nil, lines[i*bench.recordSize:(i+1)*bench.recordSize], nil)
			}
			dst := make([]byte, 0, bb.EncodeBound())
			c := codec.NewLZ4()
			b.SetBytes(int64(bb.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bb.Encode(dst, c, batch.NoProducer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBatch_Decode reports the time for one record, decompression
// included.
func BenchmarkBatch_Decode(b *testing.B) {
	for _, bench := range benchSizes {
		b.Run(bench.name, func(b *testing.B) {
			n := 1 << 20 / bench.recordSize
			raw := newBatch(b, n, bench.recordSize)
			d := batch.NewDecoder(codec.NewLZ4())
			var r batch.Record
			var records batch.Records
			var err error
			done := n
			b.SetBytes(int64(bench.recordSize))
			b.ReportAllocs()
			for b.Loop() {
				if done == n {
					if records, err = d.Decode(raw); err != nil {
						b.Fatal(err)
					}
					done = 0
				}
				if !records.Next(&r) {
					b.Fatal(records.Err())
				}
				done++
			}
		})
	}
}
