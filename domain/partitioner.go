package domain

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"

	"github.com/dchest/siphash"
)

// Partitioner chooses the partition of a record that names none. It must be
// safe for concurrent use, must not keep key, and must return a number from 0
// to partitions-1; anything else fails the send with *InvalidPartitionError.
//
// A nil key means "no key"; an empty key is a key.
type Partitioner interface {
	Partition(topic string, key []byte, partitions int32) PartitionID
}

// PartitionerFunc lets a function be a Partitioner.
type PartitionerFunc func(topic string, key []byte, partitions int32) PartitionID

// Partition calls f.
func (f PartitionerFunc) Partition(topic string, key []byte, partitions int32) PartitionID {
	return f(topic, key, partitions)
}

// SipHash returns SipHash-2-4 with key (0,0) over the key's length as 8
// little-endian bytes followed by the key: the hash of the default partitioner.
func SipHash(key []byte) uint64 {
	var stack [128]byte
	buf := binary.LittleEndian.AppendUint64(stack[:0], uint64(len(key)))
	buf = append(buf, key...)
	return siphash.Hash(0, 0, buf)
}

// NewSipHashPartitioner returns the default partitioner: SipHash modulo the
// partition count for records with a key, round robin for those without.
func NewSipHashPartitioner() Partitioner { return &keyed{hash: SipHash} }

// NewRoundRobinPartitioner returns a partitioner that ignores keys and takes
// the partitions in turn.
func NewRoundRobinPartitioner() Partitioner { return new(roundRobin) }

// NewMurmur2Partitioner returns Kafka's partitioner for keyed records (murmur2,
// sign bit cleared, modulo the count), so that keys land where Kafka's own clients put
// them. Records without a key go round robin.
func NewMurmur2Partitioner() Partitioner {
	return &keyed{hash: func(key []byte) uint64 { return uint64(murmur2(key) & 0x7fffffff) }}
}

// NewStickyPartitioner hashes keys as the default does, and sends records
// without a key to one partition for run records before it moves to another at random:
// fewer and fuller batches. A run below 1 is taken as 1.
func NewStickyPartitioner(run int) Partitioner {
	return &sticky{run: uint64(max(run, 1)), seed: rand.Uint64()}
}

type roundRobin struct{ next atomic.Uint32 }

func (r *roundRobin) Partition(_ string, _ []byte, partitions int32) PartitionID {
	return PartitionID((r.next.Add(1) - 1) % uint32(partitions))
}

type keyed struct {
	hash  func([]byte) uint64
	other roundRobin
}

func (k *keyed) Partition(topic string, key []byte, partitions int32) PartitionID {
	if key == nil {
		return k.other.Partition(topic, nil, partitions)
	}
	return PartitionID(k.hash(key) % uint64(partitions))
}

type sticky struct {
	run  uint64
	seed uint64
	sent atomic.Uint64
}

func (s *sticky) Partition(_ string, key []byte, partitions int32) PartitionID {
	if key != nil {
		return PartitionID(SipHash(key) % uint64(partitions))
	}
	turn := (s.sent.Add(1) - 1) / s.run
	var buf [8]byte
	binary.LittleEndian.PutUint64(buf[:], turn)
	return PartitionID(siphash.Hash(s.seed, 0, buf[:]) % uint64(partitions))
}

// murmur2 is Austin Appleby's MurmurHash2 with Kafka's seed 0x9747b28c.
func murmur2(data []byte) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
		r           = 24
	)
	h := seed ^ uint32(len(data))
	for len(data) >= 4 {
		k := binary.LittleEndian.Uint32(data) * m
		k ^= k >> r
		h = h*m ^ k*m
		data = data[4:]
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
