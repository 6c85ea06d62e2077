package batch

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// RecordBound returns an upper bound of the bytes that one Append adds, for a
// timestamp within 2^31 ms of the batch's first and in a batch of at most
// domain.MaxBatchBytes.
func RecordBound(key, value []byte, headers []domain.Header) int {
	const fixed = 1 + 5 + 4 // attributes, timestamp of 32 bits, offset of 28
	body := fixed + bytesSize(key) + bytesSize(value) + headersSize(headers)
	return uvarintSize(uint64(body)<<1) + body
}

// Builder gathers records, already in their final form, in one buffer or in
// several pieces. It keeps no object per record, and Append does not allocate while there is
// room. The zero Builder is empty and ready.
type Builder struct {
	// buf begins with room for the header as soon as there is a record. With
	// several pieces it is the one that is written to.
	buf []byte
	// stage holds the newest records, which follow those in buf. It has no
	// capacity unless Stage lent some.
	stage   []byte
	base    int64
	largest int64
	count   int32
	before  int     // bytes in the pieces before buf
	room    int     // in those after it
	others  *pieces // nil while buf is all there is
}

// pieces are those beside the one that is written to.
type pieces struct {
	full  [][]byte // before it
	spare [][]byte // after it
	array [8][]byte
}

// Reset empties the builder. From then on it writes into buf[:0], which it owns
// until the next Reset, Gather or Release, and grows it like append does if it is too small.
func (b *Builder) Reset(buf []byte) { *b = Builder{buf: buf[:0]} }

// Extend gives the builder one more piece to write into when those before are
// full, so that what is there need not move.
func (b *Builder) Extend(piece []byte) {
	if b.others == nil {
		b.others = &pieces{}
		b.others.full = b.others.array[:0]
	}
	b.others.spare = append(b.others.spare, piece[:0])
	b.room += cap(piece)
}

// Gather moves what is there into buf[:0], in one piece, writes on there, and
// gives each former buffer back.
func (b *Builder) Gather(buf []byte, release func([]byte)) {
	out := buf[:0]
	if b.others != nil {
		for _, piece := range b.others.full {
			out = append(out, piece...)
		}
	}
	out = append(out, b.buf...)
	b.giveBack(release)
	b.buf, b.others, b.before, b.room = out, nil, 0, 0
}

// Release empties the builder and gives each buffer back.
func (b *Builder) Release(release func([]byte)) {
	b.giveBack(release)
	b.Reset(nil)
}

func (b *Builder) giveBack(release func([]byte)) {
	release(b.buf)
	if b.others == nil {
		return
	}
	for _, list := range [][][]byte{b.others.full, b.others.spare} {
		for _, piece := range list {
			release(piece)
		}
	}
}

// InPieces reports whether what is there is not in one piece.
func (b *Builder) InPieces() bool { return b.before > 0 }

// Stage lends the builder the small buffer stage until Unstage or Reset. Records
// gather there and go on to the batch's buffer several at a time: with very many
// builders in turn, a few small stages stay in the processor's cache where large buffers do not,
// and a copy of many records waits for memory once.
func (b *Builder) Stage(stage []byte) { b.stage = stage[:0] }

// Unstage moves what is in the stage on and gives the stage up.
func (b *Builder) Unstage() {
	b.unload()
	b.stage = nil
}

func (b *Builder) unload() {
	b.write(b.stage)
	b.stage = b.stage[:0]
}

// write appends p, which may lie in the spare piece that comes next.
func (b *Builder) write(p []byte) {
	if b.others == nil {
		b.buf = append(b.buf, p...)
		return
	}
	for {
		n := copy(b.buf[len(b.buf):cap(b.buf)], p)
		b.buf = b.buf[:len(b.buf)+n]
		if p = p[n:]; len(p) == 0 {
			return
		}
		b.others.next(b, len(p))
	}
}

// next makes the first spare piece the one that is written to, or a new one of n
// bytes if there is none.
func (o *pieces) next(b *Builder, n int) {
	o.full = append(o.full, b.buf)
	b.before += len(b.buf)
	if len(o.spare) == 0 {
		b.buf = make([]byte, 0, n)
		return
	}
	b.buf = o.spare[0]
	o.spare = o.spare[1:]
	b.room -= cap(b.buf)
}

