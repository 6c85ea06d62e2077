package faultproxy_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

// shelf is a small server that keeps what is put.
type shelf struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPut {
		s.objects[r.URL.Path] = content
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.objects[r.URL.Path]))
}

func (s *shelf) has(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, has := s.objects[path]
	return has
}

// web is a proxy in front of a shelf that has /object, and a client of it.
type web struct {
	*testing.T
	*faultproxy.HTTP
	shelf  *shelf
	client *http.Client
}

const object = "0123456789abcdef"

func newWeb(t *testing.T) *web {
	s := &shelf{objects: map[string][]byte{"/object": []byte(object)}}
	backend := httptest.NewServer(s)
	t.Cleanup(backend.Close)
	outward := &http.Transport{DisableCompression: true}
	t.Cleanup(outward.CloseIdleConnections)
	return &web{t, faultproxy.NewHTTP(t, backend.URL, 1), s, &http.Client{Transport: outward}}
}

// ask sends one request; a connection that fails is told by the error.
func (w *web) ask(ctx context.Context, method, path, content string, header ...string) (status int, answer http.Header, body string, err error) {
	w.Helper()
	r, err := http.NewRequestWithContext(ctx, method, w.URL()+path, io.NopCloser(strings.NewReader(content))) // the client cannot send it again
	must(w.T, err)
	r.ContentLength = int64(len(content))
	if content == "" {
		r.Body = nil
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := w.client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(all), err
}

func (w *web) put(path string) (status int, err error) {
	w.Helper()
	status, _, _, err = w.ask(w.Context(), http.MethodPut, path, "content")
	return status, err
}

func (w *web) get(header ...string) (status int, body string, err error) {
	w.Helper()
	status, _, body, err = w.ask(w.Context(), http.MethodGet, "/object", "", header...)
	return status, body, err
}

func TestHTTP_PassesEverythingOnWithoutARule(t *testing.T) {
	w := newWeb(t)
	if status, err := w.put("/new"); status != http.StatusOK || err != nil || !w.shelf.has("/new") {
		t.Errorf("put: status %d, error %v", status, err)
	}
	if status, body, err := w.get("Range", "bytes=2-4"); status != http.StatusPartialContent || body != "234" || err != nil {
		t.Errorf("get: status %d, body %q, error %v", status, body, err)
	}
	if puts, gets := w.Requests(http.MethodPut), w.Requests(http.MethodGet); puts != 1 || gets != 1 || len(w.Faults()) != 0 {
		t.Errorf("counted %d puts, %d gets and faults %v", puts, gets, w.Faults())
	}
}

func TestHTTP_FailsBeforeOrAfterTheEffectAsTold(t *testing.T) {
	for _, c := range []struct {
		fault  faultproxy.Fault
		status int    // 0 for a connection that breaks
		code   string // in the error document
		effect bool
	}{
		{faultproxy.Answer(503), 503, "SlowDown", false},
		{faultproxy.Answer(500), 500, "InternalError", false},
		{faultproxy.Answer(429), 429, "TooManyRequests", false},
		{faultproxy.Answer(403), 403, "AccessDenied", false},
		{faultproxy.Answer(502), 502, "BadGateway", false},
		{faultproxy.AnswerAfter(500), 500, "InternalError", true},
		{faultproxy.AnswerAfter(412), 412, "PreconditionFailed", true},
		{faultproxy.Reset(), 0, "", false},
		{faultproxy.ResetAfter(), 0, "", true},
	} {
		t.Run(c.fault.Name(), func(t *testing.T) {
			w := newWeb(t)
			rule := w.Inject(faultproxy.Rule{Method: http.MethodPut, Times: 1, Fault: c.fault})
			content := "content"
			if c.status != 0 { // else a client that still sends may see another error than a reset
				content = strings.Repeat("x", 1<<20)
			}
			status, _, body, err := w.ask(t.Context(), http.MethodPut, "/new", content)
			if status != c.status || (err != nil) != (c.status == 0) || w.shelf.has("/new") != c.effect {
				t.Errorf("status %d, error %v, effect %v", status, err, w.shelf.has("/new"))
			}
			if c.status == 0 && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection broke with %v", err)
			}
			var document struct{ Code string }
			if c.status != 0 && (xml.Unmarshal([]byte(body), &document) != nil || document.Code != c.code) {
				t.Errorf("the document is %s", body)
			}
			if rule.Fired() != 1 || w.Faults()[c.fault.Name()] != 1 {
				t.Errorf("fired %d, faults %v", rule.Fired(), w.Faults())
			}
			if status, err := w.put("/again"); status != http.StatusOK || err != nil {
				t.Errorf("the next one: status %d, error %v", status, err)
			}
		})
	}
}

