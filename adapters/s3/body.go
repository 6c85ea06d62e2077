package s3

import (
	"bytes"
	"errors"
	"sync"
)

var errReleased = errors.New("the call has ended")

// body is what a Put sends. The HTTP transport may still read it when the call
// has returned, so it takes copies, and after release nothing.
type body struct {
	mu       sync.Mutex
	bytes    *bytes.Reader
	released bool
}

func newBody(b []byte) *body { return &body{bytes: bytes.NewReader(b)} }

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released {
		return 0, errReleased
	}
	return b.bytes.Read(p)
}

func (b *body) Seek(offset int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released {
		return 0, errReleased
	}
	return b.bytes.Seek(offset, whence)
}

// release ends all reading.
func (b *body) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.released = true
	b.bytes = nil
}