// Len returns the bytes of the batch so far, header included, before
// compression.
func (b *Builder) Len() int { return max(b.before+len(b.buf), HeaderSize) + len(b.stage) }

// EncodeBound returns the room that Encode needs in dst to grow it only if the
// codec makes the records longer by more than 1/1024 and 64 bytes. LZ4 frames do not.
func (b *Builder) EncodeBound() int { return b.Len() + b.Len()/1024 + 64 }

// Cap returns the size that the batch can reach in the present buffers.
func (b *Builder) Cap() int { return b.before + cap(b.buf) + b.room }

// Count returns the number of records.
func (b *Builder) Count() int { return int(b.count) }

// BaseTimestamp returns the first record's, in Unix milliseconds.
func (b *Builder) BaseTimestamp() int64 { return b.base }

// MaxTimestamp returns the newest record's, in Unix milliseconds.
func (b *Builder) MaxTimestamp() int64 { return b.largest }

// Buffer returns the present buffer, so that it can be used again after a Reset
// to another one. Its content is not a batch, and what is staged or in other pieces is missing.
func (b *Builder) Buffer() []byte { return b.buf }

// Append adds a record. It copies what it is given. Timestamps are Unix
// milliseconds in any order. Nil keys, values and header values stay distinct from
// empty ones. Limits are the caller's to keep.
func (b *Builder) Append(timestampMS int64, key, value []byte, headers []domain.Header) {
	if b.count == 0 {
		b.begin(timestampMS)
	} else if timestampMS > b.largest && !mutant.On(mutantMaxTimestamp) {
		b.largest = timestampMS
	}
	if mutant.On(mutantNilKey) && key == nil {
		key = []byte{}
	}
	timeDelta, offsetDelta := zigzag(timestampMS-b.base), uint64(uint32(b.count))<<1
	body := 1 + uvarintSize(timeDelta) + uvarintSize(offsetDelta) + bytesSize(key) + bytesSize(value) + headersSize(headers)
	size := uvarintSize(uint64(body)<<1) + body

	p, inPlace := b.extend(size)
	i := putUvarint(p, 0, uint64(body)<<1)
	p[i] = 0 // record attributes: none are defined
	i = putUvarint(p, i+1, timeDelta)
	i = putUvarint(p, i, offsetDelta)
	i = putBytes(p, i, key)
	i = putBytes(p, i, value)
	i = putUvarint(p, i, uint64(len(headers))<<1)
	if len(headers) > 0 {
		putHeaders(p, i, headers)
	}
	if !inPlace {
		b.write(p)
	}
	b.count++
}

// extend returns n bytes for the next record to be written to. If they are not
// in their place, the end of the batch, what is written has to be moved there.
func (b *Builder) extend(n int) (p []byte, inPlace bool) {
	if n <= cap(b.stage) {
		start := len(b.stage)
		if start+n > cap(b.stage) {
			b.unload()
			start = 0
		}
		b.stage = b.stage[:start+n]
		return b.stage[start:], true
	}
	b.unload()
	start := len(b.buf)
	if cap(b.buf)-start < n {
		if o := b.others; o != nil {
			return o.outside(n), false
		}
		b.buf = slices.Grow(b.buf, n)
	}
	b.buf = b.buf[:start+n]
	return b.buf[start:], true
}

// outside returns n bytes, in the spare piece that comes next if that is so large.
func (o *pieces) outside(n int) []byte {
	if len(o.spare) > 0 && cap(o.spare[0]) >= n {
		return o.spare[0][:n]
	}
	return make([]byte, n)
}

func (b *Builder) begin(timestampMS int64) {
	b.buf = slices.Grow(b.buf[:0], HeaderSize)[:HeaderSize]
	b.base, b.largest = timestampMS, timestampMS
}

