package s3

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

// probing is the configuration of a store that Open probes.
func (f *fakeS3) probing() Config {
	cfg := f.config()
	cfg.UnsafeSkipConditionalPutProbe = false
	return cfg
}

// refused demands that Open says all words, in one short sentence, and keeps no store.
func refused(t *testing.T, cfg Config, kind ports.Kind, words ...string) {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err == nil {
		_ = s.Close()
		t.Fatal("the store was opened")
	}
	wants(t, err, kind, words...)
	if len(err.Error()) > 500 {
		t.Errorf("%d bytes of error: %v", len(err.Error()), err)
	}
}

func TestOpen_ProbesTheBucketAndLeavesNothing(t *testing.T) {
	f := newFake(t)
	s := openWith(t, f.probing())
	if left := f.holds(); len(left) != 0 || f.count(http.MethodPut) != 2 {
		t.Errorf("left is %q after %d puts", left, f.count(http.MethodPut))
	}
	if err := s.Put(t.Context(), testKey, []byte("x")); err != nil {
		t.Error(err)
	}
	cfg := f.probing()
	cfg.Prefix = ""
	openWith(t, cfg)
	if left := f.holds(); len(left) != 1 {
		t.Errorf("left is %q", left)
	}
}

// A process that is killed as it opens a bucket leaves the object of its probe.
func TestOpen_RemovesWhatKilledProbesHaveLeft(t *testing.T) {
	f := newFake(t)
	const folder = "pre/fix/probe/"
	old, young, foreign := folder+strings.Repeat("0a", 16), folder+strings.Repeat("0b", 16), folder+strings.Repeat("not ", 8)
	for _, key := range []string{old, young, foreign, "pre/fix/segments/x"} {
		f.objects[key] = []byte("x")
	}
	f.ages = map[string]time.Duration{old: 25 * time.Hour, young: 23 * time.Hour, foreign: 48 * time.Hour, "pre/fix/segments/x": 48 * time.Hour}
	openWith(t, f.probing())
	if left := f.holds(); !slices.Equal(left, []string{young, foreign, "pre/fix/segments/x"}) {
		t.Errorf("left is %q", left)
	}
}

func TestOpen_RefusesAStoreThatIgnoresTheCondition(t *testing.T) {
	f := newFake(t)
	f.ignoresCondition = true
	refused(t, f.probing(), ports.Definite, "ignores If-None-Match", "unsafe_skip_probe=true", "UnsafeSkipConditionalPutProbe")
	if left := f.holds(); len(left) != 0 {
		t.Errorf("left is %q", left)
	}
	cfg := f.probing()
	cfg.UnsafeSkipConditionalPutProbe = true
	before := len(f.requests)
	openWith(t, cfg)
	if len(f.requests) != before {
		t.Error("a probe that is to be skipped asked something")
	}
}

func TestOpen_RefusesAStoreThatRefusesAndReplacesAllTheSame(t *testing.T) {
	f := newFake(t)
	f.ignoresCondition = true
	puts := 0
	f.answers(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) bool {
		if r.Method != http.MethodPut {
			return false
		}
		if puts++; puts == 1 {
			return false
		}
		serve(httptest.NewRecorder(), r)
		refuse(w, 412, "PreconditionFailed")
		return true
	})
	refused(t, f.probing(), ports.Definite, "If-None-Match")
}

