//go:build containers

// Package image_test runs the image of deploy/Dockerfile in containers, as the
// compose file describes, with its clients outside.
package image_test

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"
	tcexec "github.com/testcontainers/testcontainers-go/exec"

	"github.com/streamhouse/streamhouse/test/e2e/containers"
	"github.com/streamhouse/streamhouse/test/e2e/deploy"
	"github.com/streamhouse/streamhouse/test/e2e/loopback"
)

// cluster is two agents of the image, and the command outside.
type cluster struct {
	*testing.T
	binary    string
	agents    [2]*containers.AgentContainer
	addresses [2]string
	grace     time.Duration // between SIGTERM and SIGKILL
}

// newCluster starts what the compose file describes. Passwords and the published
// ports are others: it is made for a laptop, and this for beside everything else.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{T: t, binary: filepath.Join(t.TempDir(), "streamhouse")}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", c.binary, "../../../cmd/streamhouse").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	network := containers.Network(t)
	postgres := containers.Postgres(t, containers.Named(network, "postgres"))
	access := containers.MinIO(t, containers.Named(network, "minio")).Access(t)
	owner, err := url.Parse(postgres.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	described := deploy.ReadCompose(t)
	for i, name := range []string{"agent-1", "agent-2"} {
		service, there := described.Services[name]
		if !there {
			t.Fatalf("the compose file has no %s", name)
		}
		port, err := loopback.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		c.addresses[i] = loopback.Addr(port)
		metadata, segments := parsed(t, service, "STREAMHOUSE_METADATA"), parsed(t, service, "STREAMHOUSE_SEGMENTS")
		metadata.User = owner.User
		if i == 0 {
			if status, answer, err := access.Do(t.Context(), http.MethodPut, "/"+segments.Host, nil); err != nil || status != http.StatusOK {
				t.Fatalf("make bucket %s: status %d, error %v: %s", segments.Host, status, err, answer)
			}
		}
		service.Environment["STREAMHOUSE_METADATA"] = metadata.String()
		service.Environment["AWS_ACCESS_KEY_ID"], service.Environment["AWS_SECRET_ACCESS_KEY"] = access.AccessKey, access.SecretKey
		if c.grace, err = time.ParseDuration(service.StopGracePeriod); err != nil {
			t.Fatal(err)
		}
		c.agents[i] = containers.Agent(t, port, advertising(t, service.Command, c.addresses[i]), service.Environment, containers.Named(network, name))
	}
	return c
}

func parsed(t *testing.T, s deploy.Service, variable string) *url.URL {
	t.Helper()
	u, err := url.Parse(s.Environment[variable])
	if err != nil || u.Host == "" {
		t.Fatalf("%s is %q: %v", variable, s.Environment[variable], err)
	}
	return u
}

// advertising is the command with another address for clients.
func advertising(t *testing.T, command []string, address string) []string {
	t.Helper()
	command = append([]string(nil), command...)
	for i, word := range command {
		if word == "--advertise" {
			command[i+1] = address
			return command
		}
	}
	t.Fatalf("%q advertises nothing", command)
	return nil
}

// command is the command outside, which finds the agents through one of them.
func (c *cluster) command(agent int, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.Context(), c.binary, append(args, "--agents", c.addresses[agent])...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "STREAMHOUSE_") }) // those of the tests
	return cmd
}

