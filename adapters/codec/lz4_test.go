package codec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
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

func contents(tb testing.TB, sizes ...int) map[string][]byte {
	m := map[string][]byte{}
	for _, size := range sizes {
		m[fmt.Sprintf("json %d", size)] = jsonRecords(tb, size, 100)
		m[fmt.Sprintf("random %d", size)] = random(size)
		m[fmt.Sprintf("zeros %d", size)] = make([]byte, size)
	}
	return m
}

var sizes = []int{0, 1, 13, 100, 65535, 65536, 65537, 200_000}

func requireCorrupt(tb testing.TB, err error) {
	tb.Helper()
	var c *domain.CorruptError
	if !errors.As(err, &c) {
		tb.Fatalf("error is %v, want a *domain.CorruptError", err)
	}
}

func TestLZ4_ComesBack(t *testing.T) {
	c := codec.NewLZ4()
	for name, src := range contents(t, sizes...) {
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

func TestLZ4_StaysWithinItsBound(t *testing.T) {
	for name, src := range contents(t, sizes...) {
		blocks := (len(src) + 65535) / 65536
		dst := make([]byte, 0, len(src)+19+4*blocks)
		packed, err := codec.NewLZ4().Compress(dst, src)
		if err != nil || cap(packed) != cap(dst) {
			t.Fatalf("%s: %d bytes for %d, capacity %d, %v", name, len(packed), len(src), cap(packed), err)
		}
	}
}

func TestLZ4_IsReadByPierrec(t *testing.T) {
	for name, src := range contents(t, sizes...) {
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
	for name, src := range contents(t, 0, 13, 70_000) {
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

// linkedFrame makes by hand a frame whose second block refers into its first.
func linkedFrame() (packed, content []byte) {
	first := []byte("a block that the next one refers to, 64 KiB back at most. ")
	second := []byte{
		0x1f, '>', byte(len(first)), 0, 5, // '>' then a match of 15+5+4 bytes, as far back as the first block is long
		0x50, 'e', 'n', 'd', '.', '\n', // literals end a block
	}
	content = append(append(append(content, first...), '>'), first[1:25]...)
	content = append(content, "end.\n"...)

	le := binary.LittleEndian
	packed = le.AppendUint32(nil, 0x184D2204)
	packed = append(packed, 0x40, 0x40, 0xc0) // version 1, linked, 64 KiB, checksum of these
	packed = le.AppendUint32(packed, uint32(len(first))|1<<31)
	packed = append(packed, first...)
	packed = le.AppendUint32(packed, uint32(len(second)))
	packed = append(packed, second...)
	return le.AppendUint32(packed, 0), content
}

func TestLZ4_ReadsLinkedBlocks(t *testing.T) {
	packed, content := linkedFrame()
	want, err := io.ReadAll(lz4.NewReader(bytes.NewReader(packed)))
	if err != nil || !bytes.Equal(want, content) {
		t.Fatalf("pierrec's reader gives %q, %v", want, err)
	}
	got, err := codec.NewLZ4().Decompress([]byte("x"), packed, limit)
	if err != nil || string(got[1:]) != string(content) {
		t.Fatalf("got %q, %v, want %q", got, err, content)
	}
}

func TestLZ4_DoesNotAllocatePerCall(t *testing.T) {
	src := jsonRecords(t, 200_000, 100)
	c := codec.NewLZ4()
	packed, err := c.Compress(nil, src)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 0, len(src))
	dst := make([]byte, 0, 2*len(src))
	allocs := testing.AllocsPerRun(50, func() {
		if dst, err = c.Compress(dst[:0], src); err != nil {
			t.Fatal(err)
		}
		if out, err = c.Decompress(out[:0], packed, limit); err != nil {
			t.Fatal(err)
		}
	})
	if allocs >= 1 {
		t.Fatalf("%v allocations", allocs)
	}
}

func TestLZ4_IsSafeForConcurrentUse(t *testing.T) {
	c := codec.NewLZ4()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			src := jsonRecords(t, 100_000+i, 100)
			for range 5 {
				packed, err := c.Compress(nil, src)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := c.Decompress(nil, packed, limit); err != nil || !bytes.Equal(got, src) {
					t.Errorf("came back as %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}
