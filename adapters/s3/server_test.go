package s3

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

const (
	testAccess = "test-access-key"
	testSecret = "test-secret-that-no-error-may-quote"
	testBucket = "streamhouse-test"
)

func TestMain(m *testing.M) {
	// The default chain, and nothing of who runs the tests.
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": testAccess, "AWS_SECRET_ACCESS_KEY": testSecret, "AWS_SESSION_TOKEN": "",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	code := servers.Main(m).Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// realConfig is an empty prefix of a real server's bucket, and makes the
// server's keys those of the test.
func realConfig(tb testing.TB) Config {
	tb.Helper()
	server, bucket := servers.Bucket(tb)
	tb.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	tb.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	cfg := DefaultConfig(bucket)
	cfg.Endpoint, cfg.PathStyle = server.Endpoint, true
	cfg.Prefix = strings.ToLower(rand.Text())
	return cfg
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	return port, err
}
