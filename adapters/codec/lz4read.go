package codec

import (
	"encoding/binary"

	"github.com/pierrec/lz4/v4"
)

// maxExpansion is how many bytes one byte of a compressed block can become.
const maxExpansion = 255

// Decompress appends the content of the one LZ4 frame that src is to dst.
//
// It allocates once: the content size if the frame states one that its blocks
// can really hold, else what the blocks can hold at most, counted sequence by
// sequence. Both are compared with limit first.
func (lz4Codec) Decompress(dst, src []byte, limit int) ([]byte, error) {
	f, blocks, err := parseFrame(src)
	if err != nil {
		return nil, err
	}
	size, err := f.rawSize(blocks, limit)
	if err != nil {
		return nil, err
	}
	start := len(dst)
	dst = withRoom(dst, size)
	out := dst[start : start+size]
	n, rest, err := f.decode(out, blocks)
	if err != nil {
		return nil, err
	}
	if err := f.finish(out[:n], rest); err != nil {
		return nil, err
	}
	return dst[:start+n], nil
}

// withRoom returns dst with room for exactly size more bytes, if it had less.
func withRoom(dst []byte, size int) []byte {
	if cap(dst)-len(dst) >= size {
		return dst
	}
	return append(make([]byte, 0, len(dst)+size), dst...)
}

// frame is the header of an LZ4 frame.
type frame struct {
	flags byte
	// blockMax is the raw size that no block exceeds.
	blockMax int
	// contentSize counts only with flagContentSize.
	contentSize uint64
}

func (f *frame) has(flag byte) bool { return f.flags&flag != 0 }

// parseFrame reads a frame's header and returns what follows it.
func parseFrame(b []byte) (frame, []byte, error) {
	if len(b) < 7 || binary.LittleEndian.Uint32(b) != frameMagic {
		return frame{}, nil, corrupt("no header of a version 1 frame")
	}
	f := frame{flags: b[4]}
	if f.flags&versionMask != version1 || f.has(flagReserved) || f.has(flagDictionaryID) {
		return frame{}, nil, corrupt("flags %#02x are not supported", f.flags)
	}
	code := b[5] >> sizeCodeShift
	if b[5]&sizeReserved != 0 || code < sizeCode64KiB {
		return frame{}, nil, corrupt("block size code %#02x is not supported", b[5])
	}
	f.blockMax = 1 << (8 + 2*code)
	end := 6
	if f.has(flagContentSize) {
		end += 8
		if len(b) <= end {
			return frame{}, nil, corrupt("%d bytes end in its header", len(b))
		}
		f.contentSize = binary.LittleEndian.Uint64(b[6:])
	}
	if b[end] != headerChecksum(b[4:end]) {
		return frame{}, nil, corrupt("header checksum does not match")
	}
	return f, b[end+1:], nil
}

// block is one block of a frame. The end mark has no bytes.
type block struct {
	bytes  []byte
	stored bool
	sum    uint32
	end    bool
}

// next reads the block at the start of b and returns what follows it.
func (f *frame) next(b []byte) (block, []byte, error) {
	if len(b) < blockHeaderSize {
		return block{}, nil, corrupt("it has no end mark")
	}
	header := binary.LittleEndian.Uint32(b)
	b = b[blockHeaderSize:]
	if header == endMark {
		return block{end: true}, b, nil
	}
	size := int64(header &^ storedBit)
	trailer := 0
	if f.has(flagBlockSum) {
		trailer = 4
	}
	if size > int64(f.blockMax) || size == 0 {
		return block{}, nil, corrupt("block of %d bytes, at most %d are allowed", size, f.blockMax)
	}
	if size+int64(trailer) > int64(len(b)) {
		return block{}, nil, corrupt("block of %d bytes, only %d are there", size, len(b))
	}
	bl := block{bytes: b[:size], stored: header&storedBit != 0}
	if trailer > 0 {
		bl.sum = binary.LittleEndian.Uint32(b[size:])
	}
	return bl, b[size+int64(trailer):], nil
}

