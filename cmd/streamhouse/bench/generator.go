package bench

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"
)

// Sizes of the records that a Generator makes, in bytes.
const (
	MinRecordSize = 32
	MaxRecordSize = 1 << 20
)

// Generator makes JSON-like records that never repeat, for a few
// nanoseconds each: names and words stay, ids and numbers change. Two fifths of the bytes
// change, so that LZ4 shrinks them about as much as it does events of the real world.
type Generator struct {
	buf []byte
	// hexes and digits are where eight bytes change each time.
	hexes  []int
	digits []int
	state  uint64

	hexPool, digitPool []byte
}

// The names and values that stay the same.
var (
	names = []string{"event", "user", "amount", "session", "device", "order", "price", "trace", "region", "item", "total", "visit"}
	words = []string{"checkout", "page_view", "mobile", "eu-central", "returning", "newsletter", "standard", "express"}
)

// NewGenerator makes a Generator of records of size bytes, MinRecordSize to
// MaxRecordSize. Seeds make different records.
func NewGenerator(size int, seed uint64) *Generator {
	state := mix(seed) ^ rand.Uint64()
	g := &Generator{state: state, hexPool: pool(hex8, state), digitPool: pool(octal8, state)}
	g.add(`{"id":"`)
	g.addHex(2)
	for i, fits := 0, true; fits; i++ {
		fits = g.addField(i, size-len(`"}`))
	}
	for g.left(size) > len(`"}`) {
		g.add(".")
	}
	g.add(`"}`)
	return g
}

// left returns how many bytes are missing to size.
func (g *Generator) left(size int) int { return size - len(g.buf) }

// addField adds one more field, unless it would end after size bytes.
func (g *Generator) addField(i, size int) bool {
	name := names[i%len(names)]
	if i >= len(names) {
		name += strconv.Itoa(i / len(names))
	}
	word := words[i%len(words)]
	length := map[int]int{0: len(word), 1: 8, 2: 9, 3: 16}[i%4] + len(`","":"`) + len(name)
	if g.left(size) < length {
		return false
	}
	g.add(`","` + name + `":"`)
	switch i % 4 {
	case 0:
		g.add(word)
	case 1:
		g.addHex(1)
	case 2:
		g.addDigits()
	case 3:
		g.addHex(2)
	}
	return true
}

func (g *Generator) add(s string) { g.buf = append(g.buf, s...) }

func (g *Generator) addHex(n int) {
	for range n {
		g.hexes = append(g.hexes, len(g.buf))
		g.add("00000000")
	}
}

func (g *Generator) addDigits() {
	g.digits = append(g.digits, len(g.buf)+1)
	g.add("100000000")
}

// Next returns the next record. It is valid until the following call.
func (g *Generator) Next() []byte {
	// The id, hexes[0] and [1], is a permutation of a counter: it comes once.
	g.state += 0x9e3779b97f4a7c15
	id := mix(g.state)
	binary.LittleEndian.PutUint64(g.buf[g.hexes[0]:], hex8(uint32(id>>32)))
	binary.LittleEndian.PutUint64(g.buf[g.hexes[1]:], hex8(uint32(id)))
	random := id
	for _, at := range g.hexes[2:] {
		random = random*0x5851f42d4c957f2d + 0x14057b7ef767814f
		*(*[8]byte)(g.buf[at:]) = [8]byte(g.hexPool[random>>44&(poolBytes-1):])
	}
	for _, at := range g.digits {
		random = random*0x5851f42d4c957f2d + 0x14057b7ef767814f
		*(*[8]byte)(g.buf[at:]) = [8]byte(g.digitPool[random>>44&(poolBytes-1):])
	}
	return g.buf
}

// poolBytes is far more than the 64 KiB that LZ4 looks back.
const poolBytes = 1 << 20

// pool returns random text to take values from, at any position.
func pool(eight func(uint32) uint64, seed uint64) []byte {
	p := make([]byte, poolBytes+8)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], eight(uint32(mix(seed+uint64(i)))))
	}
	return p
}

// mix is the bijective finalizer of the SplitMix64 generator.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// hex8 returns the eight hex digits of v as bytes, lowest digit first.
func hex8(v uint32) uint64 {
	x := nibbles(v)
	letters := (x + 0x0606060606060606) >> 4 & 0x0101010101010101
	return x + 0x3030303030303030 + letters*('a'-'0'-10)
}

// octal8 returns eight digits from 0 to 7.
func octal8(v uint32) uint64 { return nibbles(v)&0x0707070707070707 + 0x3030303030303030 }

// nibbles spreads the half bytes of v over eight bytes.
func nibbles(v uint32) uint64 {
	x := uint64(v)
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	return (x | x<<4) & 0x0f0f0f0f0f0f0f0f
}
