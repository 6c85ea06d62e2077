package batch_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

// values makes n JSON-like values of the given size that do not repeat.
func values(n, size int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([][]byte, n)
	for i := range out {
		v := fmt.Appendf(nil, `{"id":%d,"user":"u%08x","amount":%d,"note":"`, i, rng.Uint32(), rng.IntN(100_000))
		for len(v) < size-2 {
			v = fmt.Appendf(v, "%08x", rng.Uint32())
		}
		out[i] = append(v[:size-2], `"}`...)
	}
	return out
}

func BenchmarkAppend(b *testing.B) {
	for _, bench := range []struct {
		name    string
		size    int
		key     []byte
		headers []domain.Header
	}{
		{"100B", 100, nil, nil},
		{"100B-key", 100, []byte("user-12345"), nil},
		{"100B-2headers", 100, nil, []domain.Header{{Key: "trace", Value: []byte("abcdef")}, {Key: "n"}}},
		{"1KiB", 1024, nil, nil},
	} {
		b.Run(bench.name, func(b *testing.B) {
			vals := values(1000, bench.size)
			var bb batch.Builder
			bb.Reset(make([]byte, 0, 1<<20))
			b.ReportAllocs()
			b.SetBytes(int64(bench.size))
			i := 0
			for b.Loop() {
				if bb.Len()+2*bench.size > 1<<20 {
					bb.Reset(bb.Buffer())
				}
				bb.Append(1_700_000_000_000+int64(i&1023), bench.key, vals[i%1000], bench.headers)
				i++
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	var bb batch.Builder
	for i, v := range values(5000, 100) {
		bb.Append(int64(i), nil, v, nil)
	}
	dst := make([]byte, 0, bb.Len())
	b.SetBytes(int64(bb.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bb.Encode(dst, nil, batch.NoProducer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecode reports the time for one record.
func BenchmarkDecode(b *testing.B) {
	for _, bench := range []struct {
		name    string
		size    int
		headers []domain.Header
	}{
		{"100B", 100, nil},
		{"100B-2headers", 100, []domain.Header{{Key: "trace", Value: []byte("abcdef")}, {Key: "n"}}},
		{"1KiB", 1024, nil},
	} {
		b.Run(bench.name, func(b *testing.B) {
			const n = 5000
			var bb batch.Builder
			for i, v := range values(n, bench.size) {
				bb.Append(int64(i), nil, v, bench.headers)
			}
			raw, err := bb.Encode(nil, nil, batch.NoProducer)
			if err != nil {
				b.Fatal(err)
			}
			d := batch.NewDecoder()
			var r batch.Record
			b.ReportAllocs()
			b.SetBytes(int64(bench.size))
			done := n
			var records batch.Records
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

func BenchmarkVerify(b *testing.B) {
	raw := encode(b, []item{{value: bytes.Repeat([]byte("x"), 1<<20)}}, nil, batch.NoProducer)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := batch.Verify(raw); err != nil {
			b.Fatal(err)
		}
	}
}
