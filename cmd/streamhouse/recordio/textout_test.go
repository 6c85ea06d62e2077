package recordio

import (
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestAppendVisible_EscapesWhatATerminalWouldObey(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 漢 😀": "plain é 漢 😀",
		"a\tb":        "a\tb",
		"\x1b[31mred": `\x1b[31mred`,
		"a\nb\r":      `a\nb\r`,
		"\x00\x7f":    `\x00\x7f`,
		"\xff\xc3":    `\xff\xc3`,
		"\u009b2J":    `\u009b2J`,
		"\u202eevil":  `\u202eevil`,
		"\U000e0041":  `\U000e0041`,
		"C:\\dir":     `C:\dir`,
		"":            "",
	} {
		if got := string(AppendVisible(nil, []byte(in))); got != want {
			t.Errorf("AppendVisible(%q) is %q, want %q", in, got, want)
		}
	}
}

func FuzzAppendVisible(f *testing.F) {
	f.Add([]byte("\x1b]0;title\x07"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := AppendVisible(nil, in)
		if !utf8.Valid(out) {
			t.Fatalf("%q is not UTF-8", out)
		}
		for _, r := range string(out) {
			if r != '\t' && !unicode.IsPrint(r) {
				t.Fatalf("%q holds %U", out, r)
			}
		}
	})
}
