package main

import (
	"runtime/debug"
	"testing"
)

func TestBoundMemory_LeavesALimitThatIsSetAndRestoresWhatWas(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	debug.SetMemoryLimit(1 << 62)
	boundMemory(64<<20, 0)()
	if got := debug.SetMemoryLimit(-1); got != 1<<62 {
		t.Errorf("a limit of 2^62 became %d", got)
	}
	debug.SetMemoryLimit(1<<63 - 1)
	restore := boundMemory(64<<20, 0)
	if got := debug.SetMemoryLimit(-1); got != 164<<20 {
		t.Errorf("the limit is %d", got)
	}
	restore()
	if got := debug.SetMemoryLimit(-1); got != 1<<63-1 {
		t.Errorf("it is not restored: %d", got)
	}
}
