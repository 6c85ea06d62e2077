// Package batch builds, checks and reads record batches: Kafka's record batch
// format version 2 (magic 2), byte for byte. FORMAT.md describes the bytes.
//
// A batch is the unit that travels. The producing library encodes it once, and
// those bytes go unchanged into a segment and out to the consuming library. Only
// the base offset is set on the way: the checksum leaves it out.
package batch

import (
	"fmt"
	"hash/crc32"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// Planted bugs, see package mutant.
const (
	mutantCRCUnchecked    mutant.ID = "batch-crc-unchecked"
	mutantStoredUnchecked mutant.ID = "batch-unsealed-fields-unchecked"
	mutantMaxTimestamp    mutant.ID = "batch-max-timestamp-is-first"
	mutantNilKey          mutant.ID = "batch-nil-key-becomes-empty"
	mutantSequenceLost    mutant.ID = "batch-sequence-left-out"
)

// HeaderSize is the size in bytes of a batch without its records.
const HeaderSize = 61

// Where the fields of the header begin, in bytes.
const (
	atBaseOffset    = 0
	atLength        = 8
	atLeaderEpoch   = 12
	atMagic         = 16
	atCRC           = 17
	atAttributes    = 21
	atLastDelta     = 23
	atBaseTimestamp = 27
	atMaxTimestamp  = 35
	atProducerID    = 43
	atProducerEpoch = 51
	atSequence      = 53
	atRecords       = 57
)

const (
	magic = 2
	// lengthFrom is where the bytes that the length field counts begin.
	lengthFrom = atLeaderEpoch
	// noLeaderEpoch is what a batch carries that no broker has stamped.
	noLeaderEpoch = -1
	codecMask     = 0x07
	// minRecordSize is that of a record with nothing in it.
	minRecordSize = 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CodecID names a compression format, in the numbers of Kafka's attributes.
type CodecID uint8

// The compression formats of a batch.
const (
	None   CodecID = 0
	Gzip   CodecID = 1
	Snappy CodecID = 2
	LZ4    CodecID = 3
	Zstd   CodecID = 4
)

func (id CodecID) String() string {
	switch id {
	case None:
		return "none"
	case Gzip:
		return "gzip"
	case Snappy:
		return "snappy"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("codec %d", uint8(id))
}

// Codec compresses the records of a batch. It is safe for concurrent use and
// keeps neither of its arguments.
type Codec interface {
	// ID says which format it is. It is never None.
	ID() CodecID

	// Compress appends the compressed form of src to dst and returns the
	// extended slice. The two must not overlap.
	Compress(dst, src []byte) ([]byte, error)

	// Decompress appends to dst what src was made from and returns the
	// extended slice. It refuses with a *domain.CorruptError, before it allocates for
	// them, more than limit raw bytes; and it never allocates more than what src can
	// really hold.
	Decompress(dst, src []byte, limit int) ([]byte, error)
}

// Producer says who made a batch and where it stands among that producer's
// records for the partition.
type Producer struct {
	ID    domain.ProducerID
	Epoch domain.Epoch
	// Sequence is that of the batch's first record.
	Sequence domain.Sequence
}

// NoProducer marks a batch that is sent without idempotence.
var NoProducer = Producer{ID: -1, Epoch: -1, Sequence: -1}

// corrupt returns a *domain.CorruptError about a batch.
func corrupt(format string, args ...any) error {
	return &domain.CorruptError{What: "record batch: " + fmt.Sprintf(format, args...)}
}
