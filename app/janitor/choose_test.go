package janitor

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/domain/commit"
)

// extentsOfLengths are adjacent extents of those lengths.
func extentsOfLengths(lengths []int64) []commit.Extent {
	extents := make([]commit.Extent, len(lengths))
	for i, n := range lengths {
		extents[i] = commit.Extent{Base: domain.Offset(10 * i), Last: domain.Offset(10*i + 9), Length: n, CommittedAt: int64(i)}
	}
	return extents
}

func drawRules(t *rapid.T) rules {
	r := rules{
		target: 1 << rapid.IntRange(4, 20).Draw(t, "target"),
		fanIn:  rapid.IntRange(growth, 20).Draw(t, "fan in"),
		before: rapid.OneOf(rapid.Int64Range(0, 400), rapid.Just(int64(math.MaxInt64))).Draw(t, "before"),
		age:    rapid.SampledFrom([]int64{0, 0, 7, 100}).Draw(t, "age"),
	}
	unreadable := rapid.Int64Range(2, 100).Draw(t, "one in so many is unreadable")
	r.bad = func(e commit.Extent) bool { return e.CommittedAt%unreadable == 1 }
	return r
}

func TestChoose_TakesAdjacentSmallExtentsWithinTheRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRules(t)
		small := rapid.Int64Range(1, 1+r.target/16)
		lengths := rapid.OneOf(small, small, small, small, small, small, small, rapid.Int64Range(1, 2*r.target))
		extents := extentsOfLengths(rapid.SliceOfN(lengths, 20, 300).Draw(t, "lengths"))
		left := room{rapid.Int64Range(0, 4*r.target).Draw(t, "bytes"), rapid.IntRange(0, 400).Draw(t, "extents")}
		if rapid.Bool().Draw(t, "much room") {
			left = room{math.MaxInt64, math.MaxInt}
		}
		next, sum, count := domain.Offset(0), int64(0), 0
		for _, run := range r.choose(extents, left) {
			checkRun(t, r, run)
			if run[0].Base < next {
				t.Fatalf("a run at %d overlaps the one that ends before %d", run[0].Base, next)
			}
			next, sum, count = run[len(run)-1].Last+1, sum+bytesOf(run), count+len(run)
		}
		if sum > left.bytes || count > left.extents {
			t.Fatalf("took %d bytes in %d extents of %+v", sum, count, left)
		}
	})
}

// checkRun demands of a run what makes it worth a rewrite, and safe.
func checkRun(t *rapid.T, r rules, run []commit.Extent) {
	largest := int64(0)
	for i, e := range run {
		largest = max(largest, e.Length)
		switch {
		case i > 0 && e.Base != run[i-1].Last+1:
			t.Fatalf("%d follows the extent that ends at %d", e.Base, run[i-1].Last)
		case e.Length >= max(r.target/2, 1), e.CommittedAt > r.before, r.bad(e):
			t.Fatalf("took %+v, which is large, young or unreadable", e)
		case r.age > 0 && e.CommittedAt/r.age != run[0].CommittedAt/r.age:
			t.Fatalf("put extents of %d and %d together", run[0].CommittedAt, e.CommittedAt)
		}
	}
	sum := bytesOf(run)
	if sum > r.target || sum < growth*largest || len(run) < r.fanIn && sum < r.target/2 {
		t.Fatalf("put %d extents of %d bytes together, the largest of %d, by %+v", len(run), sum, largest, r)
	}
}

func never(commit.Extent) bool { return false }

// TestChoose_LeavesLittleThatCouldBePutTogether: equal extents, however many,
// end up as a handful.
func TestChoose_LeavesLittleThatCouldBePutTogether(t *testing.T) {
	r := rules{target: 8 << 20, fanIn: 16, before: math.MaxInt64, bad: never}
	for _, size := range []int64{70, 1 << 10, 100 << 10} {
		extents := extentsOfLengths(slices.Repeat([]int64{size}, 100_000))
		for {
			runs := r.choose(extents, room{math.MaxInt64, math.MaxInt})
			if len(runs) == 0 {
				break
			}
			extents, _ = replaceRuns(extents, runs)
		}
		if most := int(100_000*size/(4<<20)) + 100; len(extents) > most {
			t.Errorf("%d extents are left of 100,000 of %d bytes, want at most %d", len(extents), size, most)
		}
	}
}

