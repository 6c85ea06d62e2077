package settings

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

var byteUnits = []struct {
	name string
	size int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

// ParseBytes reads a whole number of bytes, with a unit if wanted: 65536,
// 64KiB, 10GB.
func ParseBytes(s string) (int64, error) {
	digits, size := s, int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			digits, size = rest, u.size
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || n > (1<<63-1)/size || n < -(1<<63-1)/size {
		return 0, fmt.Errorf("%.60q is not a size: want a whole number of bytes, KiB, MiB, GiB or TiB", s)
	}
	return n * size, nil
}

// FormatBytes writes n so that ParseBytes reads it, with the largest binary
// unit that leaves it whole.
func FormatBytes(n int64) string {
	for _, u := range byteUnits[:4] {
		if n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// ParseDuration reads what time.ParseDuration does, and whole days: 250ms, 12h,
// 7d.
func ParseDuration(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	if digits, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > int64(1<<63-1)/int64(day) || n < -int64(1<<63-1)/int64(day) {
			return 0, fmt.Errorf("%.60q is not a time: want one such as 30s, 12h or 7d", s)
		}
		return time.Duration(n) * day, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%.60q is not a time: want one such as 30s, 12h or 7d", s)
	}
	return d, nil
}

// closest returns the setting whose name is at most two changes away from name,
// or "".
func closest(name string) string {
	best, distance := "", 3
	for _, s := range table {
		if d := editDistance(strings.ToLower(name), s.name); d < distance {
			best, distance = s.name, d
		}
	}
	return best
}

// editDistance counts the letters to insert, delete or change to make b of a.
func editDistance(a, b string) int {
	if len(a) > 80 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
