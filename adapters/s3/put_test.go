package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
	"github.com/streamhouse/streamhouse/ports/portstest"
)

const testKey = "segments/0f/one"

func TestFake_KeepsTheContract(t *testing.T) {
	portstest.TestSegmentStore(t, func(t testing.TB) ports.SegmentStore { return newFake(t).open(t) })
}

// wants demands an error of the kind that says all words and no secret, in one line.
func wants(t *testing.T, err error, kind ports.Kind, words ...string) {
	t.Helper()
	if err == nil || ports.KindOf(err) != kind || !errors.Is(err, domain.ErrStorage) {
		t.Fatalf("error is %v, want a %v one", err, kind)
	}
	text := err.Error()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("error %q does not say %q", text, word)
		}
	}
	for _, noise := range []string{"operation error", "https response error", "RequestID", "HostID", "\n", testSecret, testAccess} {
		if strings.Contains(text, noise) {
			t.Errorf("error %q holds %q", text, noise)
		}
	}
}

func TestPut_SaysWhetherARefusalHadAnEffect(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		kind   ports.Kind
		says   string
	}{
		{412, "PreconditionFailed", ports.Definite, "object exists"},
		{409, "ConditionalRequestConflict", ports.Transient, "409 ConditionalRequestConflict"},
		{409, "OperationAborted", ports.Transient, "409 OperationAborted"},
		{409, "ObjectParentIsFile", ports.Definite, "409 ObjectParentIsFile"},
		{429, "TooManyRequests", ports.Transient, "429"},
		{503, "SlowDown", ports.Ambiguous, "too many requests"},
		{503, "SlowDownWrite", ports.Ambiguous, "503 SlowDownWrite"},
		{503, "ServiceUnavailable", ports.Ambiguous, "503 ServiceUnavailable"},
		{500, "InternalError", ports.Ambiguous, "500 InternalError"},
		{502, "BadGateway", ports.Ambiguous, "502"},
		{504, "GatewayTimeout", ports.Ambiguous, "504"},
		{408, "RequestTimeout", ports.Transient, "408 RequestTimeout"},
		{400, "BadDigest", ports.Transient, "400 BadDigest"},
		{400, "XAmzContentChecksumMismatch", ports.Transient, "400"},
		{400, "IncompleteBody", ports.Transient, "400"},
		{400, "RequestTimeout", ports.Transient, "400"},
		{400, "InvalidArgument", ports.Definite, "the server's words about InvalidArgument"},
		{400, "ExpiredToken", ports.Definite, "renew the credentials"},
		{400, "AuthorizationHeaderMalformed", ports.Definite, "set region="},
		{301, "PermanentRedirect", ports.Definite, "set region="},
		{307, "TemporaryRedirect", ports.Transient, "redirects elsewhere"},
		{403, "AccessDenied", ports.Definite, "grant them s3:PutObject on bucket \"bucket\""},
		{403, "InvalidAccessKeyId", ports.Definite, "AWS_ACCESS_KEY_ID"},
		{404, "XAdminUserNotFound", ports.Definite, "AWS_ACCESS_KEY_ID"},
		{403, "SignatureDoesNotMatch", ports.Definite, "AWS_SECRET_ACCESS_KEY"},
		{403, "RequestTimeTooSkewed", ports.Transient, "NTP"},
		{404, "NoSuchBucket", ports.Definite, "create it"},
		{405, "MethodNotAllowed", ports.Definite, "endpoint"},
		{501, "NotImplemented", ports.Definite, "If-None-Match"},
		{507, "XMinioStorageFull", ports.Ambiguous, "507"},
	} {
		t.Run(fmt.Sprintf("%d_%s", c.status, c.code), func(t *testing.T) {
			f := newFake(t)
			f.answers(always(http.MethodPut, refusal(c.status, c.code)))
			err := f.open(t).Put(t.Context(), testKey, []byte("x"))
			wants(t, err, c.kind, "put object "+testKey, c.says)
			if errors.Is(err, ports.ErrObjectExists) != (c.status == 412) {
				t.Errorf("error is %v", err)
			}
			if n := f.count(http.MethodPut); n != 1 && c.kind != ports.Transient || n > raceAttempts {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestPut_IsSentOnceExceptWhileAnotherIsUnderWay(t *testing.T) {
	f := newFake(t)
	f.answers(always(http.MethodPut, refusal(503, codeSlowDown)))
	s := f.open(t)
	wants(t, s.Put(t.Context(), testKey, nil), ports.Ambiguous)
	if n := f.count(http.MethodPut); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	f.answers(times(raceAttempts-1, http.MethodPut, refusal(409, "ConditionalRequestConflict")))
	if err := s.Put(t.Context(), testKey, []byte("x")); err != nil {
		t.Errorf("after two conflicts: %v", err)
	}
	f.answers(times(1, http.MethodPut, refusal(409, "ConditionalRequestConflict")))
	if err := s.Put(t.Context(), testKey, []byte("y")); !errors.Is(err, ports.ErrObjectExists) {
		t.Errorf("after a conflict that the other has won: %v", err)
	}
}

func TestPut_WhoseAnswerIsLostIsAmbiguousAndFindsItsObjectNextTime(t *testing.T) {
	f := newFake(t)
	f.answers(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) bool {
		if r.Method == http.MethodPut {
			serve(httptest.NewRecorder(), r)
			cutOff(w)
		}
		return false
	})
	s := f.open(t)
	wants(t, s.Put(t.Context(), testKey, []byte("mine")), ports.Ambiguous, "no answer from "+f.URL)
	f.answers(nil)
	if err := s.Put(t.Context(), testKey, []byte("mine")); !errors.Is(err, ports.ErrObjectExists) {
		t.Fatalf("the same again: %v", err)
	}
	info, err := s.Stat(t.Context(), testKey)
	if err != nil || info.Size != 4 || info.CRC32C != crc32.Checksum([]byte("mine"), castagnoli) {
		t.Errorf("stat is %+v, %v", info, err)
	}
}

func TestPut_IsAmbiguousIfTheAnswerIsNoneOfAStore(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"a page of somebody else": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome</html>") },
		"another checksum": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("X-Amz-Checksum-Crc32c", encodeCRC(1))
		},
		"a proxy's 502": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "bad gateway", http.StatusBadGateway) },
		"a proxy's 503": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "unavailable", http.StatusServiceUnavailable)
		},
		"an endless page": endless(500, nil),
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answers(always(http.MethodPut, answer))
			wants(t, f.open(t).Put(t.Context(), testKey, []byte("x")), ports.Ambiguous)
		})
	}
}

