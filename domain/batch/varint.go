package batch

import "math/bits"

// zigzag maps integers near zero to small unsigned ones.
func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

// uvarintSize returns how many bytes putUvarint writes for v.
func uvarintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// putUvarint writes v, seven bits a byte and lowest first, into b from i on and
// returns where it ends.
func putUvarint(b []byte, i int, v uint64) int {
	for v >= 0x80 {
		b[i] = byte(v) | 0x80
		v >>= 7
		i++
	}
	b[i] = byte(v)
	return i + 1
}

// varint reads a zigzag integer of b from i on and returns it and where it
// ends, which is beyond len(b) if there is no whole one.
func varint(b []byte, i int) (int64, int) {
	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		return int64(b[i]>>1) ^ -int64(b[i]&1), i + 1
	}
	return varintSlow(b, i)
}

// It is kept out of varint so that the compiler can inline that.
//
//go:noinline
func varintSlow(b []byte, i int) (int64, int) {
	var u uint64
	for shift := 0; shift < 64 && uint(i) < uint(len(b)); shift += 7 {
		c := b[i]
		i++
		u |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if shift == 63 && c > 1 {
				break
			}
			return int64(u>>1) ^ -int64(u&1), i
		}
	}
	return 0, len(b) + 1
}
