package codec

import (
	"encoding/binary"
	"math/bits"
)

// The constants of XXH32.
const (
	prime1 uint32 = 2654435761
	prime2 uint32 = 2246822519
	prime3 uint32 = 3266489917
	prime4 uint32 = 668265263
	prime5 uint32 = 374761393
)

// xxh32 returns the 32-bit xxHash of b with seed 0, which is the checksum of
// the LZ4 frame format.
func xxh32(b []byte) uint32 {
	length := uint32(len(b))
	h := prime5
	if len(b) >= 16 {
		h, b = xxh32Stripes(b)
	}
	h += length
	for ; len(b) >= 4; b = b[4:] {
		h += binary.LittleEndian.Uint32(b) * prime3
		h = bits.RotateLeft32(h, 17) * prime4
	}
	for _, c := range b {
		h += uint32(c) * prime5
		h = bits.RotateLeft32(h, 11) * prime1
	}
	h ^= h >> 15
	h *= prime2
	h ^= h >> 13
	h *= prime3
	return h ^ h>>16
}

// xxh32Stripes takes all whole 16-byte stripes from the front of b and returns
// their hash and the rest.
func xxh32Stripes(b []byte) (uint32, []byte) {
	p1, p2 := prime1, prime2
	v1, v2, v3, v4 := p1+p2, p2, uint32(0), -p1
	for ; len(b) >= 16; b = b[16:] {
		v1 = xxh32Round(v1, binary.LittleEndian.Uint32(b[0:4]))
		v2 = xxh32Round(v2, binary.LittleEndian.Uint32(b[4:8]))
		v3 = xxh32Round(v3, binary.LittleEndian.Uint32(b[8:12]))
		v4 = xxh32Round(v4, binary.LittleEndian.Uint32(b[12:16]))
	}
	h := bits.RotateLeft32(v1, 1) + bits.RotateLeft32(v2, 7) + bits.RotateLeft32(v3, 12) + bits.RotateLeft32(v4, 18)
	return h, b
}

func xxh32Round(v, lane uint32) uint32 {
	return bits.RotateLeft32(v+lane*prime2, 13) * prime1
}
