package main

import (
	"math"
	"runtime/debug"
)

// besidesBuffer is what a producing process needs besides its buffer: segments
// being built and uploaded, encoded batches in flight, the stores.
const besidesBuffer = 100 << 20

// boundMemory lets the garbage collector keep the process near bufferBytes and
// besidesBuffer, where it would else let garbage grow to the size of what is in
// use. GOMEMLIMIT, if it is set, stays. Restore undoes it.
func boundMemory(bufferBytes int64) (restore func()) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return func() {}
	}
	before := debug.SetMemoryLimit(bufferBytes + besidesBuffer)
	return func() { debug.SetMemoryLimit(before) }
}
