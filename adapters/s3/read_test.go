package s3

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// endless answers with a body that does not end while somebody reads.
func endless(status int, header map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for name, value := range header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		chunk := bytes.Repeat([]byte("e"), 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
}

// partial answers a ranged GET with these headers and this body, which may be
// shorter than its length.
func partial(status int, contentRange string, length int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"1"`)
		if contentRange != "" {
			w.Header().Set("Content-Range", contentRange)
		}
		w.Header().Set("Content-Length", strconv.Itoa(length))
		w.WriteHeader(status)
		fmt.Fprint(w, body)
		if len(body) < length {
			w.(http.Flusher).Flush()
			cutOff(w)
		}
	}
}

func TestReadRange_TakesOnlyAnAnswerThatFitsTheQuestion(t *testing.T) {
	const position, length = 10, 5
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   ports.Kind
		target error
	}{
		"another range":          {partial(206, "bytes 11-15/100", 5, "abcde"), ports.Transient, nil},
		"a shorter range":        {partial(206, "bytes 10-13/100", 4, "abcd"), ports.Transient, nil},
		"a longer range":         {partial(206, "bytes 10-15/100", 6, "abcdef"), ports.Transient, nil},
		"no range":               {partial(206, "", 5, "abcde"), ports.Transient, nil},
		"nonsense for a range":   {partial(206, "bytes ten-14/100", 5, "abcde"), ports.Transient, nil},
		"a range past its size":  {partial(206, "bytes 10-14/12", 5, "abcde"), ports.Transient, nil},
		"another length":         {partial(206, "bytes 10-14/100", 7, "abcdefg"), ports.Transient, nil},
		"a body cut short":       {partial(206, "bytes 10-14/100", 5, "abc"), ports.Transient, nil},
		"a whole body cut short": {partial(200, "", 100, "0123456789abc"), ports.Transient, nil},
		"the object's end":       {partial(206, "bytes 10-12/13", 3, "abc"), ports.Definite, domain.ErrCorrupt},
		"a shorter whole object": {partial(200, "", 14, "0123456789abcd"), ports.Definite, domain.ErrCorrupt},
		"past the end":           {refusal(416, "InvalidRange"), ports.Definite, domain.ErrCorrupt},
		"no such object":         {refusal(404, codeNoSuchKey), ports.Definite, ports.ErrObjectNotFound},
		"no such bucket":         {refusal(404, codeNoSuchBucket), ports.Definite, nil},
		"no right":               {refusal(403, "AccessDenied"), ports.Definite, nil},
		"a page of somebody": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "<Error><Code>InternalError</Code></Error>")
		}, ports.Transient, nil},
		"a proxy's 404":    {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such host", 404) }, ports.Transient, nil},
		"503":              {refusal(503, codeSlowDown), ports.Transient, nil},
		"500":              {refusal(500, "InternalError"), ports.Transient, nil},
		"an endless error": {endless(500, nil), ports.Transient, nil},
		"an endless page":  {endless(200, nil), ports.Transient, nil},
		"no answer":        {func(w http.ResponseWriter, _ *http.Request) { cutOff(w) }, ports.Transient, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answers(always(http.MethodGet, c.answer))
			got, err := f.open(t).ReadRange(t.Context(), testKey, position, length)
			wants(t, err, c.kind, "read object "+testKey)
			if got != nil || c.target != nil && !errors.Is(err, c.target) {
				t.Errorf("got %q, error %v, want %v", got, err, c.target)
			}
			if c.target == nil && (errors.Is(err, domain.ErrCorrupt) || errors.Is(err, ports.ErrObjectNotFound)) {
				t.Errorf("error %v says more than is known", err)
			}
			want := 1
			if c.kind == ports.Transient {
				want = readAttempts
			}
			if n := f.count(http.MethodGet); n != want {
				t.Errorf("%d requests, want %d", n, want)
			}
		})
	}
}

func TestReadUpTo_TakesAnAnswerThatEndsWithTheObject(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string // or none
		target error
	}{
		"all of it":                      {partial(206, "bytes 10-14/100", 5, "abcde"), "abcde", nil},
		"the object's end":               {partial(206, "bytes 10-12/13", 3, "abc"), "abc", nil},
		"a whole object that ends":       {partial(200, "", 13, "0123456789abc"), "abc", nil},
		"a whole object":                 {partial(200, "", 20, "0123456789abcdefghij"), "abcde", nil},
		"less than there is":             {partial(206, "bytes 10-12/100", 3, "abc"), "", nil},
		"a body cut short":               {partial(206, "bytes 10-12/13", 3, "a"), "", nil},
		"past the end":                   {refusal(416, "InvalidRange"), "", domain.ErrCorrupt},
		"a whole object that is shorter": {partial(200, "", 10, "0123456789"), "", domain.ErrCorrupt},
		"no such object":                 {refusal(404, codeNoSuchKey), "", ports.ErrObjectNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answers(always(http.MethodGet, c.answer))
			got, err := f.open(t).ReadUpTo(t.Context(), testKey, 10, 5)
			if string(got) != c.want || (err == nil) != (c.want != "") || c.target != nil && !errors.Is(err, c.target) {
				t.Errorf("got %q, error %v, want %q, %v", got, err, c.want, c.target)
			}
			if c.want == "" && c.target == nil && (ports.KindOf(err) != ports.Transient || errors.Is(err, domain.ErrCorrupt)) {
				t.Errorf("error %v, want a transient one", err)
			}
		})
	}
}

func TestReadRange_ReadsNoMoreThanItWasAskedFor(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"an endless range":  endless(206, map[string]string{"ETag": `"1"`, "Content-Range": "bytes 10-14/100"}),
		"the whole object":  partial(200, "", 100, strings.Repeat("e", 100)),
		"exactly the range": partial(206, "bytes 10-14/100", 5, "eeeee"),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answers(always(http.MethodGet, answer))
			got, err := f.open(t).ReadRange(t.Context(), testKey, 10, 5)
			if err != nil || string(got) != "eeeee" || cap(got) > 64 {
				t.Errorf("got %d bytes in %d, %v", len(got), cap(got), err)
			}
		})
	}
}

func TestReads_AreTriedAgainAFewTimes(t *testing.T) {
	f := newFake(t)
	s := f.open(t)
	if err := s.Put(t.Context(), testKey, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		method string
		do     func() error
	}{
		"read": {http.MethodGet, func() error { _, err := s.ReadRange(t.Context(), testKey, 1, 3); return err }},
		"stat": {http.MethodHead, func() error { _, err := s.Stat(t.Context(), testKey); return err }},
		"list": {http.MethodGet, func() error { _, err := s.List(t.Context(), "", 9); return err }},
	} {
		f.answers(times(readAttempts-1, c.method, refusal(503, codeSlowDown)))
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.answers(times(readAttempts, c.method, refusal(500, "InternalError")))
		wants(t, c.do(), ports.Transient)
	}
}

func TestStat_ReadsAnObjectWhoseChecksumIsNotKept(t *testing.T) {
	f := newFake(t)
	s := f.open(t)
	object := bytes.Repeat([]byte("0123456789"), 1<<18)
	if err := s.Put(t.Context(), testKey, object); err != nil {
		t.Fatal(err)
	}
	composite := func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) bool {
		if r.Method == http.MethodHead {
			w.Header().Set("X-Amz-Checksum-Type", "COMPOSITE")
			w.Header().Set("X-Amz-Checksum-Crc32c", encodeCRC(7)+"-3")
		}
		return false
	}
	for name, prepare := range map[string]func(){
		"none":     func() { f.noChecksums = true },
		"of parts": func() { f.answers(composite) },
	} {
		prepare()
		info, err := s.Stat(t.Context(), testKey)
		if err != nil || info.CRC32C != crc32.Checksum(object, castagnoli) || info.Size != int64(len(object)) {
			t.Errorf("%s: stat is %+v, %v", name, info, err)
		}
	}
	f.answers(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) bool {
		if r.Method == http.MethodGet {
			partial(200, "", len(object), "0123")(w, r)
			return true
		}
		return false
	})
	_, err := s.Stat(t.Context(), testKey)
	wants(t, err, ports.Transient, "another one")
}

func TestStat_TellsAMissingObjectFromAMissingBucket(t *testing.T) {
	f := newFake(t)
	s := f.open(t)
	_, err := s.Stat(t.Context(), testKey)
	wants(t, err, ports.Definite)
	if !errors.Is(err, ports.ErrObjectNotFound) {
		t.Errorf("a missing object: %v", err)
	}
	for code, words := range map[string]string{codeNoSuchBucket: "there is no bucket", "XAdminUserNotFound": "AWS_ACCESS_KEY_ID"} {
		f.answers(func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) bool {
			refuse(w, 404, code)
			return true
		})
		_, err = s.Stat(t.Context(), testKey)
		wants(t, err, ports.Definite, words)
		if errors.Is(err, ports.ErrObjectNotFound) {
			t.Errorf("%s: %v", code, err)
		}
	}
	if err := s.Put(t.Context(), testKey+"-there", []byte("x")); err == nil {
		t.Fatal("the fake answers")
	}
	f.answers(always(http.MethodHead, refusal(404, codeNoSuchKey)))
	if err := s.Put(t.Context(), testKey, []byte("x")); err != nil {
		t.Fatal(err)
	}
	_, err = s.Stat(t.Context(), testKey)
	wants(t, err, ports.Transient, "the object to GET")
}

func TestStat_WithoutATimeIsNoAnswer(t *testing.T) {
	f := newFake(t)
	f.answers(always(http.MethodHead, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Length", "5")
	}))
	_, err := f.open(t).Stat(t.Context(), testKey)
	wants(t, err, ports.Transient, "without a length, a time")
}

func TestList_GoesThroughThePagesOfTheServer(t *testing.T) {
	f := newFake(t)
	f.maxPage = 3
	s := f.open(t)
	for i := range 10 {
		if err := s.Put(t.Context(), fmt.Sprintf("k/%d", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	// Others' objects, which no key of ours can name.
	for _, key := range []string{"pre/fix/k/2 \x01 x", "pre/fix/k/3+", "pre/fix/K", "pre/fixed", "pre/fix/k/~", "other"} {
		f.objects[key] = []byte("foreign")
	}
	for _, limit := range []int{1, 2, 3, 4, 10, 100} {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page, err := s.List(t.Context(), after, limit)
			if err != nil || len(page) > limit {
				t.Fatal(len(page), err)
			}
			if len(page) == 0 {
				break
			}
			for _, o := range page {
				got = append(got, o.Key)
			}
		}
		if len(got) != 10 || got[0] != "k/0" || got[9] != "k/9" {
			t.Errorf("limit %d lists %q", limit, got)
		}
	}
}

func TestList_RefusesAListingThatIsNone(t *testing.T) {
	now := time.Now().UTC().Format(time.RFC3339)
	page := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `<?xml version="1.0"?><ListBucketResult>%s</ListBucketResult>`, body)
		}
	}
	object := func(key string) string {
		return "<Contents><Key>pre/fix/" + key + "</Key><Size>1</Size><LastModified>" + now + "</LastModified></Contents>"
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   ports.Kind
		says   string
	}{
		"out of order":      {page("<Name>b</Name>" + object("b") + object("a")), ports.Definite, "order"},
		"before the start":  {page("<Name>b</Name>" + object("0")), ports.Definite, "order"},
		"without an end":    {page("<Name>b</Name><IsTruncated>true</IsTruncated>" + object("b")), ports.Transient, "nowhere"},
		"the same page":     {page("<Name>b</Name><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"), ports.Transient, "nowhere"},
		"without a size":    {page("<Name>b</Name><Contents><Key>pre/fix/b</Key></Contents>"), ports.Transient, "size"},
		"of nothing":        {page(""), ports.Transient, "no listing"},
		"a page of another": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>hello</html>") }, ports.Transient, "no listing"},
		"no XML":            {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }, ports.Transient, ""},
		"endless":           {endless(200, nil), ports.Transient, ""},
		"denied":            {refusal(403, "AccessDenied"), ports.Definite, "s3:ListBucket"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answers(always(http.MethodGet, c.answer))
			got, err := f.open(t).List(t.Context(), "a", 10)
			wants(t, err, c.kind, c.says)
			if got != nil {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestStartAfter_GivesTheSameKeys(t *testing.T) {
	keys := []string{"-", "/", "0", "9", "a", "a-b", "a/b", "a0", "az", "b", "z", "zz", strings.Repeat("z", ports.MaxObjectKeyBytes)}
	for _, after := range []string{
		"", "\x00", " ", "+", ",", "a\x00", "a ", "a+", "a-", "a.", "a/", "a:", "a`", "a{", "a~", "a\x7f", "a\xff", "A", "_", "é", "~", "z\xff",
		strings.Repeat("z", 300), strings.Repeat("z", 254) + "y\xff", "a/../b", "../..",
	} {
		plain := startAfter(after)
		for _, b := range []byte(plain) {
			if b <= ' ' || b > '~' {
				t.Errorf("after %.20q becomes %.20q", after, plain)
			}
		}
		for _, key := range keys {
			if (key > after) != (key > plain) {
				t.Errorf("%.20q is on another side of %.20q than of %.20q", key, plain, after)
			}
		}
	}
}
