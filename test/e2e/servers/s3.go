package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/streamhouse/streamhouse/test/e2e/loopback"
)

// The gateway, its version and where its binary is in the module.
const (
	gatewayVersion = "v1.8.0"
	gatewayPackage = "github.com/versity/versitygw/cmd/versitygw@" + gatewayVersion
	gatewayFile    = "versitygw-" + gatewayVersion
	// gatewayTaken is in the log of a server that finds its port taken.
	gatewayTaken = "address already in use"
)

// S3Access is how clients find an S3 server, this package's or another, and
// what they sign with.
type S3Access struct {
	// Endpoint is the server's URL. Buckets are part of the path below it.
	Endpoint  string
	AccessKey string
	SecretKey string
	Region    string
}

// S3Server is an S3 server that keeps objects as files in a folder of its own.
// Start, Stop and Kill9 may be used by one goroutine at a time; the endpoint and the keys stay the
// same for its whole life. It does not sync what it stores: only the crash of the server, not of
// the machine, keeps acknowledged objects.
type S3Server struct {
	S3Access
	folder  *folder
	port    int
	binary  string
	running *process // nil while it is down
}

// S3 makes a server and starts it; both end with tb.
func S3(tb testing.TB) *S3Server {
	tb.Helper()
	s, err := newS3()
	if err != nil {
		tb.Fatalf("S3 server: %v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the end of the log of the S3 server at %s:\n%s", s.Endpoint, tail(s.log()))
		}
		failing(tb, "end the S3 server", s.remove)
	})
	return s
}

// NewS3Access has keys that nobody else has, and no endpoint yet.
func NewS3Access() S3Access {
	return S3Access{AccessKey: rand.Text(), SecretKey: rand.Text(), Region: "us-east-1"}
}

func newS3() (*S3Server, error) {
	binary, err := BuildS3()
	if err != nil {
		return nil, err
	}
	files, err := newFolder()
	if err != nil {
		return nil, err
	}
	s := &S3Server{S3Access: NewS3Access(), folder: files, binary: binary}
	if err = os.Mkdir(files.join("objects"), 0o700); err == nil {
		err = startFirst(s.Start, s.moveTo, s.log(), gatewayTaken)
	}
	if err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// BuildS3 returns the path of the S3 server's binary. It is built once in each
// working copy, which takes a minute or two; other test binaries that want it wait.
func BuildS3() (path string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(bin, "."+gatewayFile+".lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	built := filepath.Join(bin, gatewayFile)
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	into, err := os.MkdirTemp(bin, "build")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(into)
	build := exec.Command("go", "install", "-buildvcs=false", "-trimpath", gatewayPackage)
	build.Dir, build.Env = into, append(os.Environ(), "GOBIN="+into, "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s, which `make servers` does beforehand: %w\n%s", gatewayPackage, err, out)
	}
	return built, os.Rename(filepath.Join(into, "versitygw"), built)
}

func (s *S3Server) log() string { return s.folder.join("server.log") }

func (s *S3Server) moveTo(port int) {
	s.port, s.Endpoint = port, "http://"+loopback.Addr(port)
}

// Start starts a server that is down and returns once it answers.
func (s *S3Server) Start() error {
	if s.running != nil {
		return errors.New("start the S3 server: it is running")
	}
	started, err := program{
		path: s.binary, args: []string{"--port", loopback.Addr(s.port), "--region", s.Region, "posix", s.folder.join("objects")},
		env: []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey, "VGW_QUIET=true"},
		dir: s.folder.path, log: s.log(), orphaned: syscall.SIGKILL,
	}.start()
	if err != nil {
		return err
	}
	for limit := time.Now().Add(startLimit); !s.Answers(context.Background()); {
		if started.gone(startPoll) {
			return fmt.Errorf("start the S3 server: %w\n%s", started.reap(), tail(s.log()))
		}
		if time.Now().After(limit) {
			return errors.Join(fmt.Errorf("start the S3 server: no answer after %v\n%s", startLimit, tail(s.log())), started.end(syscall.SIGKILL))
		}
	}
	s.running = started
	return nil
}

// Kill9 kills the server in the middle of what it does.
func (s *S3Server) Kill9() error { return s.stop(syscall.SIGKILL) }

// Stop ends the server after the requests that it has begun.
func (s *S3Server) Stop() error { return s.stop(syscall.SIGTERM) }

func (s *S3Server) stop(how syscall.Signal) error {
	if s.running == nil {
		return errors.New("stop the S3 server: it is down")
	}
	stopped := s.running
	s.running = nil
	return stopped.end(how)
}

// remove ends the server, however it is, and leaves nothing of it.
func (s *S3Server) remove() error {
	var err error
	if s.running != nil {
		err = s.Kill9()
	}
	return errors.Join(err, s.folder.remove())
}
