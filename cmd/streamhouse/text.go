package main

import (
	"encoding/json"
	"io"
	"strconv"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/recordio"
)

// grouped writes n with a comma every three digits.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// visible escapes what a message quotes from outside.
func visible(s string) string { return string(recordio.AppendVisible(nil, []byte(s))) }

// plural returns the noun for n things.
func plural(n int64, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// writeJSON prints v as one line of JSON.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// sizeText writes a number of bytes for people: 238 B, 1.5 KiB, 12 MiB.
func sizeText(n int64) string {
	size, unit := float64(n), ""
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if size < 1024 {
			break
		}
		size, unit = size/1024, u
	}
	switch {
	case unit == "":
		return strconv.FormatInt(n, 10) + " B"
	case size < 10:
		return strconv.FormatFloat(size, 'f', 1, 64) + " " + unit
	default:
		return strconv.FormatFloat(size, 'f', 0, 64) + " " + unit
	}
}