// run runs a command to its end.
func (c *cluster) run(agent int, stdin io.Reader, args ...string) string {
	c.Helper()
	var out, said bytes.Buffer
	cmd := c.command(agent, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &said
	if err := cmd.Run(); err != nil {
		c.Fatalf("%q: %v: %s", args, err, said.String())
	}
	return out.String()
}

// get asks an agent's admin listener.
func (c *cluster) get(agent int, path string) string {
	c.Helper()
	request, err := http.NewRequestWithContext(c.Context(), http.MethodGet, c.agents[agent].Admin(c)+path, nil)
	if err != nil {
		c.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // it has been read
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		c.Fatalf("%s: %s: %v: %s", path, response.Status, err, body)
	}
	return string(body)
}

// inside runs a program in an agent's container and returns what it prints.
func (c *cluster) inside(agent int, command ...string) string {
	c.Helper()
	code, out, err := c.agents[agent].Exec(c.Context(), command, tcexec.Multiplexed())
	if err != nil {
		c.Fatal(err)
	}
	said, err := io.ReadAll(out)
	if err != nil || code != 0 {
		c.Fatalf("%q: exit code %d, error %v: %s", command, code, err, said)
	}
	return string(said)
}

// TestContainers_ImageServesAsTheComposeFileDescribesAndDrainsWithoutLoss
// produces while one of two agents is stopped, and reads everything through the other.
func TestContainers_ImageServesAsTheComposeFileDescribesAndDrainsWithoutLoss(t *testing.T) {
	c := newCluster(t)
	c.run(0, nil, "topic", "create", "orders", "--partitions", "4")
	const before, during, after = 2000, 2000, 2000
	c.run(0, lines(0, before), "produce", "orders")
	if got := count(c.run(1, nil, "consume", "orders")); len(got) != before {
		t.Errorf("the other agent has %d of %d records", len(got), before)
	}
	for i := range c.agents {
		if got := c.get(i, "/readyz"); got != "ok\n" {
			t.Errorf("agent %d is ready: %q", i+1, got)
		}
		if metrics := c.get(i, "/metrics"); !strings.Contains(metrics, "streamhouse_segment_puts_total") || !strings.Contains(metrics, "process_resident_memory_bytes") {
			t.Errorf("agent %d measures: %s", i+1, metrics)
		}
	}
	// The writer works before, while and after its agent goes.
	var said bytes.Buffer
	writer := c.command(0, "produce", "orders")
	writer.Stderr = &said
	stdin, err := writer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	_, began := io.Copy(stdin, lines(before, during))
	for limit := time.Now().Add(time.Minute); len(count(c.run(1, nil, "consume", "orders"))) == before; {
		if time.Now().After(limit) {
			t.Fatal("nothing of the writer arrives")
		}
	}
	_, fed := io.Copy(stdin, lines(before+during, during))
	if code := c.agents[0].Terminated(t, c.grace); code != 0 {
		t.Errorf("the agent that was told to end has exit code %d", code)
	}
	_, more := io.Copy(stdin, lines(before+2*during, after))
	if err := errors.Join(began, fed, more, stdin.Close(), writer.Wait()); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	c.drained(0)
	seen := count(c.run(1, nil, "consume", "orders"))
	for i := range before + 2*during + after {
		if n := seen[line(i)]; n != 1 {
			t.Errorf("%q is there %d times", line(i), n)
		}
	}
	if len(seen) != before+2*during+after {
		t.Errorf("there are %d different records, want %d", len(seen), before+2*during+after)
	}
}

// drained demands that the agent said so.
func (c *cluster) drained(agent int) {
	c.Helper()
	logs, err := c.agents[agent].Logs(c.Context())
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = logs.Close() }() // it has been read
	said, err := io.ReadAll(logs)
	if err != nil || !strings.Contains(string(said), "agent drains") || strings.Contains(string(said), "not everything was finished") {
		c.Errorf("the agent that was told to end says, with error %v: %s", err, said)
	}
}

// TestContainers_ImageKnowsItsBuildAndHasNoMoreRightsThanItNeeds looks at the
// image itself.
func TestContainers_ImageKnowsItsBuildAndHasNoMoreRightsThanItNeeds(t *testing.T) {
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	// Its own command, but for what it cannot know: where clients find it. The log is in the
	// container, in the only folder that is its own.
	command := []string{"serve", "--listen", "0.0.0.0:7070", "--admin", "0.0.0.0:7071", "--advertise", loopback.Addr(port), "--data", "/data"}
	c := &cluster{T: t}
	c.agents[0] = containers.Agent(t, port, command, nil, testcontainers.WithTmpfs(map[string]string{"/data": "uid=65532,gid=65532,mode=0700"}))

	var version struct {
		Version, Revision string
		Modified          bool
	}
	if said := c.inside(0, "/streamhouse", "version", "--output", "json"); json.Unmarshal([]byte(said), &version) != nil || version.Version == "" || len(version.Revision) != 40 {
		t.Errorf("its version is %s", said)
	}
	if said := c.inside(0, "/streamhouse", "agent", "ready"); !strings.HasSuffix(said, "is ready\n") {
		t.Errorf("its health check says %q", said)
	}
	is, err := c.agents[0].Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if is.Config.User != "65532:65532" {
		t.Errorf("it runs as %q", is.Config.User)
	}
	// Who is not root cannot write where the binary is.
	if code, _, err := c.agents[0].Exec(t.Context(), []string{"/streamhouse", "topic", "list", "--data", "/elsewhere"}); err != nil || code == 0 {
		t.Errorf("making a folder beside the binary: exit code %d, error %v", code, err)
	}
	certificates, err := c.agents[0].CopyFileFromContainer(t.Context(), "/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = certificates.Close() }() // it has been read
	pem, err := io.ReadAll(certificates)
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(pem) {
		t.Errorf("there are no certificates in its %d bytes of certificates: %v", len(pem), err)
	}
	if code := c.agents[0].Terminated(t, time.Minute); code != 0 {
		t.Errorf("its exit code is %d", code)
	}
}

func line(i int) string { return fmt.Sprintf("record %06d", i) }

// lines are n records from number from on.
func lines(from, n int) io.Reader {
	var b strings.Builder
	for i := from; i < from+n; i++ {
		b.WriteString(line(i) + "\n")
	}
	return strings.NewReader(b.String())
}

// count says how often each line is there.
func count(text string) map[string]int {
	seen := make(map[string]int)
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		seen[scan.Text()]++
	}
	return seen
}
