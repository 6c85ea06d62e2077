package recordio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const scannerBuffer = 256 << 10

// Scanner splits a stream into lines, in memory bounded by the longest line it
// allows. Only the newline is taken off: a carriage return before it is part of
// the line. A last line without a newline is a line.
type Scanner struct {
	r        io.Reader
	buf      []byte
	from, to int // unread bytes of buf
	limit    int
	line     int64
	consumed int64
	err      error
}

// NewScanner returns a Scanner of r whose lines have limit bytes at most.
func NewScanner(r io.Reader, limit int) *Scanner {
	return &Scanner{r: r, buf: make([]byte, min(scannerBuffer, limit+1)), limit: limit}
}

// LineTooLongError is one line over the limit. The lines after it are fine.
type LineTooLongError struct {
	Size  int64
	Limit int
}

func (e *LineTooLongError) Error() string {
	return fmt.Sprintf("line has %d bytes: at most %d are allowed", e.Size, e.Limit)
}

// Line returns the number, from 1, of the line that Next returned last, in
// success or with a LineTooLongError.
func (s *Scanner) Line() int64 { return s.line }

// Consumed returns how many bytes the lines returned so far took, newlines
// included.
func (s *Scanner) Consumed() int64 { return s.consumed }

// Next returns the next line without its newline; the slice is valid until the
// following call. io.EOF is the end. After a *LineTooLongError, whose line is
// skipped, Next goes on; every other error is final, and a partial line before
// it is not returned.
func (s *Scanner) Next() ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(s.buf[s.from+searched:s.to], '\n'); i >= 0 {
			return s.take(searched+i, 1)
		}
		searched = s.to - s.from
		if searched > s.limit {
			return nil, s.skip()
		}
		if s.err != nil {
			return s.last()
		}
		s.fill()
	}
}

// take returns the next n bytes as a line that newline more bytes end.
func (s *Scanner) take(n, newline int) ([]byte, error) {
	line := s.buf[s.from : s.from+n]
	s.from += n + newline
	s.consumed += int64(n + newline)
	s.line++
	if n > s.limit {
		return nil, &LineTooLongError{Size: int64(n), Limit: s.limit}
	}
	return line, nil
}

// last returns what stands after the last newline, once.
func (s *Scanner) last() ([]byte, error) {
	if errors.Is(s.err, io.EOF) && s.to > s.from {
		return s.take(s.to-s.from, 0)
	}
	return nil, s.err
}

// fill reads more bytes after those that are there, and makes room for them.
func (s *Scanner) fill() {
	if s.from > 0 && (s.from == s.to || s.to == len(s.buf)) {
		s.to = copy(s.buf, s.buf[s.from:s.to])
		s.from = 0
	}
	if s.to == len(s.buf) {
		grown := make([]byte, min(2*len(s.buf), s.limit+1))
		s.to = copy(grown, s.buf[:s.to])
		s.buf = grown
	}
	n, err := s.r.Read(s.buf[s.to:])
	s.to += n
	s.err = err
}

// skip reads past the end of a line that is too long.
func (s *Scanner) skip() error {
	size := int64(0)
	s.line++
	for {
		if i := bytes.IndexByte(s.buf[s.from:s.to], '\n'); i >= 0 {
			size += int64(i)
			s.from += i + 1
			s.consumed += size + 1
			return &LineTooLongError{Size: size, Limit: s.limit}
		}
		size += int64(s.to - s.from)
		s.from, s.to = 0, 0
		if s.err != nil {
			break
		}
		s.fill()
	}
	s.consumed += size
	if !errors.Is(s.err, io.EOF) {
		return s.err
	}
	return &LineTooLongError{Size: size, Limit: s.limit}
}