func TestPut_ThatReachesNobodyIsTransient(t *testing.T) {
	f := newFake(t)
	s := f.open(t)
	f.Close()
	wants(t, s.Put(t.Context(), testKey, []byte("x")), ports.Transient, "nothing listens there", f.URL)
}

// hanging answers nothing until the test ends.
func hanging(t *testing.T) http.HandlerFunc {
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	return func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}
}

func TestCalls_EndWithTheirContext(t *testing.T) {
	f := newFake(t)
	hang := hanging(t)
	f.answers(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) bool { hang(w, r); return true })
	s := f.open(t)
	for name, call := range map[string]struct {
		do   func(context.Context) error
		kind ports.Kind
	}{
		"put":    {func(ctx context.Context) error { return s.Put(ctx, testKey, []byte("x")) }, ports.Ambiguous},
		"delete": {func(ctx context.Context) error { return s.Delete(ctx, testKey) }, ports.Ambiguous},
		"stat":   {func(ctx context.Context) error { _, err := s.Stat(ctx, testKey); return err }, ports.Transient},
		"read":   {func(ctx context.Context) error { _, err := s.ReadRange(ctx, testKey, 0, 9); return err }, ports.Transient},
		"list":   {func(ctx context.Context) error { _, err := s.List(ctx, "", 9); return err }, ports.Transient},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		err := call.do(ctx)
		cancel()
		if ports.KindOf(err) != call.kind || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
			t.Errorf("%s: %v after %v, want a %v one", name, err, time.Since(start), call.kind)
		}
	}
}

