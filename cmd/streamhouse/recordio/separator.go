package recordio

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

var errEmptySeparator = errors.New("want at least one character")

// ParseSeparator understands the escapes \t \r \0 \\ \xHH and \uHHHH in a
// separator given on a command line. It may be several characters long, and
// must not hold a newline, which ends records.
func ParseSeparator(s string) ([]byte, error) {
	var sep []byte
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			sep = append(sep, s[i])
			i++
			continue
		}
		char, n, err := unescape(s[i:])
		if err != nil {
			return nil, err
		}
		sep = append(sep, char...)
		i += n
	}
	if len(sep) == 0 {
		return nil, errEmptySeparator
	}
	if bytes.IndexByte(sep, '\n') >= 0 {
		return nil, errors.New("a newline ends records and cannot separate keys")
	}
	return sep, nil
}

// unescape reads the escape at the start of s and returns what it stands for
// and its length.
func unescape(s string) ([]byte, int, error) {
	if len(s) < 2 {
		return nil, 0, errors.New(`a lone \ at the end: write \\ for a backslash`)
	}
	switch s[1] {
	case 't':
		return []byte{'\t'}, 2, nil
	case 'r':
		return []byte{'\r'}, 2, nil
	case 'n':
		return []byte{'\n'}, 2, nil
	case '0':
		return []byte{0}, 2, nil
	case '\\':
		return []byte{'\\'}, 2, nil
	case 'x':
		return unescapeHex(s, 4)
	case 'u':
		return unescapeHex(s, 6)
	}
	return nil, 0, fmt.Errorf(`unknown escape %q: want \t \r \0 \\ \xHH or \uHHHH`, s[:2])
}

// unescapeHex reads an escape of length characters, all but two of them hex
// digits.
func unescapeHex(s string, length int) ([]byte, int, error) {
	if len(s) < length {
		return nil, 0, fmt.Errorf("escape %q is cut short: want %d hex digits", s, length-2)
	}
	v, err := strconv.ParseUint(s[2:length], 16, 32)
	if err != nil {
		return nil, 0, fmt.Errorf("escape %q: want %d hex digits", s[:length], length-2)
	}
	if length == 4 {
		return []byte{byte(v)}, length, nil
	}
	if !utf8.ValidRune(rune(v)) {
		return nil, 0, fmt.Errorf("escape %q is not a character", s[:length])
	}
	return utf8.AppendRune(nil, rune(v)), length, nil
}

// Split divides a line at the first separator into key and value. A line
// without one has no key (nil), one that begins with it has an empty key.
func Split(line, separator []byte) (key, value []byte) {
	i := bytes.Index(line, separator)
	if i < 0 {
		return nil, line
	}
	return line[:i:i], line[i+len(separator):]
}