func TestHTTP_DelaysBeforeOrAfterTheEffect(t *testing.T) {
	const never = time.Hour
	for _, c := range []struct {
		fault          faultproxy.Fault
		patient        bool
		answer, effect bool
	}{
		{faultproxy.Delay(time.Millisecond), true, true, true},
		{faultproxy.DelayAfter(time.Millisecond), true, true, true},
		{faultproxy.Delay(never), false, false, false},
		{faultproxy.DelayAfter(never), false, false, true},
		{faultproxy.Straggle(2 * pause), false, false, true},
	} {
		t.Run(c.fault.Name(), func(t *testing.T) {
			w := newWeb(t)
			w.Inject(faultproxy.Rule{Fault: c.fault})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if !c.patient {
				ctx, cancel = context.WithTimeout(ctx, pause)
				defer cancel()
			}
			began := time.Now()
			_, _, _, err := w.ask(ctx, http.MethodPut, "/new", "content")
			if c.answer != (err == nil) || time.Since(began) < time.Millisecond {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			if c.effect {
				within(t, "the server was asked", func() bool { return w.shelf.has("/new") })
			} else if w.Close(); w.shelf.has("/new") { // Close waits for what may still come
				t.Error("the server was asked for a client that had given up")
			}
		})
	}
}

func TestHTTP_SpoilsBodiesAndRangesAsTold(t *testing.T) {
	for _, c := range []struct {
		fault   faultproxy.Fault
		status  int
		body    string
		broken  bool
		ranging string // Content-Range of the answer
	}{
		{faultproxy.Truncate(3), 206, "456", true, "bytes 4-9/16"},
		{faultproxy.Truncate(0), 206, "", true, "bytes 4-9/16"},
		{faultproxy.Shorten(3), 206, "456", false, "bytes 4-9/16"},
		{faultproxy.Shorten(99), 206, "456789", false, "bytes 4-9/16"},
		{faultproxy.Flip(1), 206, "446789", false, "bytes 4-9/16"},
		{faultproxy.IgnoreRange(), 200, object, false, ""},
		{faultproxy.ShiftRange(1), 206, "56789a", false, "bytes 5-10/16"},
	} {
		t.Run(c.fault.Name(), func(t *testing.T) {
			w := newWeb(t)
			w.Inject(faultproxy.Rule{Method: http.MethodGet, Fault: c.fault})
			status, header, body, err := w.ask(t.Context(), http.MethodGet, "/object", "", "Range", "bytes=4-9")
			if status != c.status || body != c.body || errors.Is(err, io.ErrUnexpectedEOF) != c.broken || header.Get("Content-Range") != c.ranging {
				t.Errorf("status %d, body %q, error %v, range %q", status, body, err, header.Get("Content-Range"))
			}
		})
	}
}

func TestHTTP_IgnoresIfNoneMatchByRemovingTheObjectFirst(t *testing.T) {
	w := newWeb(t)
	var removed []string
	var fails error
	w.Inject(faultproxy.Rule{Method: http.MethodPut, Fault: faultproxy.IgnoreIfNoneMatch(func(_ context.Context, path string) error {
		removed = append(removed, path)
		return fails
	})})
	put := func(content string, header ...string) error {
		_, _, _, err := w.ask(t.Context(), http.MethodPut, "/object", content, header...)
		return err
	}
	must(t, put("plain"))
	if removed != nil {
		t.Errorf("a put without the header removes %q", removed)
	}
	must(t, put("second", "If-None-Match", "*"))
	if _, body, err := w.get(); err != nil || body != "second" || !slices.Equal(removed, []string{"/object"}) {
		t.Errorf("removed %q, then read %q, %v", removed, body, err)
	}
	fails = errors.New("no")
	if err := put("third", "If-None-Match", "*"); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		t.Errorf("a put whose object cannot be removed: %v", err)
	}
}

func TestHTTP_RulesChooseTheirRequests(t *testing.T) {
	w := newWeb(t)
	fault := faultproxy.Answer(500)
	failing := func(method, path string) bool {
		status, _, _, err := w.ask(t.Context(), method, path, "")
		must(t, err)
		return status == 500
	}
	for _, c := range []struct {
		rule         faultproxy.Rule
		method, path string
		fails        []bool
	}{
		{faultproxy.Rule{Method: "PUT"}, "PUT", "/a", []bool{true, true}},
		{faultproxy.Rule{Method: "GET"}, "PUT", "/a", []bool{false}},
		{faultproxy.Rule{Path: "/seg"}, "GET", "/b/segments/1", []bool{true}},
		{faultproxy.Rule{Path: "/seg"}, "GET", "/b/other", []bool{false}},
		{faultproxy.Rule{Query: "uploads"}, "GET", "/a?uploads", []bool{true}},
		{faultproxy.Rule{Query: "uploads"}, "GET", "/a?x=uploads", []bool{false}},
		{faultproxy.Rule{After: 2, Times: 2}, "GET", "/a", []bool{false, false, true, true, false}},
	} {
		c.rule.Fault = fault
		w.Inject(c.rule)
		for i, want := range c.fails {
			if got := failing(c.method, c.path); got != want {
				t.Errorf("%+v: %s %s, number %d, fails: %v", c.rule, c.method, c.path, i, got)
			}
		}
		w.Clear()
	}
	counting := w.Inject(faultproxy.Rule{Path: "/c"})
	first, second := w.Inject(faultproxy.Rule{Fault: fault}), w.Inject(faultproxy.Rule{Fault: faultproxy.Reset()})
	if !failing("GET", "/c") || first.Fired() != 1 || second.Fired() != 0 || counting.Fired() != 1 {
		t.Errorf("fired %d, %d and counted %d: the first rule has the request", first.Fired(), second.Fired(), counting.Fired())
	}
	first.Remove()
	second.Remove()
	if failing("GET", "/d") || counting.Fired() != 1 {
		t.Error("a removed rule is at work")
	}
}

