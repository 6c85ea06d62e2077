// Package segment writes and reads the object that segment storage holds: the
// batches of many partitions, an index of them, and checksums. FORMAT.md describes the
// bytes.
//
// A segment is self-describing: it names its cluster and itself, and its index
// accounts for every byte between header and footer. Nothing in it depends on names or
// offsets, which only the metadata store knows.
package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/batch"
	"github.com/streamhouse/streamhouse/domain/mutant"
)

// Planted bugs, see package mutant.
const (
	mutantPosition     mutant.ID = "segment-answers-position-of-extent"
	mutantMaxTimestamp mutant.ID = "segment-max-timestamp-is-last"
	mutantObjectCRC    mutant.ID = "segment-crc-leaves-out-footer"
)

// Version is the format version that is written, and the only one that is read.
const Version = 1

// Sizes in bytes.
const (
	HeaderSize  = 44
	TrailerSize = 24

	countSize  = 4
	extentSize = 64
)

// Where the fields of the header begin.
const (
	atVersion = 8
	atCluster = 12
	atSegment = 28
)

// Where the fields of the trailer begin.
const (
	atFooterPosition = 0
	atFooterLength   = 8
	atCRC            = 12
	atTrailerMagic   = 16
)

const (
	headerMagic  = "SHSEGM\r\n"
	trailerMagic = "SHSEGEND"
)

// Extent is the index entry of one partition: its batches are byte-adjacent.
type Extent struct {
	Topic     domain.TopicID
	Partition domain.PartitionID
	// Position is where its first batch begins, Length how long its batches are
	// together, in bytes.
	Position int64
	Length   int64
	Records  int64
	Batches  int32
	// MinTimestamp is the lowest first-record timestamp of its batches,
	// MaxTimestamp the newest of all its records, in Unix milliseconds.
	MinTimestamp int64
	MaxTimestamp int64
}

// before reports whether e comes before the partition of other.
func (e *Extent) before(topic domain.TopicID, partition domain.PartitionID) bool {
	if c := bytes.Compare(e.Topic[:], topic[:]); c != 0 {
		return c < 0
	}
	return e.Partition < partition
}

// add counts a batch that goes after the extent's others.
func (e *Extent) add(h batch.Header) {
	if e.Batches == 0 {
		e.MinTimestamp, e.MaxTimestamp = h.BaseTimestamp, h.MaxTimestamp
	}
	e.Length += int64(h.Length)
	e.Records += int64(h.Records)
	e.Batches++
	e.MinTimestamp = min(e.MinTimestamp, h.BaseTimestamp)
	e.MaxTimestamp = max(e.MaxTimestamp, h.MaxTimestamp)
	if mutant.On(mutantMaxTimestamp) {
		e.MaxTimestamp = h.MaxTimestamp
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C returns the Castagnoli checksum of b, as segment stores keep it of whole
// objects.
func CRC32C(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Size returns how long the object of so many bytes of batches in so many
// extents is.
func Size(batchBytes int64, extents int) int64 {
	return HeaderSize + batchBytes + countSize + int64(extents)*extentSize + TrailerSize
}

const keyPrefix = "segments/"

// Key returns the object key of a segment: "segments/<2 hex>/<segment id>". The
// two digits are of a checksum of the id, and so spread keys that were made one after
// the other.
func Key(id domain.SegmentID) string {
	shard := [1]byte{byte(CRC32C(id[:]) >> 24)}
	return keyPrefix + hex.EncodeToString(shard[:]) + "/" + id.String()
}

// ParseKey reads what Key writes. It refuses a key whose two digits are not
// those of the id.
func ParseKey(key string) (domain.SegmentID, error) {
	id, err := domain.ParseUUID(key[strings.LastIndexByte(key, '/')+1:])
	if err != nil {
		return domain.SegmentID{}, fmt.Errorf("segment key %.80q: %w", key, err)
	}
	if want := Key(domain.SegmentID(id)); key != want {
		return domain.SegmentID{}, fmt.Errorf("segment key %.80q: want %q", key, want)
	}
	return domain.SegmentID(id), nil
}

// appendExtent appends the index entry of e.
func appendExtent(dst []byte, e *Extent) []byte {
	be := binary.BigEndian
	dst = append(dst, e.Topic[:]...)
	dst = be.AppendUint32(dst, uint32(e.Partition))
	dst = be.AppendUint64(dst, uint64(e.Position))
	dst = be.AppendUint64(dst, uint64(e.Length))
	dst = be.AppendUint64(dst, uint64(e.Records))
	dst = be.AppendUint32(dst, uint32(e.Batches))
	dst = be.AppendUint64(dst, uint64(e.MinTimestamp))
	return be.AppendUint64(dst, uint64(e.MaxTimestamp))
}

// parseExtent reads what appendExtent writes.
func parseExtent(b []byte) Extent {
	be := binary.BigEndian
	e := Extent{
		Partition:    domain.PartitionID(be.Uint32(b[16:])),
		Position:     int64(be.Uint64(b[20:])),
		Length:       int64(be.Uint64(b[28:])),
		Records:      int64(be.Uint64(b[36:])),
		Batches:      int32(be.Uint32(b[44:])),
		MinTimestamp: int64(be.Uint64(b[48:])),
		MaxTimestamp: int64(be.Uint64(b[56:])),
	}
	copy(e.Topic[:], b)
	return e
}
