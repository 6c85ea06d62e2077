package sqlite

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
	"github.com/streamhouse/streamhouse/domain/sequence"
)

// Columns of several values are packed as varints between a version byte and a
// CRC32C of four bytes. All values are written with a sign, so that -1 is short.
const packedVersion = 1

// sealed ends a packed column.
func sealed(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func packOutcomes(outcomes []commit.Outcome) []byte {
	b := append(make([]byte, 0, 6+4*len(outcomes)), packedVersion)
	b = binary.AppendUvarint(b, uint64(len(outcomes)))
	for _, o := range outcomes {
		b = append(b, byte(o.Status))
		b = binary.AppendVarint(b, int64(o.Base))
	}
	return sealed(b)
}

func unpackOutcomes(b []byte) ([]commit.Outcome, error) {
	u := unpack(b)
	n := u.count(2)
	outcomes := make([]commit.Outcome, n)
	for i := range outcomes {
		outcomes[i] = commit.Outcome{Status: commit.Status(u.byte()), Base: domain.Offset(u.int())}
	}
	return outcomes, u.end("the outcomes of a commit")
}

func packState(s *sequence.State) []byte {
	b := append(make([]byte, 0, 64), packedVersion)
	b = binary.AppendVarint(b, int64(s.Epoch))
	b = binary.AppendVarint(b, int64(s.Last))
	b = binary.AppendUvarint(b, uint64(len(s.Recent)))
	for _, e := range s.Recent {
		b = binary.AppendVarint(b, int64(e.First))
		b = binary.AppendVarint(b, int64(e.Last))
		b = binary.AppendVarint(b, int64(e.Base))
	}
	return sealed(b)
}

func unpackState(b []byte) (*sequence.State, error) {
	u := unpack(b)
	s := &sequence.State{Seen: true, Epoch: domain.Epoch(u.int()), Last: domain.Sequence(u.int())}
	s.Recent = make([]sequence.Entry, u.count(3))
	for i := range s.Recent {
		s.Recent[i] = sequence.Entry{First: domain.Sequence(u.int()), Last: domain.Sequence(u.int()), Base: domain.Offset(u.int())}
	}
	return s, u.end("a producer's sequences")
}

// unpacker reads a packed column. After a fault it reads zeros.
type unpacker struct {
	rest []byte
	bad  bool
}

func unpack(b []byte) *unpacker {
	u := &unpacker{bad: true}
	if end := len(b) - 4; end > 0 && crc32.Checksum(b[:end], castagnoli) == binary.LittleEndian.Uint32(b[end:]) {
		u.rest = b[:end]
		u.bad = u.byte() != packedVersion
	}
	return u
}

func (u *unpacker) byte() byte {
	if len(u.rest) == 0 {
		u.bad = true
		return 0
	}
	b := u.rest[0]
	u.rest = u.rest[1:]
	return b
}

func (u *unpacker) int() int64 {
	v, n := binary.Varint(u.rest)
	return advanced(u, v, n)
}

// count reads how many items of at least size bytes follow.
func (u *unpacker) count(size int) int {
	v, n := binary.Uvarint(u.rest)
	v = advanced(u, v, n)
	if v > uint64(len(u.rest)/size) {
		u.bad = true
		return 0
	}
	return int(v)
}

func advanced[T int64 | uint64](u *unpacker, v T, n int) T {
	if n <= 0 {
		u.bad, u.rest = true, nil
		return 0
	}
	u.rest = u.rest[n:]
	return v
}

func (u *unpacker) end(what string) error {
	if u.bad || len(u.rest) != 0 {
		return damagedError(what + " cannot be read")
	}
	return nil
}
