package codec_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"runtime"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/streamhouse/streamhouse/adapters/codec"
)

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

func TestLZ4_RefusesWhatItDoesNotKnow(t *testing.T) {
	src := jsonRecords(t, 1000, 100)
	whole := pierrecFrame(t, src, lz4.SizeOption(1000), lz4.BlockChecksumOption(true), lz4.ChecksumOption(true))
	set := func(at int, v byte) []byte {
		b := bytes.Clone(whole)
		b[at] = v
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":            nil,
		"other magic":        set(0, 5),
		"version 0":          set(4, whole[4]&^0xc0),
		"version 2":          set(4, whole[4]&^0xc0|0x80),
		"reserved flag":      set(4, whole[4]|2),
		"dictionary":         set(4, whole[4]|1),
		"block size code 3":  set(5, 0x30),
		"reserved size bits": set(5, whole[5]|1),
		"header checksum":    set(14, whole[14]^1),
		"block":              set(30, whole[30]^1),
		"block checksum":     set(len(whole)-9, whole[len(whole)-9]^1),
		"content checksum":   set(len(whole)-1, whole[len(whole)-1]^1),
		"trailing byte":      append(bytes.Clone(whole), 0),
		"two frames":         append(bytes.Clone(whole), whole...),
		"legacy frame":       pierrecFrame(t, src, lz4.LegacyOption(true)),
		"skippable frame":    append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9}, whole...),
		"half a header":      whole[:12],
		"no content sum":     whole[:len(whole)-4],
	} {
		got, err := codec.NewLZ4().Decompress(nil, b, limit)
		if err == nil {
			t.Errorf("%s: accepted as %d bytes", name, len(got))
			continue
		}
		requireCorrupt(t, err)
	}
}

// frameOf makes a frame of blocks whose headers are right.
func frameOf(contentSize int64, blocks ...[]byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0x184D2204)
	flags := byte(0x60)
	if contentSize >= 0 {
		flags |= 8
	}
	b = append(b, flags, 0x40)
	if contentSize >= 0 {
		b = le.AppendUint64(b, uint64(contentSize))
	}
	b = append(b, codec.HeaderChecksum(b[4:]))
	for _, bl := range blocks {
		b = le.AppendUint32(b, uint32(len(bl)))
		b = append(b, bl...)
	}
	return le.AppendUint32(b, 0)
}

