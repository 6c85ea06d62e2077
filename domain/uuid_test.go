package domain_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/domain"
)

var version7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// The example of RFC 9562, appendix A.6.
func TestNewUUIDv7_HasTheVectorOfTheRFC(t *testing.T) {
	at := time.Date(2022, 2, 22, 14, 22, 22, 0, time.FixedZone("", -5*3600))
	random := [10]byte{0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f}
	if got := domain.NewUUIDv7(at, random).String(); got != "017f22e2-79b0-7cc3-98c4-dc0c0c07398f" {
		t.Errorf("got %s", got)
	}
}

func TestNewUUIDv7_SortsByTimeWhateverTheRandomBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Int64Range(0, 1<<48-2).Draw(t, "a")
		b := rapid.Int64Range(a+1, 1<<48-1).Draw(t, "b")
		random := func() (r [10]byte) {
			copy(r[:], rapid.SliceOfN(rapid.Byte(), 10, 10).Draw(t, "random"))
			return r
		}
		first, second := domain.NewUUIDv7(time.UnixMilli(a), random()), domain.NewUUIDv7(time.UnixMilli(b), random())
		if first.String() >= second.String() {
			t.Fatalf("%s of %d is not before %s of %d", first, a, second, b)
		}
		if !version7.MatchString(first.String()) {
			t.Fatalf("%s is not of version 7", first)
		}
	})
}

func TestParseUUID_ReadsWhatStringWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u domain.UUID
		copy(u[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		if got, err := domain.ParseUUID(u.String()); err != nil || got != u {
			t.Fatalf("%s is read as %s: %v", u, got, err)
		}
	})
}

func TestParseUUID_RefusesOtherText(t *testing.T) {
	const good = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
	bad := []string{
		"", good[1:], good + "0", strings.ReplaceAll(good, "-", ""), "{" + good + "}", "urn:uuid:" + good,
		strings.Replace(good, "-", "0", 1), good[:35] + "g", good[:35] + "\x00", " " + good[1:],
		strings.Replace(good, "79b0-7", "79b-07", 1), strings.Repeat("-", 36), strings.Repeat("é", 18),
	}
	for _, s := range bad {
		if u, err := domain.ParseUUID(s); err == nil || !u.IsZero() {
			t.Errorf("%q is read as %s: %v", s, u, err)
		}
	}
	if _, err := domain.ParseUUID(strings.Repeat("x", 1<<20)); len(err.Error()) > 300 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

func TestUUID_ZeroNamesNothing(t *testing.T) {
	if !(domain.UUID{}).IsZero() || (domain.UUID{15: 1}).IsZero() {
		t.Error("only the zero identifier is zero")
	}
}

func TestIDs_ReadAsUUIDs(t *testing.T) {
	u := domain.UUID{1, 2, 3, 15: 9}
	for _, s := range []string{domain.TopicID(u).String(), domain.SegmentID(u).String(), domain.ClusterID(u).String()} {
		if s != "01020300-0000-0000-0000-000000000009" {
			t.Errorf("got %s", s)
		}
	}
}

func FuzzParseUUID(f *testing.F) {
	for _, s := range []string{
		"", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
		"017f22e279b07cc398c4dc0c0c07398f", "------------------------------------", "017f22e2-79b0-7cc3-98c4-dc0c0c07398\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := domain.ParseUUID(s)
		if err != nil {
			if !u.IsZero() {
				t.Errorf("%q is refused (%v) and gives %s", s, err, u)
			}
			return
		}
		if !strings.EqualFold(u.String(), s) {
			t.Errorf("%q is read as %s", s, u)
		}
	})
}

func BenchmarkUUID(b *testing.B) {
	u := domain.NewUUIDv7(time.Unix(1, 0), [10]byte{1})
	b.Run("String", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = u.String()
		}
	})
	b.Run("Parse", func(b *testing.B) {
		s := u.String()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := domain.ParseUUID(s); err != nil {
				b.Fatal(err)
			}
		}
	})
}
