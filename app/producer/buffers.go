package producer

import (
	"math/bits"
	"sync"
)

// Buffers come in powers of two between these sizes; larger ones are not kept.
const (
	minBufferBits = 12
	maxBufferBits = 20
	bufferClasses = maxBufferBits - minBufferBits + 1
)

// buffers recycles the memory that batches are built and encoded in. It keeps
// at most limit bytes for later.
type buffers struct {
	mu    sync.Mutex
	free  [bufferClasses][][]byte
	kept  int64
	limit int64
}

// take returns an empty buffer of at least n bytes.
func (p *buffers) take(n int) []byte {
	class := bufferClass(n)
	if class >= bufferClasses {
		return make([]byte, 0, n)
	}
	p.mu.Lock()
	if list := p.free[class]; len(list) > 0 {
		b := list[len(list)-1]
		list[len(list)-1] = nil
		p.free[class] = list[:len(list)-1]
		p.kept -= int64(cap(b))
		p.mu.Unlock()
		return b
	}
	p.mu.Unlock()
	return make([]byte, 0, 1<<(class+minBufferBits))
}

// put takes a buffer back that nobody uses any more.
func (p *buffers) put(b []byte) {
	size := cap(b)
	class := bufferClass(size)
	if class >= bufferClasses || size != 1<<(class+minBufferBits) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept+int64(size) > p.limit {
		return
	}
	p.kept += int64(size)
	p.free[class] = append(p.free[class], b[:0])
}

// bufferClass returns the smallest class that holds n bytes.
func bufferClass(n int) int {
	if n <= 1<<minBufferBits {
		return 0
	}
	return bits.Len(uint(n-1)) - minBufferBits
}