func TestLZ4_RefusesContentSizesThatAreNotTrue(t *testing.T) {
	five := []byte{0x50, 'h', 'e', 'l', 'l', 'o'}
	for size := range int64(1 << 11) {
		got, err := codec.NewLZ4().Decompress(nil, frameOf(size, five), limit)
		if size == 5 {
			if err != nil || string(got) != "hello" {
				t.Fatalf("got %q, %v", got, err)
			}
			continue
		}
		requireCorrupt(t, err)
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestLZ4_RefusesBombsBeforeItAllocates(t *testing.T) {
	zeros := make([]byte, limit+1)
	long := bytes.Repeat([]byte{255}, 60_000) // one match of 15 million bytes, which a block of 64 KiB cannot hold
	long = append([]byte{0x1f, 0, 1, 0}, long...)
	for name, b := range map[string][]byte{
		"over the limit, stated":     pierrecFrame(t, zeros, lz4.SizeOption(limit+1)),
		"over the limit, not stated": pierrecFrame(t, zeros),
		"over the limit, linked":     linkedBomb(limit + 1),
		"2^63 stated":                frameOf(1<<62, long),
		"16 MiB stated, one block":   frameOf(limit, long),
		"16 MiB stated, no block":    frameOf(limit),
		"a block too long":           frameOf(-1, make([]byte, 65537)),
	} {
		n := allocated(func() {
			_, err := codec.NewLZ4().Decompress(nil, b, limit)
			requireCorrupt(t, err)
		})
		if n > 100_000 {
			t.Errorf("%s: %d bytes were allocated", name, n)
		}
	}
	n := allocated(func() {
		if _, err := codec.NewLZ4().Decompress(nil, frameOf(-1, long), limit); err == nil {
			t.Error("a match longer than its block is accepted")
		}
	})
	if n > 200_000 {
		t.Errorf("a match longer than its block: %d bytes were allocated", n)
	}
}

// linkedBomb makes a frame of linked blocks that hold size zeros in all.
func linkedBomb(size int) []byte {
	var c lz4.Compressor
	zeros := make([]byte, 64<<10)
	block := make([]byte, lz4.CompressBlockBound(len(zeros)))
	n, err := c.CompressBlock(zeros, block)
	if err != nil {
		panic(err)
	}
	var blocks [][]byte
	for done := 0; done < size; done += len(zeros) {
		blocks = append(blocks, block[:n])
	}
	b := frameOf(-1, blocks...)
	b[4] &^= 0x20
	b[6] = codec.HeaderChecksum(b[4:6])
	return b
}

func TestLZ4_HoldsTheLimitToTheByte(t *testing.T) {
	src := jsonRecords(t, 100_000, 100)
	for name, packed := range map[string][]byte{
		"stated":     pierrecFrame(t, src, lz4.SizeOption(100_000)),
		"not stated": pierrecFrame(t, src),
	} {
		if got, err := codec.NewLZ4().Decompress(nil, packed, len(src)); err != nil || !bytes.Equal(got, src) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		_, err := codec.NewLZ4().Decompress(nil, packed, len(src)-1)
		requireCorrupt(t, err)
	}
}

func TestLZ4_AllocatesJustWhatTheContentNeeds(t *testing.T) {
	src := jsonRecords(t, 50_000, 100)
	for name, packed := range map[string][]byte{
		"stated":                  pierrecFrame(t, src, lz4.SizeOption(50_000)),
		"not stated, 4 MiB block": pierrecFrame(t, src, lz4.BlockSizeOption(lz4.Block4Mb)),
	} {
		if n := allocated(func() { _, _ = codec.NewLZ4().Decompress(nil, packed, limit) }); n > 64<<10 {
			t.Errorf("%s: %d bytes were allocated for 50000", name, n)
		}
	}
}

// FuzzDecompress decompresses anything. What is accepted must be read alike by
// pierrec's reader.
func FuzzDecompress(f *testing.F) {
	src := jsonRecords(f, 300, 100)
	linked, _ := linkedFrame()
	f.Add(linked, 1000)
	f.Add(pierrecFrame(f, src), 1000)
	f.Add(pierrecFrame(f, src, lz4.SizeOption(300), lz4.BlockChecksumOption(true), lz4.ChecksumOption(true)), 300)
	f.Add(pierrecFrame(f, make([]byte, 5000)), 4999)
	f.Add(frameOf(5, []byte{0x50, 'h', 'e', 'l', 'l', 'o'}), 5)
	f.Add(frameOf(-1), 0)
	f.Fuzz(func(t *testing.T, packed []byte, most int) {
		most = max(0, min(most, 1<<20))
		resealFrame(packed)
		got, err := codec.NewLZ4().Decompress(nil, packed, most)
		if err != nil {
			requireCorrupt(t, err)
			return
		}
		if len(got) > most {
			t.Fatalf("%d bytes, %d were allowed", len(got), most)
		}
		want, err := io.ReadAll(lz4.NewReader(bytes.NewReader(packed)))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes; pierrec's reader gives %d, %v", len(got), len(want), err)
		}
	})
}

// resealFrame sets the header checksum right, so that fuzzing gets past it.
func resealFrame(b []byte) {
	if len(b) < 16 {
		return
	}
	end := 6
	if b[4]&8 != 0 {
		end = 14
	}
	b[end] = codec.HeaderChecksum(b[4:end])
}

// FuzzCompress compresses anything, for us and for pierrec to read.
func FuzzCompress(f *testing.F) {
	f.Add([]byte(nil), 1)
	f.Add([]byte("hello hello hello hello hello hello"), 100)
	f.Add(random(1000), 70)
	f.Fuzz(func(t *testing.T, src []byte, times int) {
		src = bytes.Repeat(src, max(1, min(times, 1+200_000/(len(src)+1))))
		packed, err := codec.NewLZ4().Compress(nil, src)
		if err != nil {
			t.Fatal(err)
		}
		got, err := codec.NewLZ4().Decompress(nil, packed, len(src))
		if err != nil || !bytes.Equal(got, src) {
			t.Fatalf("%d bytes came back of %d, %v", len(got), len(src), err)
		}
		got, err = io.ReadAll(lz4.NewReader(bytes.NewReader(packed)))
		if err != nil || !bytes.Equal(got, src) {
			t.Fatalf("pierrec's reader gives %d bytes of %d, %v", len(got), len(src), err)
		}
	})
}