// Encode appends the whole batch to dst and returns the extended slice: base
// offset 0, leader epoch -1, checksum set. A nil codec, or one that does not make it
// smaller, leaves the records as they are. The batch is unchanged, but in one piece from then
// on; dst must not share its buffer. The same records, codec and producer give the same bytes.
//
// domain.ErrSerialization: there is no record, or the records are longer than
// domain.MaxBatchBytes. domain.ErrCompression: the codec failed. Then dst is returned as it was.
func (b *Builder) Encode(dst []byte, codec Codec, p Producer) ([]byte, error) {
	b.unload()
	if b.count == 0 {
		return dst, fmt.Errorf("encode batch: %w: no records", domain.ErrSerialization)
	}
	if b.InPieces() {
		b.Gather(make([]byte, 0, b.Len()), func([]byte) {})
	}
	records := b.buf[HeaderSize:]
	if len(records) > domain.MaxBatchBytes {
		return dst, fmt.Errorf("encode batch: %w: %d bytes of records, at most %d are allowed", domain.ErrSerialization, len(records), domain.MaxBatchBytes)
	}
	start := len(dst)
	out := append(dst, b.buf[:HeaderSize]...)
	out, used, err := appendRecords(out, codec, records)
	if err != nil {
		return dst, fmt.Errorf("encode batch: %w: %w", domain.ErrCompression, err)
	}
	b.putHeader(out[start:], used, p)
	return out, nil
}

// appendRecords appends records, compressed if that makes them smaller.
func appendRecords(dst []byte, codec Codec, records []byte) ([]byte, CodecID, error) {
	if codec == nil {
		return append(dst, records...), None, nil
	}
	out, err := codec.Compress(dst, records)
	if err != nil {
		return nil, None, err
	}
	if len(out)-len(dst) >= len(records) {
		return append(out[:len(dst)], records...), None, nil
	}
	return out, codec.ID(), nil
}

// putHeader fills the header of the batch that is out.
func (b *Builder) putHeader(out []byte, codec CodecID, p Producer) {
	if mutant.On(mutantSequenceLost) && p.Sequence > 0 {
		p.Sequence = 0
	}
	leaderEpoch := int32(noLeaderEpoch)
	be := binary.BigEndian
	be.PutUint64(out[atBaseOffset:], 0)
	be.PutUint32(out[atLength:], uint32(len(out)-lengthFrom))
	be.PutUint32(out[atLeaderEpoch:], uint32(leaderEpoch))
	out[atMagic] = magic
	be.PutUint16(out[atAttributes:], uint16(codec))
	be.PutUint32(out[atLastDelta:], uint32(b.count-1))
	be.PutUint64(out[atBaseTimestamp:], uint64(b.base))
	be.PutUint64(out[atMaxTimestamp:], uint64(b.largest))
	be.PutUint64(out[atProducerID:], uint64(p.ID))
	be.PutUint16(out[atProducerEpoch:], uint16(p.Epoch))
	be.PutUint32(out[atSequence:], uint32(p.Sequence))
	be.PutUint32(out[atRecords:], uint32(b.count))
	be.PutUint32(out[atCRC:], crc32.Checksum(out[atAttributes:], castagnoli))
}

// bytesSize returns how many bytes putBytes writes.
func bytesSize(v []byte) int { return uvarintSize(uint64(len(v))<<1) + len(v) }

// putBytes writes the length of v, -1 if it is nil, and v.
func putBytes(p []byte, i int, v []byte) int {
	if v == nil {
		p[i] = 1 // zigzag of -1
		return i + 1
	}
	i = putUvarint(p, i, uint64(len(v))<<1)
	return i + copy(p[i:], v)
}

func headersSize(headers []domain.Header) int {
	n := uvarintSize(uint64(len(headers)) << 1)
	for i := range headers {
		h := &headers[i]
		n += uvarintSize(uint64(len(h.Key))<<1) + len(h.Key) + bytesSize(h.Value)
	}
	return n
}

func putHeaders(p []byte, i int, headers []domain.Header) {
	for j := range headers {
		h := &headers[j]
		i = putUvarint(p, i, uint64(len(h.Key))<<1)
		i += copy(p[i:], h.Key)
		i = putBytes(p, i, h.Value)
	}
}
