package recordio

import (
	"bytes"
	"testing"
)

func TestParseSeparator_UnderstandsEscapes(t *testing.T) {
	for in, want := range map[string]string{
		"\t": "\t", `\t`: "\t", `\\`: `\`, `\r`: "\r", `\0`: "\x00", `\x1F`: "\x1f", `\xff`: "\xff",
		`\u00e9`: "é", ":": ":", "::": "::", `a\tb`: "a\tb", " ": " ", "é": "é",
	} {
		if got, err := ParseSeparator(in); err != nil || string(got) != want {
			t.Errorf("ParseSeparator(%q) is %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestParseSeparator_RefusesWhatIsNotASeparator(t *testing.T) {
	for _, in := range []string{"", `\`, `\q`, `\x`, `\x1`, `\xzz`, `\u12`, `\ud800`, "\n", `\n`, `a\n`} {
		if got, err := ParseSeparator(in); err == nil {
			t.Errorf("ParseSeparator(%q) is %q, want an error", in, got)
		}
	}
}

func TestSplit_TellsNoKeyFromAnEmptyOne(t *testing.T) {
	for _, c := range []struct {
		line, sep string
		key       []byte
		value     string
	}{
		{"k\tv", "\t", []byte("k"), "v"},
		{"k\tv\tw", "\t", []byte("k"), "v\tw"},
		{"\tv", "\t", []byte{}, "v"},
		{"v", "\t", nil, "v"},
		{"k\t", "\t", []byte("k"), ""},
		{"", "\t", nil, ""},
		{"a::b", "::", []byte("a"), "b"},
	} {
		key, value := Split([]byte(c.line), []byte(c.sep))
		if !bytes.Equal(key, c.key) || (key == nil) != (c.key == nil) || string(value) != c.value {
			t.Errorf("Split(%q, %q) is %q (nil %v), %q", c.line, c.sep, key, key == nil, value)
		}
	}
}

func FuzzParseSeparator(f *testing.F) {
	for _, s := range []string{`\t`, `\x00`, `\u263a`, `a\\b`, `\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sep, err := ParseSeparator(s)
		if err != nil {
			return
		}
		if len(sep) == 0 || bytes.IndexByte(sep, '\n') >= 0 {
			t.Fatalf("accepted %q as %q", s, sep)
		}
		line := append(append([]byte("key"), sep...), "value"...)
		key, value := Split(line, sep)
		if joined := append(append(bytes.Clone(key), sep...), value...); !bytes.Equal(joined, line) {
			t.Fatalf("%q split by %q is %q and %q", line, sep, key, value)
		}
	})
}
