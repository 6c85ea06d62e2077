package recordio

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/streamhouse/streamhouse/domain"
)

// TimeLayout is how timestamps are written: RFC 3339 to the millisecond, UTC.
const TimeLayout = "2006-01-02T15:04:05.000Z07:00"

// AppendJSON appends m as one JSON object, without a newline.
//
// Key, value and header values that are not UTF-8 are given in base64 under
// "key_base64" and "value_base64"; null is what a nil one is. Headers are an object in their
// order, or, if a name repeats or a value is not UTF-8, a list of objects.
func AppendJSON(dst []byte, m *domain.Message) []byte {
	dst = append(dst, `{"topic":`...)
	dst = AppendString(dst, m.Topic)
	dst = append(dst, `,"partition":`...)
	dst = strconv.AppendInt(dst, int64(m.Partition), 10)
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendInt(dst, int64(m.Offset), 10)
	dst = append(dst, `,"timestamp":`...)
	dst = appendTime(dst, m.Timestamp)
	dst = append(dst, ',')
	dst = appendBytes(dst, "key", m.Key)
	dst = append(dst, ',')
	dst = appendBytes(dst, "value", m.Value)
	dst = append(dst, `,"headers":`...)
	dst = appendHeaders(dst, m.Headers)
	return append(dst, '}')
}

// appendTime writes years that RFC 3339 cannot hold as Unix milliseconds.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if year := t.Year(); year < 1 || year > 9999 {
		return strconv.AppendInt(dst, t.UnixMilli(), 10)
	}
	dst = append(dst, '"')
	dst = t.AppendFormat(dst, TimeLayout)
	return append(dst, '"')
}

// appendBytes writes "name": and b, or "name_base64": if b is not UTF-8.
func appendBytes(dst []byte, name string, b []byte) []byte {
	dst = append(dst, '"')
	dst = append(dst, name...)
	if b != nil && !utf8.Valid(b) {
		dst = append(dst, `_base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, b)
		return append(dst, '"')
	}
	dst = append(dst, `":`...)
	if b == nil {
		return append(dst, `null`...)
	}
	return AppendString(dst, b)
}

func appendHeaders(dst []byte, headers []domain.Header) []byte {
	if !fitsObject(headers) {
		return appendHeaderList(dst, headers)
	}
	dst = append(dst, '{')
	for i, h := range headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, h.Key)
		dst = append(dst, ':')
		if h.Value == nil {
			dst = append(dst, `null`...)
		} else {
			dst = AppendString(dst, h.Value)
		}
	}
	return append(dst, '}')
}

func appendHeaderList(dst []byte, headers []domain.Header) []byte {
	dst = append(dst, '[')
	for i, h := range headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		dst = appendBytes(dst, "key", []byte(h.Key))
		dst = append(dst, ',')
		dst = appendBytes(dst, "value", h.Value)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// fitsObject reports that all names differ and everything is UTF-8.
func fitsObject(headers []domain.Header) bool {
	const few = 8
	var seen map[string]bool
	if len(headers) > few {
		seen = make(map[string]bool, len(headers))
	}
	for i, h := range headers {
		if !utf8.ValidString(h.Key) || !utf8.Valid(h.Value) {
			return false
		}
		if seen != nil {
			if seen[h.Key] {
				return false
			}
			seen[h.Key] = true
			continue
		}
		for _, earlier := range headers[:i] {
			if earlier.Key == h.Key {
				return false
			}
		}
	}
	return true
}

const hexDigits = "0123456789abcdef"

// AppendString appends s, which must be UTF-8, as a JSON string. Control
// characters, C1 controls included, are escaped, so that it can be shown on a terminal.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	plain := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f && c != 0xc2 {
			continue
		}
		size := 1
		if c == 0xc2 { // the first byte of U+0080 to U+00BF
			if i+1 >= len(s) || s[i+1] > 0x9f {
				continue
			}
			c, size = s[i+1], 2
		}
		dst = append(dst, s[plain:i]...)
		dst = appendEscape(dst, c)
		i += size - 1
		plain = i + 1
	}
	dst = append(dst, s[plain:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}
