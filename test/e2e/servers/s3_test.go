package servers_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

func put(t *testing.T, s servers.S3Access, path, content string) {
	t.Helper()
	if status, answer, err := s.Do(t.Context(), http.MethodPut, path, []byte(content)); err != nil || status != http.StatusOK {
		t.Fatalf("put %s: status %d, error %v\n%s", path, status, err, answer)
	}
}

func get(t *testing.T, s servers.S3Access, path string) (status int, content string) {
	t.Helper()
	status, answer, err := s.Do(t.Context(), http.MethodGet, path, nil)
	must(t, err)
	return status, string(answer)
}

func TestS3_HasWhatItAcknowledgedBeforeKill9(t *testing.T) {
	s := servers.S3(t)
	object := "/" + s.NewBucket(t) + "/a folder/ä+=&"
	put(t, s.S3Access, object, "kept")
	for _, stop := range []func() error{s.Kill9, s.Stop} {
		must(t, stop())
		if _, _, err := s.Do(t.Context(), http.MethodGet, object, nil); err == nil {
			t.Error("a stopped server answers")
		}
		if stop() == nil {
			t.Error("a stopped server was stopped again")
		}
		must(t, s.Start())
		if status, content := get(t, s.S3Access, object); status != http.StatusOK || content != "kept" {
			t.Errorf("status %d, content %q", status, content)
		}
	}
	if s.Start() == nil {
		t.Error("a running server was started")
	}
}

func TestS3_RefusesOtherKeys(t *testing.T) {
	s, _ := servers.Bucket(t)
	other := s.S3Access
	other.SecretKey = "another"
	if status, answer := get(t, other, "/"); status != http.StatusForbidden || !strings.Contains(answer, "SignatureDoesNotMatch") {
		t.Errorf("status %d, answer %s", status, answer)
	}
}

func TestBucket_IsNewForEachCaller(t *testing.T) {
	s, mine := servers.Bucket(t)
	again, yours := servers.Bucket(t)
	if mine == yours || s != again {
		t.Fatalf("buckets %s and %s", mine, yours)
	}
	put(t, s.S3Access, "/"+mine+"/object", "mine")
	if status, _ := get(t, s.S3Access, "/"+yours+"/object"); status != http.StatusNotFound {
		t.Errorf("status %d of an object in another bucket", status)
	}
}

func BenchmarkS3(b *testing.B) {
	for b.Loop() {
		servers.S3(b)
	}
}
