package bench

import (
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"strconv"
)

// Sizes of the records that a Generator makes, in bytes.
const (
	MinRecordSize = 32
	MaxRecordSize = 1 << 20
)

// Generator makes JSON-like records that never repeat, for a few
// nanoseconds each: names and words stay, ids and numbers differ. Two fifths of the bytes
// do, so that LZ4 shrinks them about as much as it does events of the real world.
//
// It makes a quarter of a megabyte of records once, more than LZ4 looks back, and hands them out in
// turn, each time with another id.
type Generator struct {
	records []byte // one after the other
	size    int
	next    int // the position of the next one
	state   uint64
	// hexes and digits are where eight bytes differ from record to record.
	hexes  []int
	digits []int
}

// The names and values that stay the same.
var (
	names = []string{"event", "user", "amount", "session", "device", "order", "price", "trace", "region", "item", "total", "visit"}
	words = []string{"checkout", "page_view", "mobile", "eu-central", "returning", "newsletter", "standard", "express"}
)

// NewGenerator makes a Generator of records of size bytes, MinRecordSize to
// MaxRecordSize. Seeds make different records.
func NewGenerator(size int, seed uint64) *Generator {
	g := &Generator{size: size, state: mix(seed) ^ rand.Uint64()}
	g.addTemplate()
	template := g.records
	for range variants(size) - 1 {
		g.records = append(g.records, template...)
	}
	for at := 0; at < len(g.records); at += size {
		g.vary(g.records[at:][:size])
	}
	return g
}

// variedBytes is several times the 64 KiB that LZ4 looks back.
const variedBytes = 256 << 10

// variants returns how many records of size bytes are made: a prime number, so that each
// partition gets all of them in turn, unless the partitions are a multiple of it.
func variants(size int) int {
	n := max(variedBytes/size, 11)
	for !big.NewInt(int64(n)).ProbablyPrime(0) {
		n++
	}
	return n
}

// addTemplate adds a record in which nothing differs yet.
func (g *Generator) addTemplate() {
	g.add(`{"id":"`)
	g.addHex(2)
	for i, fits := 0, true; fits; i++ {
		fits = g.addField(i, g.size-len(`"}`))
	}
	for g.left(g.size) > len(`"}`) {
		g.add(".")
	}
	g.add(`"}`)
}

// left returns how many bytes are missing to size.
func (g *Generator) left(size int) int { return size - len(g.records) }

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

func (g *Generator) add(s string) { g.records = append(g.records, s...) }

func (g *Generator) addHex(n int) {
	for range n {
		g.hexes = append(g.hexes, len(g.records))
		g.add("00000000")
	}
}

func (g *Generator) addDigits() {
	g.digits = append(g.digits, len(g.records)+1)
	g.add("100000000")
}

// vary gives the record numbers of its own, but for the id.
func (g *Generator) vary(record []byte) {
	for _, at := range g.hexes[2:] {
		binary.LittleEndian.PutUint64(record[at:], hex8(uint32(g.random())))
	}
	for _, at := range g.digits {
		binary.LittleEndian.PutUint64(record[at:], octal8(uint32(g.random())))
	}
}

// random returns a permutation of a counter: no number comes twice.
func (g *Generator) random() uint64 {
	g.state += 0x9e3779b97f4a7c15
	return mix(g.state)
}

// Next returns the next record. It is valid until the following call.
func (g *Generator) Next() []byte {
	record := g.records[g.next:][:g.size:g.size]
	if g.next += g.size; g.next == len(g.records) {
		g.next = 0
	}
	id := g.random()
	binary.LittleEndian.PutUint64(record[g.hexes[0]:], hex8(uint32(id>>32)))
	binary.LittleEndian.PutUint64(record[g.hexes[1]:], hex8(uint32(id)))
	return record
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
