package recordio

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// lexer reads JSON (RFC 8259) of a known shape. Strings without escapes are
// returned in place; others are decoded into scratch, whose old contents are never overwritten.
type lexer struct {
	in      []byte
	at      int
	scratch []byte
}

// peek returns the next byte that is not white space without taking it; 0 at
// the end.
func (l *lexer) peek() byte {
	for l.at < len(l.in) {
		switch c := l.in[l.at]; c {
		case ' ', '\t', '\r', '\n':
			l.at++
		default:
			return c
		}
	}
	return 0
}

// take takes c if it comes next.
func (l *lexer) take(c byte) bool {
	if l.peek() != c || l.at == len(l.in) {
		return false
	}
	l.at++
	return true
}

// null takes the word null if it comes next.
func (l *lexer) null() bool {
	if l.peek() != 'n' || !bytes.HasPrefix(l.in[l.at:], []byte("null")) {
		return false
	}
	l.at += len("null")
	return true
}

// end demands that nothing but white space is left.
func (l *lexer) end() error {
	l.peek()
	if l.at < len(l.in) {
		return l.errorf("text after the record")
	}
	return nil
}

// object reads {"name":...}, and calls member to read each value.
func (l *lexer) object(member func(name []byte) error) error {
	if !l.take('{') {
		return l.errorf("want an object")
	}
	if l.take('}') {
		return nil
	}
	for {
		name, err := l.string()
		if err != nil {
			return err
		}
		if !l.take(':') {
			return l.errorf("want : after a name")
		}
		if err := member(name); err != nil {
			return err
		}
		if l.take('}') {
			return nil
		}
		if !l.take(',') {
			return l.errorf("want , or }")
		}
	}
}

// list reads [...], and calls element to read each.
func (l *lexer) list(element func() error) error {
	if !l.take('[') {
		return l.errorf("want a list")
	}
	if l.take(']') {
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if l.take(']') {
			return nil
		}
		if !l.take(',') {
			return l.errorf("want , or ]")
		}
	}
}

// integer reads a whole number without fraction or exponent.
func (l *lexer) integer() (int64, error) {
	l.peek()
	from := l.at
	if l.at < len(l.in) && l.in[l.at] == '-' {
		l.at++
	}
	digits := l.at
	for l.at < len(l.in) && '0' <= l.in[l.at] && l.in[l.at] <= '9' {
		l.at++
	}
	text := l.in[from:l.at]
	next := byte(0)
	if l.at < len(l.in) {
		next = l.in[l.at]
	}
	leadingZero := l.at-digits > 1 && l.in[digits] == '0'
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || leadingZero || next == '.' || next == 'e' || next == 'E' {
		l.at = from
		return 0, l.errorf("want a whole number")
	}
	return n, nil
}

// string reads a string. The result is not nil.
func (l *lexer) string() ([]byte, error) {
	if !l.take('"') {
		return nil, l.errorf("want a string")
	}
	from, ascii := l.at, true
	for l.at < len(l.in) {
		switch c := l.in[l.at]; {
		case c == '"':
			s := l.in[from:l.at:l.at]
			if !ascii && !utf8.Valid(s) {
				return nil, l.errorf("string is not UTF-8: give bytes as base64")
			}
			l.at++
			return s, nil
		case c == '\\':
			return l.escaped(from)
		case c < ' ':
			return nil, l.errorf("control character in a string: want it escaped")
		case c >= utf8.RuneSelf:
			ascii = false
		}
		l.at++
	}
	return nil, l.errorf("string without an end")
}

// escaped goes on with a string that began at from and has its first escape at
// l.at.
func (l *lexer) escaped(from int) ([]byte, error) {
	start := len(l.scratch)
	l.scratch = append(l.scratch, l.in[from:l.at]...)
	for l.at < len(l.in) {
		c := l.in[l.at]
		l.at++
		switch {
		case c == '"':
			s := l.scratch[start:len(l.scratch):len(l.scratch)]
			if !utf8.Valid(s) {
				return nil, l.errorf("string is not UTF-8: give bytes as base64")
			}
			return s, nil
		case c < ' ':
			return nil, l.errorf("control character in a string: want it escaped")
		case c != '\\':
			l.scratch = append(l.scratch, c)
		default:
			if err := l.escape(); err != nil {
				return nil, err
			}
		}
	}
	return nil, l.errorf("string without an end")
}

// escape decodes what stands after a backslash.
func (l *lexer) escape() error {
	if l.at == len(l.in) {
		return l.errorf("string without an end")
	}
	c := l.in[l.at]
	l.at++
	if i := bytes.IndexByte([]byte(`"\/bfnrt`), c); i >= 0 {
		l.scratch = append(l.scratch, "\"\\/\b\f\n\r\t"[i])
		return nil
	}
	if c != 'u' {
		return l.errorf("unknown escape \\%c", c)
	}
	r, err := l.hex4()
	if err != nil {
		return err
	}
	if utf16.IsSurrogate(r) {
		if !bytes.HasPrefix(l.in[l.at:], []byte(`\u`)) {
			return l.errorf("half a surrogate pair")
		}
		l.at += 2
		low, err := l.hex4()
		if err != nil {
			return err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return l.errorf("half a surrogate pair")
		}
	}
	l.scratch = utf8.AppendRune(l.scratch, r)
	return nil
}

func (l *lexer) hex4() (rune, error) {
	if len(l.in)-l.at < 4 {
		return 0, l.errorf("want four hex digits after \\u")
	}
	v, err := strconv.ParseUint(string(l.in[l.at:l.at+4]), 16, 16)
	if err != nil {
		return 0, l.errorf("want four hex digits after \\u")
	}
	l.at += 4
	return rune(v), nil
}
