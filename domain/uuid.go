package domain

import (
	"encoding/hex"
	"fmt"
	"time"
)

// UUID is a universally unique identifier (RFC 9562).
type UUID [16]byte

// NewUUIDv7 makes a version 7 identifier, which sorts by time, from a time and
// ten random bytes. Its purity keeps tests and simulations repeatable.
func NewUUIDv7(now time.Time, random [10]byte) UUID {
	var u UUID
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	copy(u[6:], random[:])
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	return u
}

// String returns the form 01234567-89ab-7def-8123-456789abcdef.
func (u UUID) String() string {
	var s [36]byte
	hex.Encode(s[0:8], u[0:4])
	s[8] = '-'
	hex.Encode(s[9:13], u[4:6])
	s[13] = '-'
	hex.Encode(s[14:18], u[6:8])
	s[18] = '-'
	hex.Encode(s[19:23], u[8:10])
	s[23] = '-'
	hex.Encode(s[24:36], u[10:16])
	return string(s[:])
}

// IsZero reports the identifier that names nothing.
func (u UUID) IsZero() bool { return u == UUID{} }

// ParseUUID reads what String writes.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, fmt.Errorf("uuid %.40q: want 36 characters in the form 8-4-4-4-12", s)
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(u[:], []byte(digits)); err != nil {
		return UUID{}, fmt.Errorf("uuid %.40q: %w", s, err)
	}
	return u, nil
}
