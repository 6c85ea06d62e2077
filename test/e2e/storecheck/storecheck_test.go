// Package storecheck_test runs `streamhouse store check`, the built binary, on
// a real S3 server that is good, spoiled, or not what its user thinks.
package storecheck_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/adapters/s3"
	"github.com/streamhouse/streamhouse/app/storecheck"
	"github.com/streamhouse/streamhouse/test/e2e/faultproxy"
	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Main(m)) }

// tool is the built binary and what it signs with.
type tool struct {
	*testing.T
	binary string
	keys   servers.S3Access
}

func newTool(t *testing.T, keys servers.S3Access) *tool {
	t.Helper()
	c := &tool{t, filepath.Join(t.TempDir(), "streamhouse"), keys}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", c.binary, "../../../cmd/streamhouse").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return c
}

// report is what --output json prints.
type report struct {
	OK     bool
	Checks []struct {
		Name, Detail, Fix string
		OK                bool
	}
}

// check runs the check of a bucket below an endpoint.
func (c *tool) check(endpoint, bucket string) (r report, code int) {
	c.Helper()
	location := fmt.Sprintf("s3://%s/some/prefix?%s", bucket, url.Values{
		"endpoint": {endpoint}, "path_style": {"true"}, "region": {c.keys.Region},
	}.Encode())
	cmd := exec.CommandContext(c.Context(), c.binary, "store", "check", location, "--output", "json")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "AWS_") || strings.HasPrefix(v, "STREAMHOUSE_") }),
		"AWS_ACCESS_KEY_ID="+c.keys.AccessKey, "AWS_SECRET_ACCESS_KEY="+c.keys.SecretKey, "AWS_EC2_METADATA_DISABLED=true")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		c.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		c.Fatalf("exit code %d: %v: %s%s", cmd.ProcessState.ExitCode(), err, out.String(), said.String())
	}
	return r, cmd.ProcessState.ExitCode()
}

// refusal demands that one check, and no other, was made and has failed.
func (c *tool) refusal(r report, code int) string {
	c.Helper()
	if code != 1 || r.OK || len(r.Checks) != 1 || r.Checks[0].OK || r.Checks[0].Fix == "" {
		c.Fatalf("exit code %d, %+v", code, r)
	}
	said := r.Checks[0].Detail
	if strings.ContainsAny(said, "\n{}") || strings.Contains(said, c.keys.SecretKey) || len(said) > 400 {
		c.Errorf("that is no clear sentence: %s", said)
	}
	return said
}

func TestCheck_PassesAGoodBucketAndLeavesItEmpty(t *testing.T) {
	server, bucket := servers.Bucket(t)
	c := newTool(t, server.S3Access)
	r, code := c.check(server.Endpoint, bucket)
	if code != 0 || !r.OK || len(r.Checks) < 8 {
		t.Errorf("exit code %d, %+v", code, r)
	}
	for _, check := range r.Checks {
		if !check.OK {
			t.Errorf("%s: %s", check.Name, check.Detail)
		}
	}
	status, listing, err := server.Do(t.Context(), http.MethodGet, "/"+bucket, nil)
	if err != nil || status != http.StatusOK || bytes.Contains(listing, []byte("<Key>")) {
		t.Errorf("the bucket has, with status %d and error %v: %s", status, err, listing)
	}
}

func TestCheck_SaysInOneSentenceWhatIsWrong(t *testing.T) {
	server, bucket := servers.Bucket(t)
	good := newTool(t, server.S3Access)
	proxy := faultproxy.NewHTTP(t, server.Endpoint, 1)
	proxy.Inject(faultproxy.Rule{Method: http.MethodPut, Fault: ignoring(server.S3Access)})
	wrongSecret, unknownKey := *good, *good
	wrongSecret.keys.SecretKey, unknownKey.keys.AccessKey = "another-secret", "nobody"
	for _, c := range []struct {
		what, endpoint, bucket string
		with                   *tool
		want                   []string
	}{
		{"ignores If-None-Match", proxy.URL(), bucket, good, []string{"ignores If-None-Match", "conditional writes"}},
		{"missing bucket", server.Endpoint, "no-such-bucket", good, []string{`there is no bucket "no-such-bucket"`, "create it"}},
		{"wrong secret", server.Endpoint, bucket, &wrongSecret, []string{"AWS_SECRET_ACCESS_KEY"}},
		{"unknown key", server.Endpoint, bucket, &unknownKey, []string{"AWS_ACCESS_KEY_ID"}},
	} {
		said := c.with.refusal(c.with.check(c.endpoint, c.bucket))
		for _, want := range c.want {
			if !strings.Contains(said, want) {
				t.Errorf("%s: it does not say %q: %s", c.what, want, said)
			}
		}
	}
	if proxy.Faults()["ignore if-none-match"] == 0 {
		t.Error("no put was spoiled")
	}
}

// TestRun_FindsAServerThatIgnoresIfNoneMatch goes past the probe, which ends the
// command's check: the checks find it themselves, and what a server has else stays good.
func TestRun_FindsAServerThatIgnoresIfNoneMatch(t *testing.T) {
	server, bucket := servers.Bucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	proxy := faultproxy.NewHTTP(t, server.Endpoint, 1)
	proxy.Inject(faultproxy.Rule{Method: http.MethodPut, Fault: ignoring(server.S3Access)})
	cfg := s3.DefaultConfig(bucket)
	cfg.Endpoint, cfg.Region, cfg.PathStyle, cfg.UnsafeSkipConditionalPutProbe = proxy.URL(), server.Region, true, true
	store, err := s3.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := storecheck.Run(t.Context(), store, storecheck.DefaultConfig())
	found := false
	for _, check := range r.Results {
		t.Logf("%t %s: %s", check.OK, check.Name, check.Detail)
		switch {
		case check.Name == "a put of a taken key is refused and changes nothing":
			found = !check.OK
		case strings.Contains(check.Name, "racing puts"): // it depends on who is fast
		case !check.OK:
			t.Errorf("%s: %s", check.Name, check.Detail)
		}
	}
	if !found || r.OK() {
		t.Error("it was not found")
	}
}

// ignoring is a server that lets one writer replace another's object.
func ignoring(access servers.S3Access) faultproxy.Fault {
	return faultproxy.IgnoreIfNoneMatch(func(ctx context.Context, path string) error {
		status, answer, err := access.Do(ctx, http.MethodDelete, path, nil)
		if err == nil && status != http.StatusNoContent && status != http.StatusNotFound {
			err = fmt.Errorf("delete %s: status %d: %s", path, status, answer)
		}
		return err
	})
}