func TestPut_GivesUpAConnectionOnWhichNothingMoves(t *testing.T) {
	f := newFake(t)
	f.answers(always(http.MethodPut, hanging(t)))
	cfg := f.config()
	cfg.StallTimeout = minStallTimeout
	wants(t, openWith(t, cfg).Put(t.Context(), testKey, []byte("x")), ports.Ambiguous, "did not answer in time", "stall_timeout")
}

func TestPut_DoesNotReadTheBodyOnceItHasReturned(t *testing.T) {
	f := newFake(t)
	var cancel context.CancelFunc
	f.answers(func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) bool {
		_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
		cancel()
		_, _ = io.Copy(io.Discard, r.Body)
		return true
	})
	s := f.open(t)
	object := bytes.Repeat([]byte("x"), 32<<20)
	for range 5 {
		ctx, end := context.WithCancel(t.Context())
		cancel = end
		wants(t, s.Put(ctx, testKey, object), ports.Ambiguous)
		clear(object) // the race detector sees a reader
	}
	b := newBody([]byte("x"))
	b.release()
	if n, err := b.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a released body gives %d bytes, %v", n, err)
	}
}

func TestRequests_CarryWhatTheStoreRestsOnAndNoMore(t *testing.T) {
	f := newFake(t)
	s := f.open(t)
	object := bytes.Repeat([]byte("z"), 3<<20)
	if err := s.Put(t.Context(), testKey, object); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadRange(t.Context(), testKey, 5, 7); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), testKey); err != nil {
		t.Fatal(err)
	}
	put, get, del := f.requests[0].Header, f.requests[1].Header, f.requests[2].Header
	for name, want := range map[string]string{
		"If-None-Match": "*", "X-Amz-Checksum-Crc32c": encodeCRC(crc32.Checksum(object, castagnoli)), "X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD",
	} {
		if got := put.Get(name); got != want {
			t.Errorf("put has %s: %q, want %q", name, got, want)
		}
		if !strings.Contains(put.Get("Authorization"), strings.ToLower(name)) {
			t.Errorf("put does not sign %s", name)
		}
	}
	if got := get.Get("Range"); got != "bytes=5-11" {
		t.Errorf("get has range %q", got)
	}
	for name := range del {
		if strings.HasPrefix(name, "If-") {
			t.Errorf("delete has a condition, %s, which some servers ignore", name)
		}
	}
	if got := f.requests[0].URL.Path; got != "/bucket/pre/fix/"+testKey {
		t.Errorf("put goes to %s", got)
	}
	if left := f.holds(); len(left) != 0 {
		t.Errorf("left is %q", left)
	}
}

func TestNoCall_FollowsARedirect(t *testing.T) {
	other := newFake(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		f := newFake(t)
		f.answers(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) bool {
			http.Redirect(w, r, other.URL+r.URL.Path, status)
			return true
		})
		s := f.open(t)
		_, readErr := s.ReadRange(t.Context(), testKey, 0, 1)
		_, statErr := s.Stat(t.Context(), testKey)
		_, listErr := s.List(t.Context(), "", 1)
		for _, err := range []error{s.Put(t.Context(), testKey, []byte("x")), s.Delete(t.Context(), testKey), readErr, statErr, listErr} {
			if err == nil || !strings.Contains(err.Error(), "redirects elsewhere") {
				t.Errorf("%d: %v", status, err)
			}
		}
	}
	if got := slices.Clone(other.requests); len(got) != 0 {
		t.Errorf("the other host got %d requests", len(got))
	}
}