// rawSize returns how many bytes to allocate for the blocks: no less than they
// become if they are right, never over limit, and not more than maxExpansion times their size.
func (f *frame) rawSize(blocks []byte, limit int) (int, error) {
	stated := f.has(flagContentSize)
	if stated && f.contentSize > uint64(limit) {
		return 0, corrupt("raw size %d, at most %d are allowed", f.contentSize, limit)
	}
	total := 0
	for {
		bl, rest, err := f.next(blocks)
		if err != nil {
			return 0, err
		}
		if bl.end {
			break
		}
		switch {
		case bl.stored:
			total += len(bl.bytes)
		case stated:
			total += min(f.blockMax, maxExpansion*len(bl.bytes))
		default:
			total += min(f.blockMax, blockRawSize(bl.bytes))
		}
		if !stated && total > limit {
			return 0, corrupt("raw size over %d, at most %d are allowed", total, limit)
		}
		blocks = rest
	}
	if !stated {
		return total, nil
	}
	if f.contentSize > uint64(total) {
		return 0, corrupt("raw size %d stated, its blocks hold at most %d", f.contentSize, total)
	}
	return int(f.contentSize), nil
}

// decode fills out and returns how much it wrote and what follows the end mark.
func (f *frame) decode(out, blocks []byte) (int, []byte, error) {
	pos := 0
	for {
		bl, rest, err := f.next(blocks)
		if err != nil {
			return 0, nil, err
		}
		if bl.end {
			return pos, rest, nil
		}
		if f.has(flagBlockSum) && xxh32(bl.bytes) != bl.sum {
			return 0, nil, corrupt("block checksum does not match")
		}
		n, err := f.decodeBlock(out, pos, bl)
		if err != nil {
			return 0, nil, err
		}
		pos += n
		blocks = rest
	}
}

// decodeBlock writes the raw bytes of bl to out from pos on.
func (f *frame) decodeBlock(out []byte, pos int, bl block) (int, error) {
	room := out[pos:min(len(out), pos+f.blockMax)]
	if bl.stored {
		if len(bl.bytes) > len(room) {
			return 0, corrupt("its blocks hold more than the stated raw size")
		}
		return copy(room, bl.bytes), nil
	}
	var n int
	var err error
	if f.has(flagIndependent) || pos == 0 {
		n, err = lz4.UncompressBlock(bl.bytes, room)
	} else {
		n, err = lz4.UncompressBlockWithDict(bl.bytes, room, out[max(0, pos-linkWindow):pos])
	}
	if err != nil {
		return 0, corrupt("block at raw position %d does not decompress", pos)
	}
	return n, nil
}

// finish checks the whole content and what follows the end mark.
func (f *frame) finish(content, rest []byte) error {
	if f.has(flagContentSize) && f.contentSize != uint64(len(content)) {
		return corrupt("raw size %d stated, it has %d", f.contentSize, len(content))
	}
	if f.has(flagContentSum) {
		if len(rest) < 4 {
			return corrupt("it ends before its checksum")
		}
		if binary.LittleEndian.Uint32(rest) != xxh32(content) {
			return corrupt("content checksum does not match")
		}
		rest = rest[4:]
	}
	if len(rest) > 0 {
		return corrupt("%d bytes follow it", len(rest))
	}
	return nil
}

// blockRawSize adds up what the sequences of a compressed block become. It is
// exact for a right block, and at most maxExpansion times the block's size for any.
func blockRawSize(b []byte) int {
	total := 0
	for i := 0; i < len(b); {
		token := int(b[i])
		literals, next := runLength(b, i+1, token>>4)
		total += literals
		i = next + literals
		if i+2 > len(b) {
			break // the last sequence has literals only
		}
		match, next := runLength(b, i+2, token&15)
		total += match + 4
		i = next
	}
	return total
}

// runLength reads the bytes that continue a length of 15.
func runLength(b []byte, i, n int) (int, int) {
	if n != 15 {
		return n, i
	}
	for i < len(b) {
		c := int(b[i])
		i++
		n += c
		if c != 255 {
			break
		}
	}
	return n, i
}
