package bench

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistogram_QuantilesAreWithinTwoPercent(t *testing.T) {
	var h histogram
	for i := range 10_000 {
		h.add(time.Duration(i+1) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 5000 * time.Microsecond, 0.99: 9900 * time.Microsecond, 1: 10_000 * time.Microsecond, 0: time.Microsecond} {
		if got := h.quantile(q); got < want*98/100 || got > want*102/100 {
			t.Errorf("quantile %v is %s, want %s", q, got, want)
		}
	}
	if (&histogram{}).quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
}

func TestHistogram_EveryValueIsInABucketAroundIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Int64Min(0).Draw(t, "v")
		b := bucketOf(uint64(v))
		if b >= len(histogram{}.buckets) {
			t.Fatalf("%d is in bucket %d", v, b)
		}
		middle := float64(middleOf(b))
		if low, high := middle*(1-1.0/(1<<subBits)), middle*(1+1.0/(1<<subBits)); float64(v) < low || float64(v) > high {
			t.Fatalf("%d is in the bucket around %.0f", v, middle)
		}
	})
}