func TestDelete_OfAMissingObjectSucceedsAndOfAMissingBucketDoesNot(t *testing.T) {
	f := newFake(t)
	s := f.open(t)
	f.answers(always(http.MethodDelete, refusal(404, codeNoSuchKey)))
	if err := s.Delete(t.Context(), testKey); err != nil {
		t.Error(err)
	}
	f.answers(always(http.MethodDelete, refusal(404, codeNoSuchBucket)))
	wants(t, s.Delete(t.Context(), testKey), ports.Definite, "there is no bucket")
	f.answers(always(http.MethodDelete, refusal(403, "AccessDenied")))
	wants(t, s.Delete(t.Context(), testKey), ports.Definite, "s3:DeleteObject")
	f.answers(always(http.MethodDelete, refusal(500, "InternalError")))
	wants(t, s.Delete(t.Context(), testKey), ports.Ambiguous)
}

func TestClose_RefusesCallsAndEndsThoseThatHang(t *testing.T) {
	f := newFake(t)
	f.answers(always(http.MethodPut, hanging(t)))
	s := f.open(t)
	s.patience = 50 * time.Millisecond
	result := make(chan error, 1)
	go func() { result <- s.Put(t.Context(), testKey, []byte("x")) }()
	for f.count(http.MethodPut) == 0 {
		if t.Context().Err() != nil {
			return
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; ports.KindOf(err) != ports.Ambiguous || !errors.Is(err, domain.ErrClosed) {
		t.Errorf("the put that hung: %v", err)
	}
	_, statErr := s.Stat(t.Context(), testKey)
	_, readErr := s.ReadRange(t.Context(), testKey, 0, 1)
	_, listErr := s.List(t.Context(), "", 1)
	for _, err := range []error{s.Put(t.Context(), testKey, nil), s.Delete(t.Context(), testKey), statErr, readErr, listErr, s.Probe(t.Context())} {
		if !errors.Is(err, domain.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// abrupt answers each request as soon as it has read its head and a little more,
// and cuts the connection, as a server does that does not want the body.
func abrupt(t *testing.T, answer string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := io.ReadFull(conn, make([]byte, 64<<10)); err != nil {
				t.Error(err)
			}
			fmt.Fprint(conn, answer)
			_ = conn.Close() // with bytes unread: the client's kernel is told so
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return "http://" + l.Addr().String()
}

func TestPut_HearsAnAnswerThatComesBeforeItsBodyHasLeft(t *testing.T) {
	const refusal = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	for answer, want := range map[string]ports.Kind{refusal: ports.Definite, "": ports.Ambiguous} {
		cfg := DefaultConfig("bucket")
		cfg.Endpoint, cfg.PathStyle, cfg.UnsafeSkipConditionalPutProbe = abrupt(t, answer), true, true
		s := openWith(t, cfg)
		for range 20 {
			err := s.Put(t.Context(), testKey, make([]byte, 1<<20))
			wants(t, err, want)
			if errors.Is(err, ports.ErrObjectExists) != (want == ports.Definite) {
				t.Fatalf("error is %v", err)
			}
		}
	}
}

// A server closes idle connections when it likes, also while the next request is
// on its way: then that one is in doubt, or was never sent, and no more than that one.
func TestPut_OutlivesConnectionsThatTheServerCloses(t *testing.T) {
	f := newFake(t)
	s := f.open(t)
	for i := range 20 {
		key := fmt.Sprintf("k/%d", i)
		err := s.Put(t.Context(), key, []byte("x"))
		if err != nil {
			if kind := ports.KindOf(err); kind != ports.Transient && kind != ports.Ambiguous {
				t.Fatalf("put %d: %v", i, err)
			}
			err = s.Put(t.Context(), key, []byte("x"))
		}
		if err != nil && !errors.Is(err, ports.ErrObjectExists) {
			t.Fatalf("put %d again: %v", i, err)
		}
		f.CloseClientConnections()
	}
	if n := len(f.holds()); n != 20 {
		t.Errorf("%d objects, want 20", n)
	}
}
