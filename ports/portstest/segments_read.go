package portstest

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

func readRanges(s *segmentsUnderTest) {
	const key, size = "segments/00/ranges", 3<<20 + 17
	body := segmentBody(9, size)
	s.put(key, body)
	ranges := []struct{ position, length int64 }{
		{0, 0}, {0, 1}, {0, size}, {1, size - 1}, {size - 1, 1}, {size, 0},
		{4095, 2}, {4096, 4096}, {1<<20 - 1, 1<<20 + 2}, {17, 3 << 20},
	}
	for _, r := range ranges {
		got, err := s.ReadRange(s.Context(), key, r.position, r.length)
		if err != nil || !bytes.Equal(got, body[r.position:r.position+r.length]) {
			s.Errorf("range %+v gives %d bytes, err %v", r, len(got), err)
		}
	}
}

func readPastEnd(s *segmentsUnderTest) {
	const key = "segments/00/short"
	s.put(key, segmentBody(1, 100))
	ranges := []struct{ position, length int64 }{
		{0, 101}, {99, 2}, {100, 1}, {101, 0}, {1 << 40, 1}, {0, math.MaxInt64}, {1, math.MaxInt64}, {math.MaxInt64, math.MaxInt64},
	}
	for _, r := range ranges {
		_, err := s.ReadRange(s.Context(), key, r.position, r.length)
		s.fails(fmt.Sprintf("range %+v", r), err, ports.Definite, domain.ErrCorrupt)
	}
}

func readNegative(s *segmentsUnderTest) {
	const key = "segments/00/short"
	s.put(key, segmentBody(1, 100))
	ranges := []struct{ position, length int64 }{{-1, 1}, {0, -1}, {math.MinInt64, math.MinInt64}}
	for _, r := range ranges {
		_, err := s.ReadRange(s.Context(), key, r.position, r.length)
		s.fails(fmt.Sprintf("range %+v", r), err, ports.Definite)
	}
}

func readOwned(s *segmentsUnderTest) {
	const key = "segments/00/owned"
	s.put(key, segmentBody(2, 1000))
	got, err := s.ReadRange(s.Context(), key, 0, 1000)
	if err != nil {
		s.Fatal(err)
	}
	clear(got)
	s.holds(key, segmentBody(2, 1000))
}

func readUpTo(s *segmentsUnderTest) {
	const key, size = "segments/00/upto", 3<<20 + 17
	body := segmentBody(9, size)
	s.put(key, body)
	ranges := []struct{ position, length int64 }{
		{0, 1}, {0, size}, {0, size + 1}, {0, math.MaxInt64}, {1, size - 1}, {1, size}, {size - 1, 1}, {size - 1, 2},
		{2 << 20, 1 << 20}, {3 << 20, 1 << 20}, {17, math.MaxInt64},
	}
	for _, r := range ranges {
		got, err := s.ReadUpTo(s.Context(), key, r.position, r.length)
		if want := body[r.position:][:min(r.length, size-r.position)]; err != nil || !bytes.Equal(got, want) {
			s.Errorf("up to %+v gives %d bytes, err %v, want %d", r, len(got), err, len(want))
		}
		clear(got) // it is the caller's
	}
	s.holds(key, body)
}

func readUpToNothing(s *segmentsUnderTest) {
	s.put("segments/00/short", segmentBody(1, 100))
	s.put("segments/00/empty", nil)
	for _, r := range []struct{ position, length int64 }{{100, 1}, {101, 10}, {1 << 40, 1}, {math.MaxInt64, math.MaxInt64}} {
		_, err := s.ReadUpTo(s.Context(), "segments/00/short", r.position, r.length)
		s.fails(fmt.Sprintf("up to %+v", r), err, ports.Definite, domain.ErrCorrupt)
	}
	_, err := s.ReadUpTo(s.Context(), "segments/00/empty", 0, 1)
	s.fails("up to a byte of an empty object", err, ports.Definite, domain.ErrCorrupt)
	for _, r := range []struct{ position, length int64 }{{-1, 1}, {0, 0}, {0, -1}, {math.MinInt64, math.MinInt64}} {
		_, err := s.ReadUpTo(s.Context(), "segments/00/short", r.position, r.length)
		s.fails(fmt.Sprintf("up to %+v", r), err, ports.Definite)
	}
}

// listKeys are keys whose order as paths and as strings differ, where a naive
// walk of folders fails.
func listKeys() []string {
	keys := []string{"a-b", "a/b", "a0", "a/b-c", "a/c/d", "a/c-d", "a/c0", "b", "z/z/z/z", "0", "-"}
	for i := range 40 {
		keys = append(keys, segmentKey(i))
	}
	return keys
}

func listPages(s *segmentsUnderTest) {
	want := listKeys()
	for i, key := range want {
		s.put(key, segmentBody(i, i))
	}
	slices.Sort(want)
	for _, limit := range []int{1, 2, 7, len(want), len(want) + 1, math.MaxInt} {
		var got []string
		for page := s.list("", limit); len(page) > 0; page = s.list(got[len(got)-1], limit) {
			if len(page) > limit {
				s.Fatalf("a page of %d for limit %d", len(page), limit)
			}
			got = append(got, page...)
		}
		if !slices.Equal(got, want) {
			s.Errorf("pages of %d give\n%q, want\n%q", limit, got, want)
		}
	}
}

func listAfter(s *segmentsUnderTest) {
	keys := listKeys()
	for _, key := range keys {
		s.put(key, []byte(key))
	}
	slices.Sort(keys)
	afters := []string{"", " ", "a", "a/", "a/b/", "a/c", "a/c/", "a/c/z", "a/\xff", "segments", "segments/", "segments/05", "segments/05/zzz", "zzzz", "\xff", "../..", "a/../b", "A"}
	for _, after := range append(afters, keys...) {
		var want []string
		for _, key := range keys {
			if key > after {
				want = append(want, key)
			}
		}
		if got := s.list(after, 1000); !slices.Equal(got, want) {
			s.Errorf("after %q come\n%q, want\n%q", after, got, want)
		}
	}
	infos, err := s.List(s.Context(), "a/b", 1)
	if err != nil || len(infos) != 1 || infos[0].Key != "a/b-c" || infos[0].Size != 5 || infos[0].ModifiedUnixMilli == 0 {
		s.Errorf("one after a/b is %+v, %v", infos, err)
	}
}

func listEmpty(s *segmentsUnderTest) {
	for _, limit := range []int{-1, 0, 1, 100} {
		if got := s.list("", limit); len(got) != 0 {
			s.Errorf("an empty store lists %q", got)
		}
	}
	s.put("segments/00/one", []byte("one"))
	for _, limit := range []int{-1, 0} {
		if got := s.list("", limit); len(got) != 0 {
			s.Errorf("limit %d lists %q", limit, got)
		}
	}
}
