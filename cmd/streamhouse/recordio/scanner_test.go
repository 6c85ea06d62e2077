package recordio

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// scanAll returns every line, with lines that are too long as "!size".
func scanAll(t *testing.T, r io.Reader, limit int) []string {
	t.Helper()
	s := NewScanner(r, limit)
	var lines []string
	for {
		line, err := s.Next()
		var long *LineTooLongError
		switch {
		case err == io.EOF:
			if int(s.Line()) != len(lines) {
				t.Fatalf("Line() is %d after %d lines", s.Line(), len(lines))
			}
			return lines
		case errors.As(err, &long):
			lines = append(lines, "!"+strings.Repeat("x", int(long.Size)))
		case err != nil:
			t.Fatal(err)
		default:
			lines = append(lines, string(line))
		}
	}
}

// splitAll is what scanAll must return, the slow way.
func splitAll(in []byte, limit int) []string {
	var lines []string
	for len(in) > 0 {
		line, rest, _ := bytes.Cut(in, []byte("\n"))
		if len(line) > limit {
			lines = append(lines, "!"+strings.Repeat("x", len(line)))
		} else {
			lines = append(lines, string(line))
		}
		in = rest
	}
	return lines
}

func checkLines(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d lines %.200q, want %d %.200q", len(got), got, len(want), want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("line %d is %.80q, want %.80q", i+1, got[i], want[i])
		}
	}
}

func TestScanner_StripsTheNewlineOnly(t *testing.T) {
	in := "a\n\nb\r\n  c \nlast"
	want := []string{"a", "", "b\r", "  c ", "last"}
	checkLines(t, scanAll(t, strings.NewReader(in), 100), want)
	checkLines(t, scanAll(t, iotest.OneByteReader(strings.NewReader(in)), 100), want)
	checkLines(t, scanAll(t, iotest.DataErrReader(strings.NewReader(in)), 100), want)
}

func TestScanner_SkipsOnlyTheLineThatIsTooLong(t *testing.T) {
	for _, size := range []int{10, 11, 12, 500} {
		in := "before\n" + strings.Repeat("y", size) + "\nafter\n" + strings.Repeat("z", size)
		checkLines(t, scanAll(t, strings.NewReader(in), 10), splitAll([]byte(in), 10))
	}
}

func TestScanner_ConsumesEveryByte(t *testing.T) {
	in := "one\n" + strings.Repeat("long", 100) + "\nthree"
	s := NewScanner(strings.NewReader(in), 20)
	for {
		if _, err := s.Next(); err == io.EOF {
			break
		}
	}
	if s.Consumed() != int64(len(in)) {
		t.Errorf("consumed %d of %d bytes", s.Consumed(), len(in))
	}
}

func TestScanner_DropsAPartialLineBeforeAReadError(t *testing.T) {
	broken := errors.New("cable pulled")
	s := NewScanner(io.MultiReader(strings.NewReader("whole\npart"), iotest.ErrReader(broken)), 100)
	if line, err := s.Next(); err != nil || string(line) != "whole" {
		t.Fatalf("got %q, %v", line, err)
	}
	for range 2 {
		if line, err := s.Next(); !errors.Is(err, broken) {
			t.Fatalf("got %q, %v, want the read error", line, err)
		}
	}
}

func FuzzScanner(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), uint8(2), uint8(3))
	f.Add([]byte("\n\n\n"), uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, limit, step uint8) {
		limit, step = max(limit, 1), max(step, 1)
		r := &stepReader{in: in, step: int(step)}
		checkLines(t, scanAll(t, r, int(limit)), splitAll(in, int(limit)))
	})
}

// stepReader returns step bytes at most at a time.
type stepReader struct {
	in   []byte
	step int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.in[:min(r.step, len(r.in))])
	r.in = r.in[n:]
	return n, nil
}

func BenchmarkScanner(b *testing.B) {
	in := bytes.Repeat(append(bytes.Repeat([]byte("x"), 100), '\n'), 10_000)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		s := NewScanner(bytes.NewReader(in), 1<<20)
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
	}
}