func TestOpen_SaysInOneSentenceWhatIsWrong(t *testing.T) {
	moved := func(status int, code string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amz-Bucket-Region", "eu-north-1")
			refuse(w, status, code)
		}
	}
	plain := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, status) }
	}
	for name, c := range map[string]struct {
		method string
		answer http.HandlerFunc
		kind   ports.Kind
		words  []string
	}{
		"unknown key":        {http.MethodPut, refusal(403, "InvalidAccessKeyId"), ports.Definite, []string{"probe bucket bucket", "AWS_ACCESS_KEY_ID"}},
		"wrong secret":       {http.MethodPut, refusal(403, "SignatureDoesNotMatch"), ports.Definite, []string{"AWS_SECRET_ACCESS_KEY"}},
		"expired token":      {http.MethodPut, refusal(400, "ExpiredToken"), ports.Definite, []string{"renew the credentials"}},
		"missing bucket":     {http.MethodPut, refusal(404, codeNoSuchBucket), ports.Definite, []string{`there is no bucket "bucket"`, "create it"}},
		"wrong region, 301":  {http.MethodPut, moved(301, "PermanentRedirect"), ports.Definite, []string{"eu-north-1", "set region=eu-north-1"}},
		"wrong region, 400":  {http.MethodPut, moved(400, "AuthorizationHeaderMalformed"), ports.Definite, []string{"set region=eu-north-1"}},
		"wrong clock":        {http.MethodPut, refusal(403, codeSkewed), ports.Transient, []string{"clock", "NTP"}},
		"no right to write":  {http.MethodPut, refusal(403, "AccessDenied"), ports.Definite, []string{"s3:PutObject"}},
		"no right to read":   {http.MethodGet, refusal(403, "AccessDenied"), ports.Definite, []string{"s3:GetObject"}},
		"no right to delete": {http.MethodDelete, refusal(403, "AccessDenied"), ports.Definite, []string{"s3:DeleteObject"}},
		"a proxy's 403":      {http.MethodPut, plain(403, "go away"), ports.Definite, []string{"403 Forbidden", "s3:PutObject"}},
		"no conditions":      {http.MethodPut, refusal(501, "NotImplemented"), ports.Definite, []string{"If-None-Match", "use a server that can"}},
		"no S3 server":       {http.MethodPut, plain(404, "nothing here"), ports.Definite, []string{"no answer of an S3 server", "endpoint"}},
		"wants TLS":          {http.MethodPut, plain(400, "Client sent an HTTP request to an HTTPS server."), ports.Definite, []string{"endpoint=https://"}},
		"in trouble":         {http.MethodPut, refusal(500, "InternalError"), ports.Ambiguous, []string{"500 InternalError"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answers(always(c.method, c.answer))
			refused(t, f.probing(), c.kind, append(c.words, f.URL)...)
			if left := f.holds(); len(left) != 0 && c.method != http.MethodDelete {
				t.Errorf("left is %q", left)
			}
		})
	}
}

func TestOpen_SaysTheRegionThatAmazonExpects(t *testing.T) {
	f := newFake(t)
	f.answers(always(http.MethodPut, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(400)
		fmt.Fprint(w, `<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'ap-south-1'</Message></Error>`)
	}))
	refused(t, f.probing(), ports.Definite, "is in region ap-south-1 and not in us-east-1", "set region=ap-south-1")
}

func TestOpen_WaitsForAServerThatStarts(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"busy": refusal(503, "ServiceUnavailable"),
		"lost": func(w http.ResponseWriter, _ *http.Request) { cutOff(w) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answers(times(readAttempts-1, http.MethodPut, answer))
			openWith(t, f.probing())
		})
	}
}

func TestOpen_TakesItsOwnLostPutForItsOwn(t *testing.T) {
	f := newFake(t)
	first := true
	f.answers(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) bool {
		if r.Method != http.MethodPut || !first {
			return false
		}
		first = false
		serve(httptest.NewRecorder(), r)
		refuse(w, 500, "InternalError")
		return true
	})
	openWith(t, f.probing())
}

// A server whose clock is an hour ahead refuses the first request; the SDK learns
// its time from the answer.
func TestOpen_FollowsTheServersClock(t *testing.T) {
	f := newFake(t)
	f.answers(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) bool {
		now := time.Now().Add(time.Hour)
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err == nil && now.Sub(signed).Abs() < 15*time.Minute {
			return false
		}
		refuse(w, 403, codeSkewed)
		return true
	})
	openWith(t, f.probing())
}

