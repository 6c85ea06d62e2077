package s3

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeS3 is an S3 server in memory that a test can make misbehave. As it is, it
// passes the suite.
type fakeS3 struct {
	*httptest.Server
	// answer, if set by answers, answers a request instead of the server. The server's own
	// answer, and its effect, are to be had from serve. It returns false to leave the request alone.
	answer func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) bool

	ignoresCondition bool                     // of a PUT
	noChecksums      bool                     // are kept
	maxPage          int                      // of a listing
	ages             map[string]time.Duration // of objects by path, for listings; others are new

	mu       sync.Mutex
	objects  map[string][]byte // by path below the bucket
	requests []*http.Request
}

func newFake(tb testing.TB) *fakeS3 {
	tb.Helper()
	f := &fakeS3{objects: make(map[string][]byte), maxPage: 1000}
	f.Server = httptest.NewServer(f)
	tb.Cleanup(f.Close)
	return f
}

func (f *fakeS3) config() Config {
	cfg := DefaultConfig("bucket")
	cfg.Endpoint, cfg.PathStyle, cfg.Prefix = f.URL, true, "pre/fix"
	cfg.UnsafeSkipConditionalPutProbe = true // tests of the probe unset it
	return cfg
}

// answers sets answer, also between requests.
func (f *fakeS3) answers(answer func(http.ResponseWriter, *http.Request, http.HandlerFunc) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// open opens a store that sends the fake nothing yet.
func (f *fakeS3) open(tb testing.TB) *Store {
	tb.Helper()
	return openWith(tb, f.config())
}

// count returns how many requests of a method came.
func (f *fakeS3) count(method string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if r.Method == method {
			n++
		}
	}
	return n
}

func (f *fakeS3) holds() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.objects))
}

// ServeHTTP implements http.Handler.
func (f *fakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.Clone(r.Context()))
	answer := f.answer
	f.mu.Unlock()
	if answer == nil || !answer(w, r, f.serve) {
		f.serve(w, r)
	}
}

func (f *fakeS3) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key, found := strings.CutPrefix(r.URL.Path, "/bucket/")
	switch {
	case r.URL.Query().Has("list-type"):
		f.list(w, r.URL.Query())
	case !found:
		refuse(w, 404, codeNoSuchBucket)
	case r.Method == http.MethodPut:
		f.put(w, r, key, body)
	case r.Method == http.MethodDelete:
		delete(f.objects, key)
		w.WriteHeader(204)
	case f.objects[key] == nil:
		refuse(w, 404, codeNoSuchKey)
	default:
		f.get(w, r, f.objects[key])
	}
}

func (f *fakeS3) put(w http.ResponseWriter, r *http.Request, key string, body []byte) {
	sum := encodeCRC(crc32.Checksum(body, castagnoli))
	switch {
	case r.Header.Get("X-Amz-Checksum-Crc32c") != sum:
		refuse(w, 400, "BadDigest")
		return
	case f.objects[key] != nil && r.Header.Get("If-None-Match") == "*" && !f.ignoresCondition:
		refuse(w, 412, "PreconditionFailed")
		return
	}
	f.objects[key] = append([]byte{}, body...)
	w.Header().Set("ETag", etagOf(body))
	w.Header().Set("X-Amz-Checksum-Crc32c", sum)
}

func (f *fakeS3) get(w http.ResponseWriter, r *http.Request, object []byte) {
	h := w.Header()
	h.Set("ETag", etagOf(object))
	h.Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
	if r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" && !f.noChecksums {
		h.Set("X-Amz-Checksum-Crc32c", encodeCRC(crc32.Checksum(object, castagnoli)))
		h.Set("X-Amz-Checksum-Type", "FULL_OBJECT")
	}
	status := 200
	if span, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		from, to, _ := strings.Cut(span, "-")
		first, _ := strconv.Atoi(from)
		last, _ := strconv.Atoi(to)
		if first >= len(object) {
			refuse(w, 416, "InvalidRange")
			return
		}
		last = min(last, len(object)-1)
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(object)))
		object, status = object[first:last+1], 206
	}
	h.Set("Content-Length", strconv.Itoa(len(object)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(object)
	}
}

// listing is the answer to LIST.
type listing struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Name                  string
	EncodingType          string
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	Contents              []listed
}

type listed struct {
	Key          string
	Size         int
	LastModified string
}

func (f *fakeS3) list(w http.ResponseWriter, q url.Values) {
	after := q.Get("start-after")
	if token := q.Get("continuation-token"); token != "" {
		after = strings.TrimPrefix(token, "after ")
	}
	limit, _ := strconv.Atoi(q.Get("max-keys"))
	limit = min(limit, f.maxPage)
	answer := listing{Name: "bucket", EncodingType: "url"}
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		if key <= after || !strings.HasPrefix(key, q.Get("prefix")) {
			continue
		}
		if len(answer.Contents) == limit {
			answer.IsTruncated = true
			break
		}
		answer.Contents = append(answer.Contents, listed{
			url.QueryEscape(key), len(f.objects[key]), time.Now().Add(-f.ages[key]).UTC().Format(time.RFC3339),
		})
		answer.NextContinuationToken = "after " + key
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(answer)
}

func etagOf(object []byte) string {
	sum := md5.Sum(object)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>the server's words about %s</Message><RequestId>1</RequestId></Error>", code, code)
}

// cutOff ends the connection without an answer.
func cutOff(http.ResponseWriter) { panic(http.ErrAbortHandler) }

// always answers each request of a method in one way.
func always(method string, answer http.HandlerFunc) func(http.ResponseWriter, *http.Request, http.HandlerFunc) bool {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) bool {
		if r.Method != method {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w, r)
		return true
	}
}

// times answers the first n requests of a method in one way.
func times(n int, method string, answer http.HandlerFunc) func(http.ResponseWriter, *http.Request, http.HandlerFunc) bool {
	var mu sync.Mutex
	forever := always(method, answer)
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) bool {
		mu.Lock()
		mine := n > 0 && r.Method == method
		if mine {
			n--
		}
		mu.Unlock()
		return mine && forever(w, r, serve)
	}
}

func refusal(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { refuse(w, status, code) }
}