// replaceRuns puts one extent in the place of each run.
func replaceRuns(extents []commit.Extent, runs [][]commit.Extent) (after []commit.Extent, rewritten int64) {
	for i := 0; i < len(extents); {
		if len(runs) > 0 && extents[i].Base == runs[0][0].Base {
			e := commit.Copy{Of: runs[0]}.Extent(domain.SegmentID{})
			rewritten += e.Length
			after = append(after, e)
			i += len(runs[0])
			runs = runs[1:]
			continue
		}
		after = append(after, extents[i])
		i++
	}
	return after, rewritten
}

// TestChoose_RewritesEachByteAFewTimesOnly lets extents arrive for long, with a
// look after every few, and counts what is rewritten.
func TestChoose_RewritesEachByteAFewTimesOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rules{target: 1 << 20, fanIn: rapid.IntRange(growth, 32).Draw(t, "fan in"), before: math.MaxInt64, bad: never}
		smallest := rapid.Int64Range(70, 2000).Draw(t, "smallest")
		spread := rapid.Int64Range(1, 200).Draw(t, "largest to smallest")
		left := room{rapid.Int64Range(64<<10, 4<<20).Draw(t, "bytes"), rapid.IntRange(32, 5000).Draw(t, "extents")}
		rounds := rapid.IntRange(10, 60).Draw(t, "rounds")
		sizes := rapid.Int64Range(smallest, smallest*spread)
		var extents []commit.Extent
		var arrived, rewritten int64
		for range rounds {
			for range rapid.IntRange(1, 200).Draw(t, "arrivals") {
				next := domain.Offset(0)
				if n := len(extents); n > 0 {
					next = extents[n-1].Last + 1
				}
				e := commit.Extent{Base: next, Last: next, Length: sizes.Draw(t, "size")}
				arrived += e.Length
				extents = append(extents, e)
			}
			for {
				runs := r.choose(extents, left)
				if len(runs) == 0 {
					break
				}
				var moved int64
				extents, moved = replaceRuns(extents, runs)
				rewritten += moved
			}
		}
		// Each rewrite makes extents growth times as large, up to the target.
		most := 1 + math.Log(float64(r.target/2)/float64(smallest))/math.Log(growth)
		if got := float64(rewritten) / float64(arrived); got > most {
			t.Fatalf("each byte was rewritten %.1f times, want at most %.1f", got, most)
		}
	})
}

// TestChoose_OfASteadyStreamRewritesThreeTimes is the usual case, in figures.
func TestChoose_OfASteadyStreamRewritesThreeTimes(t *testing.T) {
	for _, size := range []int64{100, 1 << 10, 20 << 10} {
		r := rules{target: 8 << 20, fanIn: 16, before: math.MaxInt64, bad: never}
		var extents []commit.Extent
		var arrived, rewritten int64
		for next := domain.Offset(0); arrived < 64<<20; next++ {
			extents = append(extents, commit.Extent{Base: next, Last: next, Length: size})
			arrived += size
			if next%1200 != 0 { // five minutes of four flushes a second
				continue
			}
			tail := max(0, len(extents)-4096)
			for {
				runs := r.choose(extents[tail:], room{32 << 20, maxReplaced})
				if len(runs) == 0 {
					break
				}
				after, moved := replaceRuns(extents[tail:], runs)
				extents, rewritten = append(extents[:tail:tail], after...), rewritten+moved
			}
		}
		got := float64(rewritten) / float64(arrived)
		t.Logf("extents of %d bytes: each byte was rewritten %.2f times, %d extents are left", size, got, len(extents))
		if got > 3.5 {
			t.Errorf("extents of %d bytes: each byte was rewritten %.2f times", size, got)
		}
	}
}
