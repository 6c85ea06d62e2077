package batch

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// Header is what a batch says of itself without its records being read.
type Header struct {
	// BaseOffset is the first record's offset, 0 until it is set.
	BaseOffset domain.Offset
	// Length is that of the whole batch in bytes, header included.
	Length      int
	LeaderEpoch int32
	// CRC is the stored checksum: CRC32C from the attributes to the end.
	CRC        uint32
	Attributes int16
	// Codec is how the records are compressed.
	Codec           CodecID
	LastOffsetDelta int32
	// BaseTimestamp is the first record's, MaxTimestamp the newest record's, in
	// Unix milliseconds.
	BaseTimestamp int64
	MaxTimestamp  int64
	// Producer is NoProducer for a batch without idempotence.
	Producer Producer
	// Records is how many there are, at least 1.
	Records int32
}

// ParseHeader reads the header of the batch at the start of b, which may go on
// with other batches after it. It checks magic, length, attributes, producer and the
// counts against each other, and that b holds the whole batch; it does not compute
// the checksum. Every error is a *domain.CorruptError.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, corrupt("%d bytes, a header has %d", len(b), HeaderSize)
	}
	if b[atMagic] != magic {
		return Header{}, corrupt("magic %d, want %d", b[atMagic], magic)
	}
	be := binary.BigEndian
	h := Header{
		BaseOffset:      domain.Offset(be.Uint64(b[atBaseOffset:])),
		Length:          int(int32(be.Uint32(b[atLength:]))) + lengthFrom,
		LeaderEpoch:     int32(be.Uint32(b[atLeaderEpoch:])),
		CRC:             be.Uint32(b[atCRC:]),
		Attributes:      int16(be.Uint16(b[atAttributes:])),
		Codec:           CodecID(b[atAttributes+1] & codecMask),
		LastOffsetDelta: int32(be.Uint32(b[atLastDelta:])),
		BaseTimestamp:   int64(be.Uint64(b[atBaseTimestamp:])),
		MaxTimestamp:    int64(be.Uint64(b[atMaxTimestamp:])),
		Producer: Producer{
			ID:       domain.ProducerID(be.Uint64(b[atProducerID:])),
			Epoch:    domain.Epoch(be.Uint16(b[atProducerEpoch:])),
			Sequence: domain.Sequence(be.Uint32(b[atSequence:])),
		},
		Records: int32(be.Uint32(b[atRecords:])),
	}
	if h.Producer.ID == NoProducer.ID {
		h.Producer = NoProducer
	}
	if err := h.check(len(b)); err != nil {
		return Header{}, err
	}
	return h, nil
}

// check judges the header of a batch in a buffer of the given length.
func (h *Header) check(available int) error {
	body := h.Length - HeaderSize
	switch {
	case body < 0:
		return corrupt("length %d, a header alone has %d", h.Length, HeaderSize)
	case body > domain.MaxBatchBytes:
		return corrupt("%d bytes of records, at most %d are allowed", body, domain.MaxBatchBytes)
	case h.Length > available:
		return corrupt("length %d, only %d bytes are there", h.Length, available)
	case h.BaseOffset < 0:
		return corrupt("base offset %d", h.BaseOffset)
	case h.Attributes&^codecMask != 0:
		return corrupt("attributes %#x: transactional, control and log-append-time batches are not accepted", uint16(h.Attributes))
	case h.Codec > Zstd:
		return corrupt("unknown codec %d", uint8(h.Codec))
	case h.Records < 1:
		return corrupt("%d records", h.Records)
	case h.LastOffsetDelta != h.Records-1:
		return corrupt("last offset delta %d, but %d records", h.LastOffsetDelta, h.Records)
	case h.Codec == None && int64(h.Records)*minRecordSize > int64(body), int64(h.Records)*minRecordSize > domain.MaxBatchBytes:
		return corrupt("%d records cannot be in %d bytes", h.Records, body)
	case h.MaxTimestamp < h.BaseTimestamp:
		return corrupt("max timestamp %d is before the first record's %d", h.MaxTimestamp, h.BaseTimestamp)
	}
	return h.Producer.check()
}

func (p Producer) check() error {
	if p == NoProducer {
		return nil
	}
	if p.ID < 0 || p.Epoch < 0 || p.Sequence < 0 {
		return corrupt("producer id %d, epoch %d, sequence %d", p.ID, p.Epoch, p.Sequence)
	}
	return nil
}

// ParseOne checks that b is exactly one batch, on top of what ParseHeader checks.
// The checksum is not computed. Every error is a *domain.CorruptError.
func ParseOne(b []byte) (Header, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Header{}, err
	}
	if h.Length != len(b) {
		return Header{}, corrupt("%d bytes follow the batch of %d", len(b)-h.Length, h.Length)
	}
	return h, nil
}

// Verify checks that b is exactly one batch and that its checksum is right, on
// top of what ParseHeader checks. Every error is a *domain.CorruptError. The checksum
// leaves out base offset and leader epoch: see VerifyStored.
func Verify(b []byte) (Header, error) {
	h, err := ParseOne(b)
	if err != nil {
		return Header{}, err
	}
	if sum := crc32.Checksum(b[atAttributes:], castagnoli); sum != h.CRC && !mutant.On(mutantCRCUnchecked) {
		return Header{}, corrupt("checksum %08x, its bytes have %08x", h.CRC, sum)
	}
	return h, nil
}

// SetBaseOffset gives the batch b the offset of its first record. The checksum
// stays right.
func SetBaseOffset(b []byte, o domain.Offset) {
	binary.BigEndian.PutUint64(b[atBaseOffset:], uint64(o))
}

// VerifyStored checks the fields that the checksum leaves out, as Encode writes
// and segments store them: base offset 0, leader epoch -1. The error is a
// *domain.CorruptError.
func VerifyStored(b []byte) error {
	if len(b) < HeaderSize {
		return corrupt("%d bytes, a header has %d", len(b), HeaderSize)
	}
	if mutant.On(mutantStoredUnchecked) {
		return nil
	}
	if o := binary.BigEndian.Uint64(b[atBaseOffset:]); o != 0 {
		return corrupt("stored with base offset %d, want 0", int64(o))
	}
	if e := int32(binary.BigEndian.Uint32(b[atLeaderEpoch:])); e != noLeaderEpoch {
		return corrupt("stored with leader epoch %d, want %d", e, noLeaderEpoch)
	}
	return nil
}