func TestOpen_RemovesItsObjectWhenItsContextEnds(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.answers(func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) bool {
		if r.Method == http.MethodHead {
			cancel()
		}
		return false
	})
	_, err := Open(ctx, f.probing())
	if !errors.Is(err, context.Canceled) || ports.KindOf(err) != ports.Transient {
		t.Errorf("error is %v", err)
	}
	if left := f.holds(); len(left) != 0 {
		t.Errorf("left is %q", left)
	}
}

func TestOpen_SaysWhyThereIsNoAnswer(t *testing.T) {
	quiet := func(s *httptest.Server) *httptest.Server {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(s.Close)
		return s
	}
	config := func(url string) Config {
		cfg := DefaultConfig("bucket")
		cfg.Endpoint, cfg.PathStyle = url, true
		return cfg
	}
	secure := quiet(httptest.NewUnstartedServer(http.NotFoundHandler()))
	secure.StartTLS()
	open := quiet(httptest.NewUnstartedServer(http.NotFoundHandler()))
	open.Start()

	t.Run("an authority that nobody knows", func(t *testing.T) {
		refused(t, config(secure.URL), ports.Definite, "certificate", "does not trust", "AWS_CA_BUNDLE")
	})
	t.Run("a certificate of another host", func(t *testing.T) {
		t.Setenv("AWS_CA_BUNDLE", certificateFile(t, secure))
		_, port, _ := net.SplitHostPort(secure.Listener.Addr().String())
		refused(t, config("https://localhost:"+port), ports.Definite, "certificate", "another host name")
	})
	t.Run("no TLS there", func(t *testing.T) {
		refused(t, config(strings.Replace(open.URL, "http:", "https:", 1)), ports.Definite, "speaks no TLS", "endpoint=http://")
	})
	t.Run("TLS there", func(t *testing.T) {
		refused(t, config(strings.Replace(secure.URL, "https:", "http:", 1)), ports.Definite, "endpoint=https://")
	})
	t.Run("nobody there", func(t *testing.T) {
		port, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		refused(t, config("http://127.0.0.1:"+port), ports.Transient, "nothing listens there")
	})
	t.Run("no credentials", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		refused(t, config(open.URL), ports.Definite, "no AWS credentials", "AWS_ACCESS_KEY_ID")
	})
	t.Run("no region", func(t *testing.T) {
		_, err := Open(t.Context(), DefaultConfig("bucket"))
		if !errors.Is(err, domain.ErrConfig) || !strings.Contains(err.Error(), "AWS_REGION") {
			t.Errorf("error is %v", err)
		}
	})
}

// certificateFile is the file of a server's own certificate.
func certificateFile(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pemOf(s.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStore_WorksOverTLS(t *testing.T) {
	f := &fakeS3{objects: make(map[string][]byte), maxPage: 1000}
	f.Server = httptest.NewUnstartedServer(f)
	f.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	f.StartTLS()
	t.Cleanup(f.Close)
	t.Setenv("AWS_CA_BUNDLE", certificateFile(t, f.Server))
	s := openWith(t, f.probing())
	object := []byte(strings.Repeat("tls", 1<<20))
	if err := s.Put(t.Context(), testKey, object); err != nil {
		t.Fatal(err)
	}
	got, err := s.ReadRange(t.Context(), testKey, 3, int64(len(object)-3))
	if err != nil || string(got) != string(object[3:]) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if f.requests[0].TLS == nil {
		t.Error("no TLS")
	}
}

func TestOpen_SaysWhatARealServerMeans(t *testing.T) {
	cfg := realConfig(t)
	t.Run("wrong secret", func(t *testing.T) {
		t.Setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
		refused(t, cfg, ports.Definite, "AWS_SECRET_ACCESS_KEY")
	})
	t.Run("unknown key", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "nobody")
		refused(t, cfg, ports.Definite, "AWS_ACCESS_KEY_ID")
	})
	t.Run("missing bucket", func(t *testing.T) {
		cfg := cfg
		cfg.Bucket = "no-such-bucket"
		refused(t, cfg, ports.Definite, `there is no bucket "no-such-bucket"`, "create it")
	})
}

func pemOf(certificate []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
}
