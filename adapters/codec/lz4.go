// Package codec holds the compression formats of record batches.
//
// LZ4 here is the LZ4 frame format that Kafka clients read and write: version 1
// frames. What is written is one frame of independent 64 KiB blocks with its content
// size and no checksums of its own, since the batch around it has one. What is read
// is any version 1 frame without a dictionary: all block sizes, linked blocks, checksums,
// with or without content size.
package codec

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/pierrec/lz4/v4"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
)

// The LZ4 frame format.
const (
	frameMagic = 0x184D2204
	// frameHeaderSize is that of the frames we write: magic, two bytes of
	// flags, content size, header checksum.
	frameHeaderSize = 4 + 2 + 8 + 1
	blockHeaderSize = 4
	endMark         = 0
	// storedBit in a block's size says that it is not compressed.
	storedBit = 1 << 31
	blockSize = 64 << 10
	// linkWindow is how far back linked blocks refer.
	linkWindow = 64 << 10

	versionMask      = 0xc0
	version1         = 0x40
	flagIndependent  = 0x20
	flagBlockSum     = 0x10
	flagContentSize  = 0x08
	flagContentSum   = 0x04
	flagReserved     = 0x02
	flagDictionaryID = 0x01

	sizeCode64KiB = 4
	sizeCodeShift = 4
	sizeReserved  = 0x8f
)

// lz4Codec is stateless; compressors are pooled for all of them.
type lz4Codec struct{}

// NewLZ4 returns the codec for LZ4 frames. It is safe for concurrent use and
// does not allocate per call beyond growing dst.
func NewLZ4() batch.Codec { return lz4Codec{} }

func (lz4Codec) ID() batch.CodecID { return batch.LZ4 }

var compressors = sync.Pool{New: func() any { return new(lz4.Compressor) }}

// Compress appends src as one LZ4 frame to dst. It never fails. It grows dst at
// most once, and not at all if there is room for src, 19 bytes and 4 for each 64 KiB
// begun.
func (lz4Codec) Compress(dst, src []byte) ([]byte, error) {
	c := compressors.Get().(*lz4.Compressor)
	defer compressors.Put(c)
	dst = slices.Grow(dst, frameBound(len(src)))
	dst = appendFrameHeader(dst, len(src))
	for len(src) > 0 {
		n := min(blockSize, len(src))
		dst = appendBlock(dst, src[:n], c)
		src = src[n:]
	}
	return binary.LittleEndian.AppendUint32(dst, endMark), nil
}

// frameBound returns the size of the frame of n bytes that do not compress.
func frameBound(n int) int {
	blocks := (n + blockSize - 1) / blockSize
	return frameHeaderSize + n + blocks*blockHeaderSize + blockHeaderSize
}

func appendFrameHeader(dst []byte, contentSize int) []byte {
	start := len(dst)
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, frameMagic)
	dst = append(dst, version1|flagIndependent|flagContentSize, sizeCode64KiB<<sizeCodeShift)
	dst = le.AppendUint64(dst, uint64(contentSize))
	return append(dst, headerChecksum(dst[start+4:]))
}

// headerChecksum returns the last byte of a frame's header, from what lies
// between the magic and it.
func headerChecksum(descriptor []byte) byte { return byte(xxh32(descriptor) >> 8) }

// appendBlock appends one block, as it is if compression does not shrink it.
// There must be room for that.
func appendBlock(dst, src []byte, c *lz4.Compressor) []byte {
	at := len(dst)
	body := at + blockHeaderSize
	room := dst[body : body+len(src)]
	n, err := c.CompressBlock(src, room)
	header := uint32(n)
	if err != nil || n == 0 || n >= len(src) { // the error is that it does not fit
		n = copy(room, src)
		header = uint32(n) | storedBit
	}
	dst = dst[:body+n]
	binary.LittleEndian.PutUint32(dst[at:], header)
	return dst
}

// corrupt returns a *domain.CorruptError about a frame.
func corrupt(format string, args ...any) error {
	return &domain.CorruptError{What: "lz4 frame: " + fmt.Sprintf(format, args...)}
}