func TestHTTP_ASeedRepeatsItsChoices(t *testing.T) {
	choices := func() (failed []bool) {
		w := newWeb(t)
		w.Inject(faultproxy.Rule{Chance: 0.5, Fault: faultproxy.Answer(500)})
		for range 64 {
			status, _, err := w.get()
			must(t, err)
			failed = append(failed, status == 500)
		}
		return failed
	}
	first, again := choices(), choices()
	if !slices.Equal(first, again) || !slices.Contains(first, true) || !slices.Contains(first, false) {
		t.Errorf("chose %v, then %v", first, again)
	}
}

func TestHTTP_RefusesAllWhileDown(t *testing.T) {
	w := newWeb(t)
	if _, _, err := w.get(); err != nil { // there is a connection
		t.Fatal(err)
	}
	w.Inject(faultproxy.Rule{Method: http.MethodPut, Fault: faultproxy.Delay(time.Hour)})
	waiting := make(chan error, 1)
	go func() {
		_, err := w.put("/waiting")
		waiting <- err
	}()
	within(t, "the put has come", func() bool { return w.Requests(http.MethodPut) == 1 })
	for range 2 {
		w.Down()
		if _, _, err := w.get(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("get while down: %v", err)
		}
		must(t, w.Up())
		if status, _, err := w.get(); status != http.StatusOK || err != nil {
			t.Errorf("get when up again: status %d, error %v", status, err)
		}
	}
	if err := <-waiting; err == nil || w.shelf.has("/waiting") {
		t.Errorf("the request that was under way: %v", err)
	}
}

func TestHTTP_ResetsWhenTheServerIsGone(t *testing.T) {
	backend := httptest.NewServer(http.NotFoundHandler())
	p := faultproxy.NewHTTP(t, backend.URL, 1)
	backend.Close()
	w := &web{t, p, nil, http.DefaultClient}
	if status, _, err := w.get(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("status %d, error %v", status, err)
	}
}

func TestHTTP_CloseEndsWhatWaits(t *testing.T) {
	w := newWeb(t)
	faults := []faultproxy.Fault{faultproxy.Delay(time.Hour), faultproxy.DelayAfter(time.Hour), faultproxy.Straggle(time.Hour)}
	failed := make(chan error, len(faults))
	for _, fault := range faults {
		w.Inject(faultproxy.Rule{Times: 1, Fault: fault})
		go func() {
			_, err := w.put("/new")
			failed <- err
		}()
	}
	within(t, "all wait", func() bool { return len(slices.Collect(maps.Keys(w.Faults()))) == len(faults) })
	w.Close()
	for range faults {
		if err := <-failed; err == nil {
			t.Error("a request was answered by a closed proxy")
		}
	}
	w.Close()
}

// The signature of a request holds behind the proxy, whatever is in its path.
func TestHTTP_StandsInFrontOfS3(t *testing.T) {
	s, bucket := servers.Bucket(t)
	p := faultproxy.NewHTTP(t, s.Endpoint, 1)
	behind := s.S3Access
	behind.Endpoint = p.URL()
	path := "/" + bucket + "/a b/ä+=&%2F"
	do := func(s servers.S3Access, method, content string) (int, string) {
		status, body, err := s.Do(t.Context(), method, path, []byte(content))
		must(t, err)
		return status, string(body)
	}
	p.Inject(faultproxy.Rule{Method: http.MethodPut, Times: 1, Fault: faultproxy.AnswerAfter(500)})
	if status, _ := do(behind, http.MethodPut, "first"); status != 500 {
		t.Errorf("put: status %d", status)
	}
	if status, body := do(s.S3Access, http.MethodGet, ""); status != 200 || body != "first" {
		t.Errorf("status %d, body %s: the failed put has had its effect", status, body)
	}
	if status, body := do(behind, http.MethodPut, "second"); status != 200 {
		t.Errorf("put: status %d, body %s", status, body)
	}
	if status, body := do(behind, http.MethodGet, ""); status != 200 || body != "second" {
		t.Errorf("get: status %d, body %s", status, body)
	}
}
