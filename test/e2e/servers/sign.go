package servers

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Answers reports whether a server is there that takes these keys.
func (s S3Access) Answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	status, _, err := s.Do(ctx, http.MethodGet, "/", nil)
	return err == nil && status == http.StatusOK
}

// NewBucket makes an empty bucket and returns its name. It goes with the server.
func (s S3Access) NewBucket(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test-%d", made.Add(1))
	status, body, err := s.Do(tb.Context(), http.MethodPut, "/"+name, nil)
	if err != nil || status != http.StatusOK {
		tb.Fatalf("make a bucket: status %d, error %v\n%s", status, err, body)
	}
	return name
}

// Do sends one signed request and returns the status and body of the answer.
// The path begins with "/" and the bucket. It is for preparing and looking, without the client
// under test: there is no retry.
func (s S3Access) Do(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	// S3 wants all escaped but letters, digits and "-._~/": a query's way, and a blank is no plus.
	escaped := strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(path))
	request, err := http.NewRequestWithContext(ctx, method, s.Endpoint+escaped, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	s.sign(request, body, time.Now().UTC())
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // leaves no goroutine behind
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// sign signs a request without a query as Signature Version 4 wants it.
func (s S3Access) sign(r *http.Request, body []byte, now time.Time) {
	const names = "host;x-amz-content-sha256;x-amz-date"
	digest := sha256.Sum256(body)
	sum, stamp := hex.EncodeToString(digest[:]), now.Format("20060102T150405Z")
	r.Header.Set("X-Amz-Content-Sha256", sum)
	r.Header.Set("X-Amz-Date", stamp)
	canonical := sha256.Sum256([]byte(strings.Join([]string{
		r.Method, r.URL.EscapedPath(), "",
		"host:" + r.URL.Host, "x-amz-content-sha256:" + sum, "x-amz-date:" + stamp, "", names, sum,
	}, "\n")))
	scope := strings.Join([]string{now.Format("20060102"), s.Region, "s3", "aws4_request"}, "/")
	key := []byte("AWS4" + s.SecretKey)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	signature := mac(key, strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, hex.EncodeToString(canonical[:])}, "\n"))
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+s.AccessKey+"/"+scope+", SignedHeaders="+names+", Signature="+hex.EncodeToString(signature))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
