package recordio

import (
	"unicode"
	"unicode/utf8"
)

// AppendVisible appends text with everything escaped that could do something to
// a terminal: control characters but tab, characters without a visible form, and bytes
// that are not UTF-8. The result is for eyes, not for parsers.
func AppendVisible(dst, text []byte) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, '\\', 'x', hexDigits[text[0]>>4], hexDigits[text[0]&15])
		case r == '\t' || unicode.IsPrint(r):
			dst = append(dst, text[:size]...)
		default:
			dst = appendInvisible(dst, r)
		}
		text = text[size:]
	}
	return dst
}

func appendInvisible(dst []byte, r rune) []byte {
	switch {
	case r == '\n':
		return append(dst, '\\', 'n')
	case r == '\r':
		return append(dst, '\\', 'r')
	case r < 0x80:
		return append(dst, '\\', 'x', hexDigits[r>>4], hexDigits[r&15])
	case r > 0xffff:
		dst = append(dst, '\\', 'U')
		return appendHexDigits(dst, r, 8)
	}
	dst = append(dst, '\\', 'u')
	return appendHexDigits(dst, r, 4)
}

func appendHexDigits(dst []byte, r rune, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[r>>shift&15])
	}
	return dst
}
