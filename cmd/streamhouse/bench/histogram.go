package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Each power of two is divided into 2^subBits buckets: values are exact to 1.6 %.
const subBits = 5

// histogram counts durations, from any goroutine, in memory of a fixed size.
type histogram struct {
	buckets [64 << subBits]atomic.Int64
	count   atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(uint64(max(d, 0)))].Add(1)
	h.count.Add(1)
}

// bucketOf keeps the highest subBits+1 bits of v.
func bucketOf(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)<<subBits + int(v>>shift&(1<<subBits-1))
}

// middleOf returns the value in the middle of a bucket.
func middleOf(bucket int) time.Duration {
	if bucket < 1<<subBits {
		return time.Duration(bucket)
	}
	shift := bucket>>subBits - 1
	low := (uint64(bucket)&(1<<subBits-1) | 1<<subBits) << shift
	return time.Duration(low + 1<<shift/2)
}

// quantile returns the duration that the share q of all does not exceed; 0 if
// there is none.
func (h *histogram) quantile(q float64) time.Duration {
	total := h.count.Load()
	if total == 0 {
		return 0
	}
	rank := max(int64(q*float64(total)+0.5), 1)
	for i := range h.buckets {
		if rank -= h.buckets[i].Load(); rank <= 0 {
			return middleOf(i)
		}
	}
	return 0
}
