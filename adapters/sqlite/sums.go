package sqlite

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// The rows that say where records are carry a checksum, which SQLite does not
// have: with a flipped bit in one of them, readers would get other records or miss some.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumOf is the CRC32C of values, 8 bytes each.
func sumOf(values ...int64) int64 {
	var stack [8 * 9]byte
	b := stack[:0]
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return int64(crc32.Checksum(b, castagnoli))
}

func sumOfPartition(p commit.Partition) int64 {
	return sumOf(int64(p.LogStart), int64(p.NextOffset), p.Bytes)
}

func sumOfExtent(partitionKey, segmentNo int64, e commit.Extent) int64 {
	return sumOf(partitionKey, int64(e.Base), int64(e.Last), segmentNo, e.Position, e.Length, int64(e.Batches), e.MaxTimestamp, e.CommittedAt)
}

const partitionColumns = "partition_key, log_start, next_offset, bytes, row_crc32c"

// scanPartition reads a row of partitionColumns.
func scanPartition(r *row) (key int64, p commit.Partition) {
	p = commit.Partition{LogStart: domain.Offset(r.int(1)), NextOffset: domain.Offset(r.int(2)), Bytes: r.int(3)}
	if r.int(4) != sumOfPartition(p) && r.err == nil {
		r.err = damagedError("a partition's row does not have its checksum")
	}
	return r.int(0), p
}
