package producer

import (
	"math/bits"
	"sync"
)

// Buffers come in sizes from 1 KiB to 16 MiB, four to each doubling so that at
// most a fifth of one is idle. Larger ones are not kept.
const (
	minBufferBits = 10
	maxBufferBits = 24
	bufferClasses = (maxBufferBits-minBufferBits)*4 + 1
)

// buffers recycles the memory that batches are built in and that holds them encoded.
// What is kept for later and what is in use stay below limit together, as long as what
// is in use does by itself.
type buffers struct {
	mu    sync.Mutex
	free  [bufferClasses][][]byte
	total int64 // bytes of the buffers in use and kept
	limit int64

	scratches sync.Pool // of *scratch
}

// scratch is what encoding a batch needs besides the batch.
type scratch struct {
	records []byte // of a batch in pieces, in one
	encoded []byte
}

// take returns an empty buffer of at least n bytes, to gather records in.
func (p *buffers) take(n int) []byte { return p.takeOf(n, 4) }

// fit returns an empty buffer of n bytes and at most a quarter more.
func (p *buffers) fit(n int) []byte { return p.takeOf(n, 1) }

func (p *buffers) takeOf(n, classes int) []byte {
	class := bufferClass(n)
	if class >= bufferClasses {
		return make([]byte, 0, n)
	}
	if b := p.reuse(class, classes); b != nil {
		return b
	}
	return make([]byte, 0, bufferSize(class))
}

// reuse returns a kept buffer of the class or of the next ones, so many classes
// in all, or nil after it has made room for a new one. Four classes on, a buffer is twice as large.
func (p *buffers) reuse(class, classes int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := class; c < min(class+classes, bufferClasses); c++ {
		if len(p.free[c]) > 0 {
			return p.pop(c)
		}
	}
	p.total += int64(bufferSize(class))
	for p.total > p.limit && p.evict() {
	}
	return nil
}

// evict lets go of a buffer of the class that keeps the most, if one is kept.
func (p *buffers) evict() bool {
	most, size := 0, 0
	for c, list := range p.free {
		if n := len(list) * bufferSize(c); n > size {
			most, size = c, n
		}
	}
	if size == 0 {
		return false
	}
	p.total -= int64(cap(p.pop(most)))
	return true
}

func (p *buffers) pop(class int) []byte {
	list := p.free[class]
	b := list[len(list)-1]
	list[len(list)-1] = nil
	p.free[class] = list[:len(list)-1]
	return b
}

// put takes a buffer back that nobody uses any more.
func (p *buffers) put(b []byte) {
	size := cap(b)
	class := bufferClass(size)
	if class >= bufferClasses || size != bufferSize(class) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total > p.limit {
		p.total -= int64(size)
		return
	}
	p.free[class] = append(p.free[class], b[:0])
}

// borrow lends a scratch to f.
func (p *buffers) borrow(f func(*scratch)) {
	s, ok := p.scratches.Get().(*scratch)
	if !ok {
		s = new(scratch)
	}
	f(s)
	p.scratches.Put(s)
}

// bufferClass returns the smallest class that holds n bytes.
func bufferClass(n int) int {
	if n <= 1<<minBufferBits {
		return 0
	}
	octave := bits.Len(uint(n-1)) - 1 // 2^octave <= n-1 < 2^(octave+1)
	quarter := (n - 1) >> (octave - 2) & 3
	return (octave-minBufferBits)*4 + quarter + 1
}

// bufferSize returns the size of the buffers of a class.
func bufferSize(class int) int {
	return (4 + class&3) << (class>>2 + minBufferBits - 2)
}
