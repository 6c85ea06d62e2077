package main

import (
	"math"
	"runtime/debug"
)

// besidesBuffer is what a producing process needs besides its buffer: segments
// being built and uploaded, encoded batches in flight, the stores.
const besidesBuffer = 100 << 20

// perPartition is what each partition adds: its state, the rows of its batches on
// their way to the metadata store.
const perPartition = 24 << 10

// boundMemory lets the garbage collector keep the process near bufferBytes,
// besidesBuffer and what so many partitions add, where it would else let garbage grow to the
// size of what is in use. With less it would collect all the time. GOMEMLIMIT, if it is set,
// stays. Restore undoes it.
func boundMemory(bufferBytes int64, partitions int32) (restore func()) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return func() {}
	}
	before := debug.SetMemoryLimit(bufferBytes + besidesBuffer + int64(partitions)*perPartition)
	return func() { debug.SetMemoryLimit(before) }
}
