package grpc

import "sync"

// memory keeps the buffers of messages: a new one costs more to get from the
// system than to fill. Its buffers are not cleared, so only the part that was written may
// be read. It is a mem.BufferPool.
type memory struct{ tiers []tier }

type tier struct {
	size int
	pool *sync.Pool
}

func newMemory(sizes ...int) *memory {
	m := new(memory)
	for _, size := range sizes {
		m.tiers = append(m.tiers, tier{size, new(sync.Pool)})
	}
	return m
}

// Get returns a buffer of length n. Larger ones than the largest that is kept
// are made anew.
func (m *memory) Get(n int) *[]byte {
	for _, t := range m.tiers {
		if n > t.size {
			continue
		}
		b, ok := t.pool.Get().(*[]byte)
		if !ok {
			fresh := make([]byte, t.size)
			b = &fresh
		}
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n)
	return &b
}

// Put keeps a buffer that Get has returned.
func (m *memory) Put(b *[]byte) {
	for _, t := range m.tiers {
		if cap(*b) == t.size {
			t.pool.Put(b)
			return
		}
	}
}
