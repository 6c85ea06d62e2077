package servers_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

// asChild tells a process of this test binary to start servers and wait for its death.
const asChild = "SERVERS_TEST_CHILD"

func TestServers_EndWithAKilledTestBinary(t *testing.T) {
	if os.Getenv(asChild) != "" {
		p, s := servers.Postgres(t), servers.S3(t)
		fmt.Println(p.Addr(), s.Endpoint, p.DataDir)
		select {}
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=2m")
	child.Env = append(os.Environ(), asChild+"=1")
	child.Stderr = os.Stderr
	stdout, err := child.StdoutPipe()
	must(t, err, child.Start())
	var postgres, endpoint, data string
	_, err = fmt.Fscan(stdout, &postgres, &endpoint, &data)
	must(t, err, child.Process.Signal(syscall.SIGKILL))
	_ = child.Wait()
	for _, addr := range []string{postgres, strings.TrimPrefix(endpoint, "http://")} {
		within(t, "nobody listens at "+addr, func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		})
	}
	within(t, "PostgreSQL has left its folder", func() bool {
		_, err := os.Stat(filepath.Join(data, "postmaster.pid"))
		return os.IsNotExist(err)
	})

	// Its folder goes with the next server of anybody, once it is old.
	long := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(filepath.Dir(data), long, long))
	young := servers.S3(t)
	servers.S3(t)
	if _, err := os.Stat(filepath.Dir(data)); !os.IsNotExist(err) {
		t.Errorf("the folder of a killed test binary is there: %v", err)
	}
	get(t, young.S3Access, "/")
}

// within waits until what holds, but not for ever.
func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	limit := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-poll.C:
		case <-limit:
			t.Fatalf("not so after 30 s: %s", what)
		}
	}
}

func TestServers_LeaveNoFileAndNoListener(t *testing.T) {
	var folders, addrs []string
	t.Run("a test", func(t *testing.T) {
		killed, up, s := servers.Postgres(t), servers.Postgres(t), servers.S3(t)
		must(t, killed.Kill9())
		folders = []string{killed.DataDir, up.DataDir}
		addrs = []string{killed.Addr(), up.Addr(), strings.TrimPrefix(s.Endpoint, "http://")}
	})
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Dir(folder)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", folder, err)
		}
	}
	for _, addr := range addrs {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			t.Errorf("somebody listens at %s", addr)
		}
	}
}

func TestServers_TakeAnotherPortIfTheirOwnIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port

	p := servers.Postgres(t)
	must(t, p.Stop(), servers.StartOn(p, port))
	if one(t, p, "select 'up'") != "up" || p.Addr() == taken.Addr().String() {
		t.Errorf("PostgreSQL is at %s", p.Addr())
	}
	s := servers.S3(t)
	must(t, s.Stop(), servers.StartOn(s, port))
	if status, _ := get(t, s.S3Access, "/"); status != 200 || strings.HasSuffix(s.Endpoint, taken.Addr().String()) {
		t.Errorf("S3 is at %s, status %d", s.Endpoint, status)
	}
}

// refusing is a test that notes that it has failed.
type refusing struct {
	testing.TB
	said string
}

func (*refusing) Helper() {}

func (r *refusing) Fatal(args ...any) {
	r.said = fmt.Sprint(args...)
	panic(r)
}

func TestShared_WantsMain(t *testing.T) {
	for _, share := range []func(testing.TB){
		func(tb testing.TB) { servers.SharedPostgres(tb) },
		func(tb testing.TB) { servers.SharedS3(tb) },
	} {
		tb := &refusing{TB: t}
		servers.WithoutMain(t, func() {
			defer func() { _ = recover() }()
			share(tb)
		})
		if !strings.Contains(tb.said, "servers.Main") {
			t.Errorf("said %q", tb.said)
		}
	}
}
