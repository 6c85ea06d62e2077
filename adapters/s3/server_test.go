package s3

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"go.uber.org/goleak"
)

// A real server, versitygw over a folder, as its own process. This file is all that
// knows which server it is and how it is built and started.

const (
	gatewayModule = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
	gatewayBinary = "versitygw"
	testAccess    = "test-access-key"
	testSecret    = "test-secret-that-no-error-may-quote"
	testBucket    = "streamhouse-test"
	startWait     = 30 * time.Second
)

// gateway is the one server of this test process.
var gateway struct {
	once sync.Once
	url  string
	stop func()
	err  error
}

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
	code := m.Run()
	if gateway.stop != nil {
		gateway.stop()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// serverURL is where the real server is. It starts it.
func serverURL(tb testing.TB) string {
	tb.Helper()
	gateway.once.Do(func() { gateway.url, gateway.stop, gateway.err = startGateway() })
	if gateway.err != nil {
		tb.Fatalf("no S3 server: %v", gateway.err)
	}
	return gateway.url
}

// realConfig is an empty prefix of the real server's bucket.
func realConfig(tb testing.TB) Config {
	tb.Helper()
	cfg := DefaultConfig(testBucket)
	cfg.Endpoint, cfg.PathStyle = serverURL(tb), true
	cfg.Prefix = strings.ToLower(rand.Text())
	return cfg
}

func startGateway() (url string, stop func(), err error) {
	binary, err := gatewayPath()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "s3-")
	if err != nil {
		return "", nil, err
	}
	for range 5 { // a free port may be taken again before the server has it
		if url, stop, err = runGateway(binary, dir); err == nil {
			return url, stop, nil
		}
	}
	_ = os.RemoveAll(dir)
	return "", nil, err
}

func runGateway(binary, dir string) (url string, stop func(), err error) {
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	var output strings.Builder
	cmd := exec.Command(binary, "--port", "127.0.0.1:"+port, "--quiet", "--keep-alive", "posix", dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+testAccess, "ROOT_SECRET_KEY="+testSecret)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	stop = func() {
		_ = cmd.Process.Kill()
		<-exited
		_ = os.RemoveAll(dir)
	}
	url = "http://127.0.0.1:" + port
	if err := makeBucket(url, exited); err != nil {
		_ = cmd.Process.Kill()
		<-exited
		return "", nil, fmt.Errorf("%s did not start: %w\n%s", gatewayBinary, err, output.String())
	}
	return url, stop, nil
}

// makeBucket asks until the server answers.
func makeBucket(url string, exited <-chan struct{}) error {
	cfg := DefaultConfig(testBucket)
	cfg.Endpoint, cfg.PathStyle = url, true
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	s, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		_, err := s.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(testBucket)})
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("it has ended: %w", err)
		case <-ctx.Done():
			return err
		case <-poll.C:
		}
	}
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

// gatewayPath builds the server into the repository's bin folder, once for all.
func gatewayPath() (string, error) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		return "", err
	}
	path := filepath.Join(bin, gatewayBinary)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	build := exec.Command("go", "install", "-p", "1", gatewayModule)
	build.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w\n%s", gatewayModule, err, out)
	}
	return path, nil
}
