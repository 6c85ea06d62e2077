package batch

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// RecordBound returns an upper bound of the bytes that one Append adds.
func RecordBound(key, value []byte, headers []domain.Header) int {
	const fixed = 5 + 1 + 10 + 5 + 5 + 5 + 5 // length, attributes, timestamp, offset, three counts
	n := fixed + len(key) + len(value)
	for i := range headers {
		n += 5 + len(headers[i].Key) + 5 + len(headers[i].Value)
	}
	return n
}

// Builder gathers records in one buffer, already in their final form. It keeps
// no object per record, and Append does not allocate while the buffer has room.
// The zero Builder is empty and ready.
type Builder struct {
	// buf begins with room for the header as soon as there is a record.
	buf []byte
	// stage holds the newest records, which follow those in buf. It has no
	// capacity unless Stage lent some.
	stage   []byte
	base    int64
	largest int64
	count   int32
}

// Reset empties the builder. From then on it writes into buf[:0], which it owns
// until the next Reset or Move, and grows it like append does if it is too small.
func (b *Builder) Reset(buf []byte) { *b = Builder{buf: buf[:0]} }

// Move copies what is there into buf[:0], writes on there, and gives the former
// buffer back.
func (b *Builder) Move(buf []byte) (old []byte) {
	old = b.buf
	b.buf = append(buf[:0], old...)
	return old
}

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
	b.buf = append(b.buf, b.stage...)
	b.stage = b.stage[:0]
}

// Len returns the bytes of the batch so far, header included, before
// compression.
func (b *Builder) Len() int { return max(len(b.buf), HeaderSize) + len(b.stage) }

// EncodeBound returns the room that Encode needs in dst to grow it only if the
// codec makes the records longer by more than 1/1024 and 64 bytes. LZ4 frames do not.
func (b *Builder) EncodeBound() int { return b.Len() + b.Len()/1024 + 64 }

// Cap returns the size that the batch can reach in the present buffer.
func (b *Builder) Cap() int { return cap(b.buf) }

// Count returns the number of records.
func (b *Builder) Count() int { return int(b.count) }

// BaseTimestamp returns the first record's, in Unix milliseconds.
func (b *Builder) BaseTimestamp() int64 { return b.base }

// MaxTimestamp returns the newest record's, in Unix milliseconds.
func (b *Builder) MaxTimestamp() int64 { return b.largest }

// Buffer returns the present buffer, so that it can be used again after a Reset
// to another one. Its content is not a batch, and what is staged is missing.
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

	p := b.extend(size)
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
	b.count++
}

// extend makes the batch n bytes longer and returns them, to be written.
func (b *Builder) extend(n int) []byte {
	if n <= cap(b.stage) {
		start := len(b.stage)
		if start+n > cap(b.stage) {
			b.unload()
			start = 0
		}
		b.stage = b.stage[:start+n]
		return b.stage[start:]
	}
	b.unload()
	start := len(b.buf)
	if cap(b.buf)-start < n {
		b.buf = slices.Grow(b.buf, n)
	}
	b.buf = b.buf[:start+n]
	return b.buf[start:]
}

func (b *Builder) begin(timestampMS int64) {
	b.buf = slices.Grow(b.buf[:0], HeaderSize)[:HeaderSize]
	b.base, b.largest = timestampMS, timestampMS
}

// Encode appends the whole batch to dst and returns the extended slice: base
// offset 0, leader epoch -1, checksum set. A nil codec, or one that does not make it
// smaller, leaves the records as they are. The batch is unchanged; dst must not share
// its buffer. The same records, codec and producer give the same bytes.
//
// domain.ErrSerialization: there is no record, or the records are longer than
// domain.MaxBatchBytes. domain.ErrCompression: the codec failed. Then dst is returned as it was.
func (b *Builder) Encode(dst []byte, codec Codec, p Producer) ([]byte, error) {
	b.unload()
	if b.count == 0 {
		return dst, fmt.Errorf("encode batch: %w: no records", domain.ErrSerialization)
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
