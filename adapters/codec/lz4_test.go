package codec_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/streamhouse/streamhouse/adapters/codec"
	"github.com/streamhouse/streamhouse/domain"
)

const limit = domain.MaxBatchBytes

// jsonRecords makes about size bytes of JSON lines that do not repeat.
func jsonRecords(tb testing.TB, size, recordSize int) []byte {
	tb.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	var out []byte
	for n := 0; len(out) < size; n++ {
		line := fmt.Sprintf(`{"id":%d,"user":"u%08x","amount":%d.%02d,"note":"`, n, rng.Uint32(), rng.IntN(10_000), rng.IntN(100))
		for len(line) < recordSize-2 {
			line += fmt.Sprintf("%x ", rng.Uint32())
		}
		out = append(out, line[:recordSize-2]...)
		out = append(out, `"}`...)
	}
	return out[:size]
}

func random(size int) []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func contents(tb testing.TB) map[string][]byte {
	m := map[string][]byte{}
	for _, size := range []int{0, 1, 13, 100, 65535, 65536, 65537, 131072, 300_000} {
		m[fmt.Sprintf("json %d", size)] = jsonRecords(tb, size, 100)
		m[fmt.Sprintf("random %d", size)] = random(size)
		m[fmt.Sprintf("zeros %d", size)] = make([]byte, size)
	}
	return m
}

func requireCorrupt(tb testing.TB, err error) {
	tb.Helper()
	var c *domain.CorruptError
	if !errors.As(err, &c) {
		tb.Fatalf("error is %v, want a *domain.CorruptError", err)
	}
}

func TestLZ4_ComesBack(t *testing.T) {
	c := codec.NewLZ4()
	for name, src := range contents(t) {
		packed, err := c.Compress([]byte("before"), src)
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := c.Decompress([]byte("there"), packed[len("before"):], limit)
		if err != nil || string(got[:5]) != "there" || !bytes.Equal(got[5:], src) {
			t.Fatalf("%s: came back as %d bytes, %v", name, len(got)-5, err)
		}
	}
}

func TestLZ4_IsReadByPierrec(t *testing.T) {
	for name, src := range contents(t) {
		packed, err := codec.NewLZ4().Compress(nil, src)
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := io.ReadAll(lz4.NewReader(bytes.NewReader(packed)))
		if err != nil || !bytes.Equal(got, src) {
			t.Fatalf("%s: pierrec's reader gives %d bytes, %v", name, len(got), err)
		}
	}
}

func pierrecFrame(tb testing.TB, src []byte, options ...lz4.Option) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	if err := w.Apply(options...); err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(src); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestLZ4_ReadsFramesOfPierrecInEveryForm(t *testing.T) {
	for name, src := range contents(t) {
		for _, size := range []lz4.BlockSize{lz4.Block64Kb, lz4.Block256Kb, lz4.Block1Mb, lz4.Block4Mb} {
			for bits := range 8 {
				options := []lz4.Option{lz4.BlockSizeOption(size), lz4.BlockChecksumOption(bits&1 != 0), lz4.ChecksumOption(bits&2 != 0)}
				if bits&4 != 0 {
					options = append(options, lz4.SizeOption(uint64(len(src))))
				}
				packed := pierrecFrame(t, src, options...)
				got, err := codec.NewLZ4().Decompress(nil, packed, limit)
				if err != nil || !bytes.Equal(got, src) {
					t.Fatalf("%s, %v, options %03b: %d bytes, %v", name, size, bits, len(got), err)
				}
			}
		}
	}
}

func TestLZ4_RefusesEveryTruncation(t *testing.T) {
	packed, err := codec.NewLZ4().Compress(nil, jsonRecords(t, 70_000, 100))
	if err != nil {
		t.Fatal(err)
	}
	for n := range packed {
		if n > 100 && n < len(packed)-100 && n%97 != 0 {
			continue
		}
		_, err := codec.NewLZ4().Decompress(nil, packed[:n], limit)
		requireCorrupt(t, err)
	}
}
